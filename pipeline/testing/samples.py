"""Batches, polls and a scoring function small enough to reason about."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipeline.batch import Batch, Headers, Partition, Reject, Scored, Span
from pipeline.ports import Polled
from pipeline.schema import STANDARD, job_schema

SCHEMA = job_schema([pa.field("length", pa.int64())])
# (partition number, offset, value)
Row = tuple[int, int, bytes | None]


def batch_of(
    batch_id: int, topic: str, rows: Sequence[Row], ends: Mapping[int, int] | None = None
) -> Batch:
    """A batch of rows grouped by partition; each span begins at its first row.

    It ends after its last row, or at the partition's number in `ends`.
    """
    spans = []
    for number in dict.fromkeys(number for number, _, _ in rows):
        offsets = [offset for other, offset, _ in rows if other == number]
        following = (ends or {}).get(number, offsets[-1] + 1)
        spans.append(Span(Partition(topic, number), offsets[0], following, len(offsets)))
    return Batch(
        id=batch_id,
        spans=tuple(spans),
        offsets=pa.array([offset for _, offset, _ in rows], pa.int64()),
        timestamps=pa.array([1000 + offset for _, offset, _ in rows], pa.int64()),
        keys=pa.array([b"k%d" % offset for _, offset, _ in rows], pa.binary()),
        values=pa.array([value for _, _, value in rows], pa.binary()),
    )


def polled_of(
    rows: Sequence[Row],
    ends: Mapping[int, int] | None = None,
    headers: Sequence[Headers] | None = None,
) -> Polled:
    """One poll of these rows, each with a key named after its offset."""
    return Polled(
        partitions=np.array([number for number, _, _ in rows], np.int32),
        offsets=np.array([offset for _, offset, _ in rows], np.int64),
        timestamps=np.array([1000 + offset for _, offset, _ in rows], np.int64),
        keys=pa.array([b"k%d" % offset for _, offset, _ in rows], pa.binary()),
        values=pa.array([value for _, _, value in rows], pa.binary()),
        headers=headers,
        ends=dict(ends or {}),
    )


def score(batch: Batch) -> Scored:
    """A row and a prediction for each value; one that is missing or begins with `bad` is rejected.

    A pure function of the batch, `scored_at` included, so that what is scored twice is equal.
    """
    values = batch.values.to_pylist()
    numbers = [span.partition.number for span in batch.spans for _ in range(span.rows)]
    topics = [span.partition.topic for span in batch.spans for _ in range(span.rows)]
    accepted = [i for i, v in enumerate(values) if v is not None and not v.startswith(b"bad")]
    offsets = batch.offsets.to_pylist()
    columns = {
        "topic": [topics[i] for i in accepted],
        "partition": [numbers[i] for i in accepted],
        "offset": [offsets[i] for i in accepted],
        "key": batch.keys.take(pa.array(accepted, pa.int64())),
        "event_time": [1000 * batch.timestamps[i].as_py() for i in accepted],
        "scored_at": [0] * len(accepted),
        "model_name": ["sample"] * len(accepted),
        "model_version": ["1"] * len(accepted),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in STANDARD]
    arrays.append(pa.array([len(values[i] or b"") for i in accepted], pa.int64()))
    return Scored(
        batch_id=batch.id,
        rows=pa.RecordBatch.from_arrays(arrays, schema=SCHEMA),
        predictions=pa.array([b"%d/%d" % (numbers[i], offsets[i]) for i in accepted], pa.binary()),
        accepted=np.array(accepted, np.int64),
        rejects=tuple(
            Reject(i, "decode", "Bad", f"row {i} is bad")
            for i in range(len(values))
            if i not in set(accepted)
        ),
        seconds=0.001 * len(values),
    )
