"""Calls of librdkafka that need more than its own time-outs."""

import threading

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.edges.kafka import clients
from pipeline.edges.kafka.clients import LEAST_TRIES, asked_again, send_offsets
from pipeline.errors import OutcomeUnknown


def test_what_may_pass_is_asked_again_until_its_time_is_up() -> None:
    """A few times at least: whoever was stopped meanwhile has not asked for that long."""
    timed_out = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    answers = iter([*[timed_out] * (LEAST_TRIES - 1), 7])

    def call() -> int:
        answer = next(answers)
        if isinstance(answer, KafkaException):
            raise answer
        return answer

    assert asked_again(call, lambda _: True, -1.0) == 7
    answers = iter([*[timed_out] * LEAST_TRIES, 7])
    with pytest.raises(KafkaException):
        asked_again(call, lambda _: True, -1.0)
    answers = iter([timed_out, 7])
    with pytest.raises(KafkaException):
        asked_again(call, lambda _: False, 60.0)


def test_sending_offsets_is_given_up_where_the_client_never_returns(monkeypatch) -> None:
    """The feeder must end then, so that a successor takes the slot."""
    monkeypatch.setattr(clients, "LATE_SECONDS", 1.0)
    released = threading.Event()
    try:
        with pytest.raises(OutcomeUnknown, match="has not come back from sending offsets for 1 s"):
            send_offsets(lambda *_: released.wait(), [], None, 0.0)
    finally:
        released.set()


def test_sending_offsets_hands_everything_over_and_returns() -> None:
    """In whatever thread it is made, it is one call."""
    calls = []
    send_offsets(lambda *given: calls.append(given), ["offset"], "group", 8.0)
    assert calls == [(["offset"], "group", 8.0)]


def test_an_error_of_sending_offsets_is_raised_as_it_came() -> None:
    """Whether it may be taken up again is for the caller to see."""
    error = KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def fails(*_: object) -> None:
        raise error

    with pytest.raises(KafkaException) as raised:
        send_offsets(fails, [], None, 8.0)
    assert raised.value is error
