"""Card transactions through the model, without Kafka: what contenders written in Python share."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

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


def open_session(folder: Path) -> Any:
    """The model of a model folder, on one thread that does not spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = folder / MODEL_VERSION / "model.onnx"
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@functools.cache
def kept_session(folder: Path) -> Any:
    """The same, opened once in a process whose tasks come and go."""
    return open_session(folder)


def write_rows(rows: Sequence[pa.RecordBatch], folder: Path) -> None:
    """Write rows as one Parquet file, which is named after the first of them."""
    place = f"{rows[0]['partition'][0]}-{rows[0]['offset'][0]}"
    table = pa.Table.from_batches(rows, SCHEMA)
    pq.write_table(table, folder / f"{place}.parquet", compression="zstd")


_decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode


def score(
    session: Any,
    topic: str,
    keys: Sequence[bytes | None],
    values: Sequence[bytes],
    partitions: Sequence[int],
    offsets: Sequence[int],
    milliseconds: Sequence[int],
) -> tuple[list[bytes], pa.RecordBatch]:
    """One batch: predictions as JSON, and the rows of `SCHEMA`, both in the order of the batch.

    Raises msgspec.DecodeError for a value that is no transaction.
    """
    events = [_decode(value) for value in values]
    features = np.array([event.features for event in events], np.float32)
    scores = session.run(["probability"], {"features": features})[0][:, 0]
    flagged = scores >= THRESHOLD
    texts = [
        _encode(Prediction((partition, offset), MODEL_NAME, MODEL_VERSION, event.id, value, flag))
        for partition, offset, event, value, flag in zip(
            partitions, offsets, events, scores.tolist(), flagged.tolist(), strict=True
        )
    ]
    columns = [
        *standard_columns(topic, partitions, offsets, keys, milliseconds),
        pa.array([event.id for event in events], pa.int64()),
        pa.array(scores),
        pa.array(flagged),
    ]
    return texts, pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def standard_columns(
    topic: str,
    partitions: Sequence[int | None],
    offsets: Sequence[int | None],
    keys: Sequence[str | bytes | None],
    milliseconds: Sequence[int],
) -> list[pa.Array]:
    """The columns that each job has, in the order of the schema."""
    size = len(offsets)
    now = np.full(size, time.time_ns() // 1000)
    return [
        _constant(topic, size),
        pa.array(partitions, pa.int32()),
        pa.array(offsets, pa.int64()),
        pa.array(keys, pa.binary()),
        pa.array(np.asarray(milliseconds, np.int64) * 1000, _TIME),
        pa.array(now, _TIME),
        _constant(MODEL_NAME, size),
        _constant(MODEL_VERSION, size),
    ]


def _constant(text: str, size: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(size, np.int32)), [text])
