"""The compiled part of `pipeline.edges.kafka.source`, in `_consume.cpp`."""

from typing import Any

def connect(module: str, settings: dict[str, str]) -> Any:
    """Open a consumer of the librdkafka that the loaded extension `module` is linked with.

    Raises ValueError for settings that librdkafka refuses, ImportError where it cannot be used.
    """

def assign(consumer: Any, positions: list[tuple[str, int, int]]) -> int:
    """Read each (topic, partition) from its offset on; returns librdkafka's error code or 0."""

def poll(consumer: Any, most: int, milliseconds: int, fill: bool) -> tuple[Any, ...]:
    """Take what has come, waiting `milliseconds` at most: for a first message, or to `fill` up.

    Returns the records as buffers, sorted by partition: partitions (int32), offsets and timestamps
    (int64), then bitmap (or None), offsets and bytes of the keys and of the values, headers by row
    (or None); and what stood in a record's place, as (code, partition, offset, text).
    """

def close(consumer: Any) -> None:
    """Leave; a closed consumer can only be closed."""
