"""Queues columns of records: by the compiled part where it was built, else by its twin in Python.

Both open a producer of librdkafka and raise its errors as confluent-kafka does, `KafkaException` of
a `KafkaError`. The compiled one makes no Python object of a record, and holds the interpreter's
lock for none, so that a commit in the background leaves the feeder's loop alone.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from pipeline.batch import Outgoing
from pipeline.edges.kafka.clients import CALL_SECONDS, connected, ignored
from pipeline.errors import Retriable

if TYPE_CHECKING:
    from pipeline.edges.kafka._produce import Error, Texts

try:
    from pipeline.edges.kafka import _produce
except ImportError:
    COMPILED = False
else:
    COMPILED = True


# Deliveries are counted by librdkafka itself; only what failed is told.
OURS = {"delivery.report.only.error": True}


class ColumnProducer(Protocol):
    """A producer of librdkafka that takes records column by column; times are in seconds."""

    def queue(self, group: Outgoing, start: int, /) -> int:
        """Take records from the row `start` on; returns how many, fewer where the queue is full.

        Raises KafkaException where librdkafka refuses one.
        """

    def statistics(self) -> tuple[int, str]:
        """How many reports came (`statistics.interval.ms`), and the newest, as JSON."""

    def failure(self) -> KafkaError | None:
        """Why a record was not delivered; the first one, as it is the cause of others."""

    def fatal(self) -> KafkaError | None:
        """What has made the producer unusable, as that it was fenced."""

    def poll(self, seconds: float, /) -> object:
        """Take in what librdkafka reports, waiting for it at most that long."""

    def left(self) -> int:
        """How many records are queued or on their way."""

    def flush(self, seconds: float, /) -> object:
        """Wait until none is left, but no longer than that."""

    def purge(self) -> None:
        """Drop what is queued or on its way."""

    def init_transactions(self, seconds: float, /) -> None:
        """Fence earlier producers of the transactional id."""

    def begin_transaction(self) -> None:
        """Begin."""

    def send_offsets_to_transaction(
        self, offsets: list[TopicPartition], group: Any, seconds: float, /
    ) -> None:
        """Add offsets; `group` is what a consumer's `consumer_group_metadata` gives."""

    def commit_transaction(self, seconds: float, /) -> None:
        """Wait for what is queued, then commit."""

    def abort_transaction(self, seconds: float, /) -> None:
        """Drop what is queued, then abort."""


# Opens a producer with librdkafka's settings.
Open: TypeAlias = Callable[[Mapping[str, Any]], ColumnProducer]


def open_producer(settings: Mapping[str, Any]) -> ColumnProducer:
    """A producer with librdkafka's `settings`, callbacks apart."""
    return (CompiledProducer if COMPILED else PythonProducer)(settings)


def produce(producer: ColumnProducer, records: Iterable[Outgoing]) -> None:
    """Hand records to librdkafka; raises Retriable when its queue stays full."""
    for group in records:
        done, rows = producer.queue(group, 0), len(group.values)
        deadline = time.monotonic() + CALL_SECONDS
        while done < rows:
            producer.poll(0.05)
            taken = producer.queue(group, done)
            done += taken
            if taken:
                deadline = time.monotonic() + CALL_SECONDS
            elif time.monotonic() > deadline:
                raise Retriable(f"the broker took no record for {CALL_SECONDS:.0f} s")


