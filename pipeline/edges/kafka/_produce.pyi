"""The compiled part of `pipeline.edges.kafka.producing`, in `_produce.cpp`."""

from typing import Any, TypeAlias

# First value in the buffers, bitmap of what is there (or None), int32 offsets, bytes (or None).
Texts: TypeAlias = tuple[int, Any | None, Any, Any | None]
# librdkafka's code and text, whether it is fatal, may be tried again, needs an abort.
Error: TypeAlias = tuple[int, str, int, int, int]

def connect(module: str, settings: dict[str, str]) -> Any:
    """Open a producer of the librdkafka that the loaded extension `module` is linked with.

    Raises ValueError for settings that librdkafka refuses, ImportError where it cannot be used.
    """

def produce(
    producer: Any,
    topic: str,
    partition: int,
    rows: int,
    start: int,
    keys: Texts,
    values: Texts,
    headers: list[Any] | None,
) -> tuple[int, int]:
    """Queue the rows from `start` on, copied; without the interpreter's lock but for `headers`.

    Partition -1 is chosen by key. Returns how many were taken, and librdkafka's code where one was
    refused, 0 where all fitted or the queue is full.
    """

def init(producer: Any, milliseconds: int) -> Error | None:
    """Fence earlier producers of the transactional id."""

def begin(producer: Any) -> Error | None:
    """Begin a transaction."""

def send_offsets(
    producer: Any, offsets: list[tuple[str, int, int, str]], group: bytes, milliseconds: int
) -> Error | None:
    """Add (topic, partition, offset, metadata) each to the transaction.

    `group` is what confluent-kafka's `consumer_group_metadata` gives.
    """

def commit(producer: Any, milliseconds: int) -> Error | None:
    """Wait for what is queued, then commit."""

def abort(producer: Any, milliseconds: int) -> Error | None:
    """Drop what is queued, then abort."""

def poll(producer: Any, milliseconds: int) -> None:
    """Take in what librdkafka reports, waiting for it at most that long."""

def left(producer: Any) -> int:
    """How many records are queued or on their way."""

def flush(producer: Any, milliseconds: int) -> None:
    """Wait until none is left, but no longer than that."""

def purge(producer: Any) -> None:
    """Drop what is queued or on its way."""

def fatal(producer: Any) -> tuple[int, str] | None:
    """Code and text of what has made the producer unusable, None while it is not."""

def heard(producer: Any) -> tuple[int, bytes, int]:
    """How many statistics came, the newest as JSON, and the code of the first failed delivery."""
