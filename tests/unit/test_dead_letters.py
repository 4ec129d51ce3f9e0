"""Dead letters: the original record, and headers that say what happened."""

import hashlib

from pipeline.batch import Partition, Reject
from pipeline.dead_letters import MESSAGE_BYTES, dead_letter


def made(reject: Reject, **changed: object) -> tuple[bytes | None, bytes | None, dict[str, bytes]]:
    given: dict[str, object] = {
        "key": b"k",
        "value": b"value",
        "headers": None,
        "partition": Partition("in", 3),
        "offset": 42,
        "model": ("fraud", "7"),
        "limit": 100,
        **changed,
    }
    key, value, headers = dead_letter(reject, **given)  # type: ignore[arg-type]
    assert len({name for name, _ in headers}) == len(headers)
    return key, value, dict(headers)


REJECT = Reject(0, "decode", "BadJson", "no object")


def test_a_dead_letter_is_the_record_with_the_reason_in_headers() -> None:
    """Key and value are the original's; each header holds one fact as text."""
    key, value, headers = made(REJECT)
    assert (key, value) == (b"k", b"value")
    assert headers == {
        "__dlq.errors.topic": b"in",
        "__dlq.errors.partition": b"3",
        "__dlq.errors.offset": b"42",
        "__dlq.errors.stage": b"decode",
        "__dlq.errors.exception": b"BadJson",
        "__dlq.errors.message": b"no object",
        "__dlq.errors.model": b"fraud",
        "__dlq.errors.model.version": b"7",
    }


def test_a_tombstone_stays_one() -> None:
    """Missing keys and values are kept missing."""
    key, value, _ = made(REJECT, key=None, value=None)
    assert (key, value) == (None, None)


def test_own_headers_are_kept_and_earlier_failures_replaced() -> None:
    """A record that failed, was replayed and failed again tells of the last failure alone."""
    headers = [("trace", b"1"), ("__dlq.errors.stage", b"score"), ("__dlq.errors.old", b"x")]
    _, _, found = made(REJECT, headers=headers)
    assert found["trace"] == b"1"
    assert found["__dlq.errors.stage"] == b"decode"
    assert "__dlq.errors.old" not in found


def test_a_value_over_the_limit_is_cut_and_named() -> None:
    """What is cut can be found again by its length and digest; what just fits is whole."""
    _, value, headers = made(REJECT, value=b"x" * 101)
    assert value == b"x" * 100
    assert headers["__dlq.value.truncated"] == b"101"
    assert headers["__dlq.value.sha256"] == hashlib.sha256(b"x" * 101).hexdigest().encode()
    _, whole, plain = made(REJECT, value=b"x" * 100)
    assert whole == b"x" * 100
    assert "__dlq.value.truncated" not in plain


def test_a_long_or_odd_message_never_breaks_a_dead_letter() -> None:
    """Messages are cut, and what UTF-8 cannot hold is replaced."""
    _, _, headers = made(Reject(0, "score", "E", "é" * 5000))
    assert len(headers["__dlq.errors.message"]) <= MESSAGE_BYTES
    _, _, odd = made(Reject(0, "score", "E", "lone \ud800 surrogate"))
    assert odd["__dlq.errors.message"] == b"lone ? surrogate"
