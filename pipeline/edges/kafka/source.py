"""Reads the input topic: by the compiled part where it was built, else by its twin in Python."""

from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    Message,
    TopicPartition,
)

from pipeline.batch import Partition
from pipeline.edges.kafka.clients import connected, consumer_settings, translate, translating
from pipeline.errors import ClusterUnfit
from pipeline.ports import Polled, Source

try:
    from pipeline.edges.kafka import _consume
except ImportError:
    COMPILED = False
else:
    COMPILED = True


# What a fetch waits for where it may wait: a hundredth of a second of a busy slot.
FETCH_BYTES = 1 << 16


def open_source(
    settings: Mapping[str, str], group: str, topic: str, patience_ms: int = 0
) -> Source:
    """A consumer of the topic; see `pipeline.ports.Source`.

    A fetch may wait `patience_ms` until there are `FETCH_BYTES`, unless `settings` say otherwise:
    many small answers cost the broker, and this process, more than the records in them.
    """
    patient = {"fetch.min.bytes": str(FETCH_BYTES), "fetch.wait.max.ms": str(patience_ms)}
    chosen = {**(patient if patience_ms else {}), **settings}
    return (CompiledSource if COMPILED else KafkaSource)(chosen, group, topic)


class CompiledSource:
    """A consumer with explicit assignment that makes columns of librdkafka's messages itself."""

    def __init__(self, settings: Mapping[str, str], group: str, topic: str) -> None:
        self._topic = topic
        self._consumer = connected(_consume.connect, consumer_settings(settings, group))

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Start reading each partition at its position."""
        code = _consume.assign(self._consumer, [(*p, offset) for p, offset in positions.items()])
        if code:
            raise translate(KafkaError(code), f"reading {self._topic}")

    def poll(self, max_records: int, timeout: float, *, fill: bool = False) -> Polled:
        """At most `max_records`; waits `timeout` seconds for a first one, or for all."""
        partitions, offsets, stamps, *columns, headers, events = _consume.poll(
            self._consumer, max_records, ceil(timeout * 1000), fill
        )
        rows = len(partitions) // 4
        ends: dict[int, int] = {}
        for code, number, offset, text in events:
            _take_event(KafkaError(code, text), Partition(self._topic, number), offset, ends)
        return Polled(
            partitions=np.frombuffer(partitions, np.int32),
            offsets=np.frombuffer(offsets, np.int64),
            timestamps=np.frombuffer(stamps, np.int64),
            keys=_binary(rows, columns[:3]),
            values=_binary(rows, columns[3:]),
            headers=headers,
            ends=ends,
        )

    def close(self) -> None:
        """Give the connections back."""
        _consume.close(self._consumer)


def _binary(rows: int, buffers: list[bytes | None]) -> pa.Array:
    """An Arrow binary array `[rows]` of its bitmap, offsets and data."""
    made = [None if buffer is None else pa.py_buffer(buffer) for buffer in buffers]
    return pa.Array.from_buffers(pa.binary(), rows, made)


class KafkaSource:
    """The same in Python."""

    def __init__(self, settings: Mapping[str, str], group: str, topic: str) -> None:
        self._topic = topic
        self._consumer = Consumer(consumer_settings(settings, group))

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Start reading each partition at its position."""
        with translating(f"reading {self._topic}"):
            self._consumer.assign(
                [TopicPartition(p.topic, p.number, offset) for p, offset in positions.items()]
            )

    def poll(self, max_records: int, timeout: float, *, fill: bool = False) -> Polled:
        """At most `max_records`; waits `timeout` seconds for a first one, or for all."""
        with translating(f"reading {self._topic}"):
            # librdkafka waits until there are as many as asked for, or the time is up.
            awaited = max_records if fill else 1
            messages: list[Any] = self._consumer.consume(awaited, timeout)
            if messages and awaited < max_records:
                messages += self._consumer.consume(max_records - 1, 0)
        ends: dict[int, int] = {}
        if any(map(Message.error, messages)):
            for message in messages:
                if (error := message.error()) is not None:
                    place = Partition(self._topic, message.partition())
                    _take_event(error, place, message.offset(), ends)
            messages = [message for message in messages if message.error() is None]
        count = len(messages)
        headers = list(map(Message.headers, messages))
        stamps = [stamp for _, stamp in map(Message.timestamp, messages)]
        return Polled(
            partitions=np.fromiter(map(Message.partition, messages), np.int32, count),
            offsets=np.fromiter(map(Message.offset, messages), np.int64, count),
            timestamps=np.array(stamps, np.int64),
            keys=pa.array(list(map(Message.key, messages)), pa.binary()),
            values=pa.array(list(map(Message.value, messages)), pa.binary()),
            headers=headers if any(headers) else None,
            ends=ends,
        )

    def close(self) -> None:
        """Give the connections back."""
        self._consumer.close()


def _take_event(error: KafkaError, place: Partition, offset: int, ends: dict[int, int]) -> None:
    """What came in a record's place: an end is entered, what will not pass is raised."""
    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
        ends[place.number] = offset
    elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
        at = "" if offset == OFFSET_INVALID else f" {offset}"
        raise ClusterUnfit(
            f"{place}: the committed offset{at} is not in the log any more ({error.str()}): "
            "retention removed records before they were scored. Give the topic a longer "
            "retention.ms; `headrace offsets CONFIG --to skip-gap` goes on from what is left"
        )
    elif not error.retriable():
        raise translate(error, f"reading {place}")
