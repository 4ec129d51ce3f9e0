"""Rows as Arrow: a job's columns, the standard ones beside them, and what bounds a row."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.batch import Batch, data_bytes, data_offsets
from pipeline.schema import STANDARD, TIME


def assembled(
    batch: Batch,
    accepted: npt.NDArray[np.int64],
    own: Sequence[pa.Array],
    event_time: npt.NDArray[np.int64] | None,
    *,
    scored_at: int,
    name: str,
    version: str,
    schema: pa.Schema,
) -> pa.RecordBatch:
    """The rows of a batch's accepted records: the standard columns and the job's `own`.

    Times are in µs since the epoch. Where `event_time` is None, Kafka's timestamp counts.
    """
    size = len(accepted)
    spans = batch.spans
    partitions = np.repeat(
        np.array([span.partition.number for span in spans], np.int32),
        np.array([span.rows for span in spans], np.int64),
    )
    offsets, keys = batch.offsets, batch.keys
    if size != batch.rows:
        pick = pa.array(accepted)
        partitions, offsets, keys = partitions[accepted], offsets.take(pick), keys.take(pick)
    times = _kafka_times(batch, accepted) if event_time is None else pa.array(event_time)
    first = pa.array(np.zeros(size, np.int32))
    standard = {
        "topic": _constant(spans[0].partition.topic if spans else "", first),
        "partition": pa.array(partitions),
        "offset": offsets,
        "key": keys,
        # They have the layout already: a cast would cost a small batch more than its content.
        "event_time": times.view(TIME),
        "scored_at": pa.array(np.full(size, scored_at, np.int64)).view(TIME),
        "model_name": _constant(name, first),
        "model_version": _constant(version, first),
    }
    columns = [standard[field.name] for field in STANDARD]
    return pa.RecordBatch.from_arrays([*columns, *own], schema=schema)


def _constant(value: str, first: pa.Array) -> pa.Array:
    """A dictionary array of one word, which each of the indices names."""
    return pa.DictionaryArray.from_arrays(first, _word(value))


# A process scores one topic by one model.
@lru_cache(maxsize=8)
def _word(value: str) -> pa.Array:
    return pa.array([value], pa.string())


def _kafka_times(batch: Batch, accepted: npt.NDArray[np.int64]) -> pa.Array:
    """Kafka's timestamps in µs, null where a record has none."""
    stamps = batch.timestamps.to_numpy(zero_copy_only=False)[accepted]
    return pa.array(stamps * 1000, mask=stamps < 0)


def to_arrow(values: Any, kind: pa.DataType) -> pa.Array:
    """A column as Arrow; `[batch, width]` becomes a list, dicts become a map."""
    if isinstance(values, pa.Array):
        return values.cast(kind)
    if isinstance(values, np.ndarray) and values.ndim == 2:
        offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
        flat = pa.array(values.reshape(-1), kind.value_type)
        return pa.ListArray.from_arrays(pa.array(offsets), flat)
    if pa.types.is_map(kind):
        values = [None if one is None else list(one.items()) for one in values]
    return pa.array(values, kind)


def nonfinite(column: pa.Array) -> npt.NDArray[np.int64]:
    """The rows of a column that hold NaN or infinity, at any depth of lists and maps."""
    kind = column.type
    if pa.types.is_floating(kind):
        values = column.to_numpy(zero_copy_only=False)
        if column.null_count:
            return np.flatnonzero(~np.isfinite(values) & column.is_valid().to_numpy(False))
        return np.flatnonzero(~np.isfinite(values))
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        inner = column.values.field(1) if pa.types.is_map(kind) else column.values
        found = nonfinite(inner)
        offsets = column.offsets.to_numpy()
        rows = np.unique(np.searchsorted(offsets, found, side="right") - 1)
        return rows[(rows >= 0) & (rows < len(column))]
    if pa.types.is_struct(kind):
        fields = [nonfinite(column.field(i)) for i in range(kind.num_fields)]
        return np.unique(np.concatenate([np.empty(0, np.int64), *fields]))
    return np.empty(0, np.int64)


def sizes_fit(rows: pa.RecordBatch, predictions: pa.Array, limit: int) -> npt.NDArray[np.bool_]:
    """Which rows fit, both as a prediction and as a row of Arrow."""
    # Mostly all of them together do, which is seen at once: a small batch is not to pay for more.
    if rows.get_total_buffer_size() <= limit and data_bytes(predictions) <= limit:
        return np.ones(len(predictions), np.bool_)
    lengths = np.diff(data_offsets(predictions))
    if rows.nbytes <= limit:
        return lengths <= limit
    bytes_of_row = sum(_row_bytes(column) for column in rows.columns)
    return (lengths <= limit) & (bytes_of_row <= limit)


def _row_bytes(column: pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of each row of a column, its validity and offsets included."""
    kind = column.type
    size = len(column)
    if size == 0:
        return np.zeros(0, np.int64)
    if pa.types.is_struct(kind):
        fields = (_row_bytes(column.field(i)) for i in range(kind.num_fields))
        total: npt.NDArray[np.int64] = np.sum([np.ones(size, np.int64), *fields], axis=0)
        return total
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        offsets = data_offsets(column)
        below = np.concatenate([[0], np.cumsum(_row_bytes(column.values))])
        sizes: npt.NDArray[np.int64] = 5 + below[offsets[1:]] - below[offsets[:-1]]
        return sizes
    if pa.types.is_binary(kind) or pa.types.is_string(kind):
        return 5 + np.diff(data_offsets(column)).astype(np.int64)
    width = 4 if pa.types.is_dictionary(kind) else (kind.bit_width + 7) // 8
    return np.full(size, 1 + width, np.int64)
