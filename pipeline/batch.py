"""What flows: batches of records down to a replica, scored rows back up.

Every value says which offsets it answers for, so that what may be committed is a pure function of
what has come back. Rows of a batch are grouped by partition and stand in offset order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Headers: TypeAlias = list[tuple[str, bytes | None]] | None


class Partition(NamedTuple):
    """One partition of one topic: the key of every position."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"


@dataclass(frozen=True, slots=True)
class Span:
    """The offsets `[first, next)` of one partition, which held `rows` records.

    Offsets have holes (transaction markers, aborted records, compaction), so `rows` is counted and
    never `next - first`. A span without rows only moves the position, as the end of a partition
    does.
    """

    partition: Partition
    first: int
    next: int
    rows: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Records on their way to a replica.

    `spans` cover the rows in order; `offsets` and `timestamps` (milliseconds since the epoch) are
    int64 `[rows]`, `keys` and `values` Arrow binary `[rows]` with null where the record has none.
    `headers` is None where no record has any, which saves a list on the hot path.
    """

    id: int
    spans: tuple[Span, ...]
    offsets: pa.Array
    timestamps: pa.Array
    keys: pa.Array
    values: pa.Array
    headers: Sequence[Headers] | None = None

    @property
    def rows(self) -> int:
        """How many records it holds."""
        return len(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values; those of slices add up to those of the whole."""
        return data_bytes(self.keys) + data_bytes(self.values)

    def slice(self, start: int, stop: int, batch_id: int | None = None) -> "Batch":
        """Rows `[start, stop)`; a span that is cut ends where the next record begins."""
        spans = []
        row = 0
        for span in self.spans:
            end = row + span.rows
            low, high = max(start, row), min(stop, end)
            # A span without rows belongs to the slice that holds the row before it.
            if low < high or (span.rows == 0 and start < row <= stop):
                first = span.first if low == row else int(self.offsets[low].as_py())
                following = span.next if high == end else int(self.offsets[high].as_py())
                spans.append(Span(span.partition, first, following, max(high - low, 0)))
            row = end
        length = stop - start
        return Batch(
            id=self.id if batch_id is None else batch_id,
            spans=tuple(spans),
            offsets=self.offsets.slice(start, length),
            timestamps=self.timestamps.slice(start, length),
            keys=self.keys.slice(start, length),
            values=self.values.slice(start, length),
            headers=None if self.headers is None else self.headers[start:stop],
        )

    def without_headers(self) -> "Batch":
        """What travels to a replica, which has no use for headers."""
        return self if self.headers is None else replace(self, headers=None)


def runs(partitions: npt.NDArray[np.int32]) -> list[int]:
    """Where runs of one partition begin in a column of at least one, and the end of the last."""
    changes = np.flatnonzero(partitions[1:] != partitions[:-1]) + 1
    return [0, *changes.tolist(), len(partitions)]


def data_offsets(array: pa.Array) -> npt.NDArray[np.int32]:
    """Where a binary, string, list or map array's values begin and end, int32 `[rows + 1]`."""
    if len(array) == 0:
        return np.zeros(1, np.int32)
    ends = np.frombuffer(array.buffers()[1], np.int32)
    return ends[array.offset : array.offset + len(array) + 1]


def data_bytes(array: pa.Array) -> int:
    """Bytes of a binary array's values, without its bitmap and offsets, which slices share."""
    ends = data_offsets(array)
    return int(ends[-1] - ends[0])


@dataclass(frozen=True, slots=True)
class Reject:
    """One record that no prediction can be made of: it becomes a dead letter.

    `row` counts within its batch. `stage` says where it failed: decode, score, replica or write.
    """

    row: int
    stage: str
    exception: str
    message: str


@dataclass(frozen=True, slots=True)
class Scored:
    """A replica's answer to one batch.

    `rows` is the Parquet-shaped record batch of the accepted rows, `predictions` Arrow binary with
    one encoded prediction for each of them, `accepted` their row numbers in the batch (int64,
    ascending). Accepted rows and rejects together are the batch's rows, each once. `seconds` is
    the time that the scoring took.
    """

    batch_id: int
    rows: pa.RecordBatch
    predictions: pa.Array
    accepted: npt.NDArray[np.int64]
    rejects: tuple[Reject, ...]
    seconds: float

    def slice(self, start: int, stop: int) -> "Scored":
        """The answer for the batch's rows `[start, stop)`, row numbers counted from `start`."""
        low, high = (int(i) for i in np.searchsorted(self.accepted, (start, stop)))
        return Scored(
            batch_id=self.batch_id,
            rows=self.rows.slice(low, high - low),
            predictions=self.predictions.slice(low, high - low),
            accepted=self.accepted[low:high] - start,
            rejects=tuple(
                replace(r, row=r.row - start) for r in self.rejects if start <= r.row < stop
            ),
            seconds=self.seconds,
        )


@dataclass(frozen=True, slots=True)
class Settled:
    """A batch and the answer to it: what a commit is made of."""

    batch: Batch
    scored: Scored


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Records for one topic, column by column, so that no Python object is made of each.

    Keys and values are Arrow binary arrays `[rows]`. `partition` None lets the partitioner choose
    by key. `headers` is one list for each record, or None where none has any.
    """

    topic: str
    partition: int | None
    keys: pa.Array
    values: pa.Array
    headers: list[Any] | None = None

    @classmethod
    def of(
        cls,
        topic: str,
        partition: int | None,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Any] | None = None,
    ) -> "Outgoing":
        """The records with these keys and values."""
        return cls(
            topic,
            partition,
            pa.array(keys, pa.binary()),
            pa.array(values, pa.binary()),
            None if headers is None else list(headers),
        )

    def pairs(self) -> list[tuple[bytes | None, bytes | None]]:
        """Key and value of each record."""
        return list(zip(self.keys.to_pylist(), self.values.to_pylist(), strict=True))