class CompiledProducer:
    """See `ColumnProducer`: hands Arrow's buffers to librdkafka."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._producer = connected(_produce.connect, {**settings, **OURS})

    def queue(self, group: Outgoing, start: int) -> int:
        """Take records from the row `start` on."""
        number = -1 if group.partition is None else group.partition
        keys, values = _buffers(group.keys), _buffers(group.values)
        taken, code = _produce.produce(
            self._producer,
            group.topic,
            number,
            len(group.values),
            start,
            keys,
            values,
            group.headers,
        )
        if code:
            raise KafkaException(KafkaError(code))
        return taken

    def statistics(self) -> tuple[int, str]:
        """How many reports came, and the newest."""
        reports, newest, _ = _produce.heard(self._producer)
        return reports, newest.decode()

    def failure(self) -> KafkaError | None:
        """Why a record was not delivered."""
        code = _produce.heard(self._producer)[2]
        return KafkaError(code) if code else None

    def fatal(self) -> KafkaError | None:
        """What has made the producer unusable."""
        error = _produce.fatal(self._producer)
        return KafkaError(*error, True) if error else None

    def poll(self, seconds: float) -> None:
        """Take in what is reported."""
        _produce.poll(self._producer, _milliseconds(seconds))

    def left(self) -> int:
        """How many records are queued or on their way."""
        return _produce.left(self._producer)

    def flush(self, seconds: float) -> None:
        """Wait for what is queued."""
        _produce.flush(self._producer, _milliseconds(seconds))

    def purge(self) -> None:
        """Drop what is queued."""
        _produce.purge(self._producer)

    def init_transactions(self, seconds: float) -> None:
        """Fence earlier producers."""
        _raise(_produce.init(self._producer, _milliseconds(seconds)))

    def begin_transaction(self) -> None:
        """Begin."""
        _raise(_produce.begin(self._producer))

    def send_offsets_to_transaction(
        self, offsets: list[TopicPartition], group: Any, seconds: float
    ) -> None:
        """Add offsets to the transaction."""
        places = [(one.topic, one.partition, one.offset, one.metadata or "") for one in offsets]
        _raise(_produce.send_offsets(self._producer, places, group, _milliseconds(seconds)))

    def commit_transaction(self, seconds: float) -> None:
        """Commit."""
        _raise(_produce.commit(self._producer, _milliseconds(seconds)))

    def abort_transaction(self, seconds: float) -> None:
        """Abort."""
        _raise(_produce.abort(self._producer, _milliseconds(seconds)))


def _buffers(column: pa.Array) -> "Texts":
    valid, offsets, data = column.buffers()
    return column.offset, valid, offsets, data


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _raise(error: "Error | None") -> None:
    if error is not None:
        code, text, fatal, retriable, aborts = error
        raise KafkaException(KafkaError(code, text, bool(fatal), bool(retriable), bool(aborts)))


class PythonProducer(Producer):  # type: ignore[misc]
    """See `ColumnProducer`: the same, record by record."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._reports, self._newest = 0, ""
        self._failure: KafkaError | None = None
        callbacks = {
            "on_delivery": self._on_delivery,
            "stats_cb": self._on_statistics,
            "error_cb": ignored,
        }
        super().__init__({**settings, **OURS, **callbacks})

    def _on_delivery(self, error: KafkaError | None, _: object) -> None:
        # A broker that refuses everything must not fill the memory with errors.
        if error is not None and self._failure is None:
            self._failure = error

    def _on_statistics(self, text: str) -> None:
        self._reports, self._newest = self._reports + 1, text

    def queue(self, group: Outgoing, start: int) -> int:
        """Take records from the row `start` on."""
        produce, topic = self.produce, group.topic
        number = -1 if group.partition is None else group.partition
        pairs = group.pairs()[start:]
        taken = 0
        # A full queue; the caller goes on from there.
        with suppress(BufferError):
            if group.headers is None:
                # A loop of its own: naming headers doubles the cost of a call.
                for key, value in pairs:
                    produce(topic, value, key, number)
                    taken += 1
            else:
                for (key, value), headers in zip(pairs, group.headers[start:], strict=True):
                    produce(topic, value, key, number, headers=headers)
                    taken += 1
        return taken

    def statistics(self) -> tuple[int, str]:
        """How many reports came, and the newest."""
        return self._reports, self._newest

    def left(self) -> int:
        """How many records are queued or on their way."""
        return len(self)

    def failure(self) -> KafkaError | None:
        """Why a record was not delivered."""
        return self._failure

    def fatal(self) -> KafkaError | None:
        """What has made the producer unusable: the next call to serve callbacks raises it, once."""
        try:
            self.poll(0)
        except KafkaException as problem:
            error: KafkaError = problem.args[0]
            return error
        return None
