"""librdkafka's dotted keys: those that the protocol owns, and those that hold a secret."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from pipeline.config import Secret
from pipeline.document import expand
from pipeline.shapes import WrongError, kind_of


class Owned(NamedTuple):
    """Why a key may not be set, and what to do instead."""

    reason: str
    way_out: str


_LEAVE_OUT = "Leave it out"
_POSITIONS = "offsets are committed in the transaction that holds the predictions"
_SLOTS = "each feeder is given the partitions of its slot and never joins a group"
_FENCE = "it is {group}.{slot}, so that a successor fences the run before it"
_DURABLE = "every write must be acknowledged by all in-sync replicas, once and in order"
_DEADLINES = "the deadlines of a commit depend on each other and are fixed"
_ROOM = "the producer's queue has room for a whole commit"
_CALLBACKS = "a config holds texts and numbers, no functions"

OWNED: Mapping[str, Owned] = {
    "group.id": Owned("offsets belong to the job's group", "Set group"),
    "group.instance.id": Owned(_SLOTS, _LEAVE_OUT),
    "group.protocol": Owned(_SLOTS, _LEAVE_OUT),
    "group.remote.assignor": Owned(_SLOTS, _LEAVE_OUT),
    "partition.assignment.strategy": Owned(_SLOTS, "Leave it out; set slots"),
    "transactional.id": Owned(_FENCE, "Leave it out; set group to change its first part"),
    "enable.auto.commit": Owned(_POSITIONS, "Leave it out; commit.interval_ms says how often"),
    "auto.commit.enable": Owned(_POSITIONS, "Leave it out; commit.interval_ms says how often"),
    "auto.commit.interval.ms": Owned(_POSITIONS, "Set commit.interval_ms"),
    "enable.auto.offset.store": Owned(_POSITIONS, _LEAVE_OUT),
    "offset.store.method": Owned(_POSITIONS, _LEAVE_OUT),
    "auto.offset.reset": Owned(
        "a lost offset is an error and never a silent jump", "Set input.start for the first start"
    ),
    "session.timeout.ms": Owned(
        "nobody joins the group, and a commit waits so long for its coordinator", _LEAVE_OUT
    ),
    "isolation.level": Owned(
        "records of aborted transactions must not be scored: it is read_committed", _LEAVE_OUT
    ),
    "enable.partition.eof": Owned(
        "the end of a partition moves the position over transaction markers", _LEAVE_OUT
    ),
    "enable.idempotence": Owned(_DURABLE, _LEAVE_OUT),
    "acks": Owned(_DURABLE, _LEAVE_OUT),
    "request.required.acks": Owned(_DURABLE, _LEAVE_OUT),
    "partitioner": Owned(
        "keys go where Java clients put them, by murmur2_random, or to the record's own partition",
        _LEAVE_OUT,
    ),
    "transaction.timeout.ms": Owned(_DEADLINES, _LEAVE_OUT),
    "message.timeout.ms": Owned(_DEADLINES, _LEAVE_OUT),
    "delivery.timeout.ms": Owned(_DEADLINES, _LEAVE_OUT),
    "socket.timeout.ms": Owned(_DEADLINES, _LEAVE_OUT),
    "statistics.interval.ms": Owned(
        "the statistics tell whether a commit needed more than one request", _LEAVE_OUT
    ),
    "message.max.bytes": Owned(
        "chunks of the journal and dead letters need their size",
        "Leave it out; the topics' max.message.bytes is what limits records",
    ),
    "queue.buffering.max.messages": Owned(_ROOM, "Leave it out; set commit.max_rows"),
    "queue.buffering.max.kbytes": Owned(_ROOM, "Leave it out; set commit.max_bytes"),
    "fetch.queue.backoff.ms": Owned(
        "a full queue must not stop fetching for long",
        "Leave it out; set queued.max.messages.kbytes",
    ),
    "delivery.report.only.error": Owned("writes that fail are how a loss is noticed", _LEAVE_OUT),
    "log_level": Owned("what matters in librdkafka's log comes back as an error", _LEAVE_OUT),
    "metadata.broker.list": Owned(
        "it is another name of bootstrap.servers", "Set bootstrap.servers"
    ),
    "logger": Owned(_CALLBACKS, _LEAVE_OUT),
    "on_delivery": Owned(_CALLBACKS, _LEAVE_OUT),
    "on_commit": Owned(_CALLBACKS, _LEAVE_OUT),
    "default.topic.config": Owned("it is a section of its own", "Write its keys under kafka"),
}

# What a misspelt key holds is a secret too, so words are looked for and not whole names.
_SECRET = re.compile(
    r"pas+w|passphrase|secret|jaas|credential(?!s\.client\.id)|oauthbearer\.config|\.pem$|^ssl_key$"
)
_ONLY_A_NAME = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_PUBLIC = frozenset({"ssl.ca.pem", "ssl.certificate.pem", "https.ca.pem"})


def owned(key: str) -> Owned | None:
    """Why the protocol needs a key for itself; None for a key that passes through."""
    if key.endswith("_cb"):
        return Owned(_CALLBACKS, _LEAVE_OUT)
    return OWNED.get(key)


def is_secret(key: str) -> bool:
    """Whether the value of a key must come from the environment and is never shown."""
    lowered = key.lower()
    return lowered not in _PUBLIC and _SECRET.search(lowered) is not None


def value(key: object, raw: object, environ: Mapping[str, str]) -> str:
    """Return the text that librdkafka gets for a key; raises `WrongError`."""
    if not isinstance(key, str) or not key.isprintable():
        raise WrongError("is not one of librdkafka's keys", "Remove it")
    if (taken := owned(key)) is not None:
        raise WrongError(f"belongs to the protocol: {taken.reason}", taken.way_out)
    if is_secret(key) and not (isinstance(raw, str) and _ONLY_A_NAME.fullmatch(raw)):
        raise WrongError(
            "is a secret, which must not stand in a file",
            f"Write {key}: ${{NAME}}, without a default, and set NAME in the environment",
        )
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, int | float) and abs(raw) < 1 << 63:
        return str(int(raw)) if raw == int(raw) else str(raw)
    if not isinstance(raw, str):
        raise WrongError(
            f"is {kind_of(raw)}, where a text or a number is expected",
            "Write librdkafka's key with its dots on one line",
        )
    value = expand(raw, environ)
    # PEM texts have line ends.
    if not value.strip() or not re.sub(r"[\r\n\t]", "", value).isprintable():
        raise WrongError("is empty or not printable", "Write a text, or leave the key out")
    return Secret(value) if is_secret(key) else value


def shown(key: object, raw: object) -> object:
    """Return what a message may show of a value: no secret, and nothing that may hold one."""
    if is_secret(str(key)):
        return Secret("")
    if isinstance(raw, Mapping):
        return "{…}"
    if isinstance(raw, list | tuple | set | frozenset):
        return "[…]"
    if isinstance(raw, int) and raw.bit_length() > 64:
        return "…"
    return Secret("") if key == "kafka" and raw is not None else raw
