"""The bare loop: what a good engineer writes in an afternoon, without any guarantee.

One process consumes, decodes, scores, encodes, produces and writes Parquet. A crash loses or
repeats records, and leaves a Parquet file without its end.
"""

import argparse
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaException, Message, Producer

BATCH_RECORDS = 4_000
# A batch that is not full waits no longer than this.
BATCH_SECONDS = 0.005
# Below it the cost of a write is that of its call, not of its rows.
ROW_GROUP_ROWS = 50_000
FLUSH_SECONDS = 60.0
# Predictions of several batches may wait for the broker; beyond that the loop waits too.
QUEUED_PREDICTIONS = 100_000
THRESHOLD = 0.5
MODEL_NAME = "mlp"
MODEL_VERSION = "1"

_TIME = pa.timestamp("us", tz="UTC")
_NAME = pa.dictionary(pa.int32(), pa.string())
# What Headrace writes for each job, and for this one.
STANDARD = {
    "topic": _NAME,
    "partition": pa.int32(),
    "offset": pa.int64(),
    "key": pa.binary(),
    "event_time": _TIME,
    "scored_at": _TIME,
    "model_name": _NAME,
    "model_version": _NAME,
}
SCHEMA = pa.schema({**STANDARD, "id": pa.int64(), "score": pa.float32(), "flagged": pa.bool_()})


class Event(msgspec.Struct, gc=False):
    """One transaction as it comes."""

    id: int
    features: list[float]


class Prediction(msgspec.Struct, gc=False):
    """One transaction as it goes out; the same fields as Headrace's."""

    source: tuple[int, int]
    model: str
    model_version: str
    id: int
    score: float
    flagged: bool


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


def open_session(path: Path) -> Any:
    """The model on one thread that does not spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def wait_for_room(producer: Producer) -> None:
    """Wait until half of the producer's queue is free."""
    while len(producer) > QUEUED_PREDICTIONS // 2:
        producer.poll(0.01)


def standard_columns(
    messages: Sequence[Message],
    partitions: list[int | None],
    offsets: list[int | None],
    keys: list[str | bytes | None],
) -> list[pa.Array]:
    """The columns that each job has, in the order of the schema."""
    size = len(messages)
    now = np.full(size, time.time_ns() // 1000)
    times = np.array([message.timestamp()[1] for message in messages]) * 1000
    return [
        _constant(messages[0].topic() or "", size),
        pa.array(partitions, pa.int32()),
        pa.array(offsets, pa.int64()),
        pa.array(keys, pa.binary()),
        pa.array(times, _TIME),
        pa.array(now, _TIME),
        _constant(MODEL_NAME, size),
        _constant(MODEL_VERSION, size),
    ]


def _constant(text: str, size: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(size, np.int32)), [text])


Score: TypeAlias = Callable[[Sequence[Message], Any, Producer, str, ParquetRows], None]
"""One batch of messages through a session, into a producer's topic and Parquet rows."""


def loop(score: Score, schema: pa.Schema) -> None:
    """Run the loop until it has scored `--records` records, or until SIGTERM."""
    parser = argparse.ArgumentParser(description=loop.__doc__)
    for name in ("--bootstrap", "--group", "--events", "--predictions"):
        parser.add_argument(name, required=True)
    parser.add_argument("--parquet", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--records", type=int)
    chosen = parser.parse_args()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())

    session = open_session(chosen.model)
    rows = ParquetRows(chosen.parquet, schema)
    consumer = Consumer(
        {
            "bootstrap.servers": chosen.bootstrap,
            "group.id": chosen.group,
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


_decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode


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
    events = [_decode(message.value()) for message in messages]
    features = np.array([event.features for event in events], np.float32)
    scores = session.run(["probability"], {"features": features})[0][:, 0]
    flagged = scores >= THRESHOLD
    partitions = [message.partition() for message in messages]
    offsets = [message.offset() for message in messages]
    keys = [message.key() for message in messages]
    produce = producer.produce
    for key, partition, offset, event, value, flag in zip(
        keys, partitions, offsets, events, scores.tolist(), flagged.tolist(), strict=True
    ):
        prediction = Prediction(
            (partition, offset), MODEL_NAME, MODEL_VERSION, event.id, value, flag
        )
        text = _encode(prediction)
        try:
            produce(topic, text, key, partition)
        except BufferError:
            wait_for_room(producer)
            produce(topic, text, key, partition)
    producer.poll(0)
    columns = [
        *standard_columns(messages, partitions, offsets, keys),
        pa.array([event.id for event in events], pa.int64()),
        pa.array(scores),
        pa.array(flagged),
    ]
    rows.add(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))


if __name__ == "__main__":
    loop(score, SCHEMA)
