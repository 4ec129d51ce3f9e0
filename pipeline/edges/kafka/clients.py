"""What every client of ours is configured with, and librdkafka's errors in our words."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import confluent_kafka.cimpl
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from pipeline.errors import ClusterUnfit, Fenced, HeadraceError, OutcomeUnknown, Retriable

T = TypeVar("T")

SOCKET_TIMEOUT_MS = 10_000
# Below it, so that a call comes back before the request that it waits for.
CALL_SECONDS = 8.0
# A commit that is not known by then is left to a successor, which finds out by reading.
COMMIT_SECONDS = 30.0
# librdkafka's default; journal chunks and predictions stay below it.
LARGEST_RECORD = 1_000_000
LEAST_TRIES = 4
# Beyond its own time-out a call waits for a request that is out at most.
LATE_SECONDS = 7.0

FENCED = frozenset(
    {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, 90}  # noqa: SLF001 - librdkafka's own codes; 90 is PRODUCER_FENCED
)
REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,  # noqa: SLF001
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
    }
)


def transactional_id(group: str, slot: int) -> str:
    """The fence of one slot. Nothing in it is random: who shares the group shares the fence."""
    return f"{group}.{slot:04d}"


def common(settings: Mapping[str, str]) -> dict[str, Any]:
    """The user's settings, and those of ours that every client shares."""
    return {
        **settings,
        "socket.timeout.ms": SOCKET_TIMEOUT_MS,
        "client.id": settings.get("client.id", "headrace"),
        # librdkafka writes to stderr by itself; what matters comes back as an error.
        "log_level": 2,
    }


def consumer_settings(settings: Mapping[str, str], group: str) -> dict[str, Any]:
    """A consumer that never commits by itself and sees stable records only."""
    return {
        **common(settings),
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        # Nobody joins the group; but so long a commit of offsets waits for a coordinator to be.
        "session.timeout.ms": SOCKET_TIMEOUT_MS,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        # Bounds what is fetched ahead in each feeder: a tenth of a second of a fast stream, which
        # takes twice as much memory as it counts.
        "queued.max.messages.kbytes": settings.get("queued.max.messages.kbytes", 8_192),
        # A full queue must not stop fetching for the default second.
        "fetch.queue.backoff.ms": 10,
    }


def producer_settings(
    settings: Mapping[str, str],
    queue_rows: int,
    largest_record: int = LARGEST_RECORD,
    linger_ms: float = 5,
) -> dict[str, Any]:
    """A producer with room for `queue_rows` records, partitioning by key as Java clients do.

    `largest_record` is in bytes: dead letters may be larger than other records.
    """
    return {
        "compression.type": "lz4",
        "linger.ms": linger_ms,
        **common(settings),
        "message.max.bytes": max(largest_record, LARGEST_RECORD),
        "enable.idempotence": True,
        "message.timeout.ms": 30_000,
        "partitioner": "murmur2_random",
        "queue.buffering.max.messages": max(queue_rows, 100_000),
        "queue.buffering.max.kbytes": 1 << 18,
    }


def connected(connect: Callable[[str, dict[str, str]], Any], settings: Mapping[str, Any]) -> Any:
    """Open a client by a compiled part's `connect`, of the librdkafka that confluent-kafka loaded.

    Raises KafkaException for settings that librdkafka refuses, as confluent-kafka's clients do.
    """
    asked = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in settings.items()
    }
    try:
        return connect(confluent_kafka.cimpl.__file__, asked)
    except ValueError as problem:
        error = KafkaError(KafkaError._INVALID_ARG, str(problem))  # noqa: SLF001
        raise KafkaException(error) from problem


def ignored(_: KafkaError) -> None:
    """Connections come and go; what matters is raised by the call, or told of the record."""


def asked_again(
    call: Callable[[], T], passes: Callable[[KafkaError], bool], seconds: float, pause: float = 0.0
) -> T:
    """Make a call of the client, again while its error is one that `passes`, for `seconds`.

    At least `LEAST_TRIES` times: a process that was stopped must not take its own pause for the
    broker's. Raises KafkaException.
    """
    deadline = time.monotonic() + seconds
    tries = 0
    while True:
        tries += 1
        try:
            return call()
        except KafkaException as problem:
            late = tries >= LEAST_TRIES and time.monotonic() > deadline
            if late or not passes(problem.args[0]):
                raise
            time.sleep(pause)


def send_offsets(
    send: Callable[[list[TopicPartition], Any, float], None],
    offsets: list[TopicPartition],
    group: Any,
    seconds: float,
) -> None:
    """Add offsets to the transaction, within about `seconds`.

    `send` is the producer's `send_offsets_to_transaction`.

    librdkafka 2.16 may never return from this: where nobody coordinates the group three times
    within a second, as while a broker comes back, it drops what it waits for and its time-out too
    (`rd_kafka_coord_req_handle_FindCoordinator`). The call is left in its thread then, and the
    producer is of no more use. Raises KafkaException, OutcomeUnknown.
    """
    # Bounded by the one outcome of the one call.
    outcome: SimpleQueue[KafkaException | None] = SimpleQueue()

    def call() -> None:
        try:
            send(offsets, group, seconds)
        except KafkaException as problem:
            outcome.put(problem)
        else:
            outcome.put(None)

    threading.Thread(target=call, name="send_offsets", daemon=True).start()
    allowed = round(seconds + LATE_SECONDS)
    # By the second: a process that was stopped must not take its own pause for the call's.
    for _ in range(allowed):
        try:
            problem = outcome.get(timeout=1.0)
        except Empty:
            continue
        if problem is not None:
            raise problem
        return
    raise OutcomeUnknown(
        f"librdkafka has not come back from sending offsets for {allowed} s; "
        "it has lost the coordinator of the group"
    )


def translate(error: KafkaError, doing: str) -> HeadraceError:
    """The error in our tree, by who must act next."""
    text = f"{doing}: {error.name()}: {error.str()}"
    if error.code() in FENCED:
        return Fenced(text)
    if error.code() in REFUSED:
        return ClusterUnfit(text)
    return Retriable(text)


@contextmanager
def translating(
    doing: str, unknown: Callable[[KafkaError], bool] = lambda _: False
) -> Iterator[None]:
    """Raise librdkafka's errors as ours; `unknown` tells those that leave the outcome open."""
    try:
        yield
    except KafkaException as problem:
        error = problem.args[0]
        if unknown(error):
            raise OutcomeUnknown(f"{doing}: {error.name()}: {error.str()}") from problem
        raise translate(error, doing) from problem
