"""The bare loop: what a good engineer writes in an afternoon, without any guarantee.

One process consumes, decodes, scores, encodes, produces and writes Parquet. A crash loses or
repeats records, and leaves a Parquet file without its end.
"""

import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaException, Message, Producer

from benchmarks.options import from_options
from benchmarks.scoring import SCHEMA, open_session
from benchmarks.scoring import score as score_events

BATCH_RECORDS = 4_000
# A batch that is not full waits no longer than this.
BATCH_SECONDS = 0.005
# Below it the cost of a write is that of its call, not of its rows.
ROW_GROUP_ROWS = 50_000
FLUSH_SECONDS = 60.0
# Predictions of several batches may wait for the broker; beyond that the loop waits too.
QUEUED_PREDICTIONS = 100_000


class ParquetRows:
    """Collects rows and writes them in large row groups."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._schema = schema
        self._writer = pq.ParquetWriter(folder / "rows.parquet", schema, compression="zstd")
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Take rows; write them once there are enough."""
        self._waiting.append(rows)
        self._rows += rows.num_rows
        if self._rows >= ROW_GROUP_ROWS:
            self._write()

    def close(self) -> None:
        """Write what waits, and the file's end."""
        self._write()
        self._writer.close()

    def _write(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting, self._rows = [], 0


def wait_for_room(producer: Producer) -> None:
    """Wait until half of the producer's queue is free."""
    while len(producer) > QUEUED_PREDICTIONS // 2:
        producer.poll(0.01)


Score: TypeAlias = Callable[[Sequence[Message], Any, Producer, str, ParquetRows], None]
"""One batch of messages through a session, into a producer's topic and Parquet rows."""


def loop(score: Score, schema: pa.Schema) -> None:
    """Run the loop until it has scored `--records` records, or until SIGTERM."""
    chosen = from_options(loop.__doc__)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())

    session = open_session(chosen.model)
    rows = ParquetRows(chosen.parquet, schema)
    consumer = Consumer(
        {
            "bootstrap.servers": chosen.bootstrap,
            "group.id": chosen.name,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": True,
            "fetch.queue.backoff.ms": 10,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": chosen.bootstrap,
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": QUEUED_PREDICTIONS,
        }
    )
    consumer.subscribe([chosen.events])
    scored = 0
    while not stopping.is_set() and scored != chosen.records:
        messages = consumer.consume(BATCH_RECORDS, BATCH_SECONDS)
        if messages:
            score(messages, session, producer, chosen.predictions, rows)
            scored += len(messages)
    producer.flush(FLUSH_SECONDS)
    rows.close()
    consumer.close()


def score(
    messages: Sequence[Message],
    session: Any,
    producer: Producer,
    topic: str,
    rows: ParquetRows,
) -> None:
    """One batch through all stages. Raises KafkaException for an error in place of a record."""
    for message in messages:
        if message.error() is not None:
            raise KafkaException(message.error())
    partitions = [message.partition() for message in messages]
    keys = [message.key() for message in messages]
    texts, scored = score_events(
        session,
        messages[0].topic(),
        keys,
        [message.value() for message in messages],
        partitions,
        [message.offset() for message in messages],
        [message.timestamp()[1] for message in messages],
    )
    produce = producer.produce
    for key, partition, text in zip(keys, partitions, texts, strict=True):
        try:
            produce(topic, text, key, partition)
        except BufferError:
            wait_for_room(producer)
            produce(topic, text, key, partition)
    producer.poll(0)
    rows.add(scored)


if __name__ == "__main__":
    loop(score, SCHEMA)
