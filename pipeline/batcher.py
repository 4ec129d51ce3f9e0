"""Records in, batches out: full by rows or bytes, or old enough. Grouped by partition, in order."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pipeline.batch import Batch, Partition, Span, data_bytes, data_offsets, runs
from pipeline.ports import Polled


@dataclass(frozen=True, slots=True)
class Limits:
    """A batch is due at `rows` or `bytes`, or once its oldest record waited `delay` seconds."""

    rows: int
    nbytes: int
    delay: float


class Batcher:
    """Polls waiting to become batches, and the position of each partition.

    Holds at most what the feeder polls before it takes: one batch and one poll beyond it.
    """

    def __init__(self, topic: str, positions: Mapping[Partition, int], limits: Limits) -> None:
        self._topic = topic
        self._most_rows = limits.rows
        self.limits = limits
        self._polls: deque[tuple[float, Polled]] = deque()
        self._next = {partition.number: offset for partition, offset in positions.items()}
        self._ends: dict[int, int] = {}
        self._number = 0
        self.rows = 0
        self.nbytes = 0

    def resize(self, rows: int | None) -> None:
        """Batches of at most `rows` from now on; None, and what is above it, is as configured."""
        self.limits = replace(self.limits, rows=min(rows or self._most_rows, self._most_rows))

    def add(self, polled: Polled, now: float) -> None:
        """Take one poll in."""
        self._ends.update(polled.ends)
        if len(polled.offsets):
            self._polls.append((now, polled))
            self.rows += len(polled.offsets)
            self.nbytes += polled.nbytes

    @property
    def full(self) -> bool:
        """Whether a whole batch waits, so that polling on would only take memory."""
        return self.rows >= self.limits.rows or self.nbytes >= self.limits.nbytes

    def due(self, now: float) -> bool:
        """Whether a batch should leave now."""
        return self.full or (bool(self._polls) and self.left(now) <= 0)

    def left(self, now: float) -> float:
        """Seconds that the batch in the making still waits to be filled; 0 where there is none."""
        return max(0.0, self._polls[0][0] + self.limits.delay - now) if self._polls else 0.0

    def take(self) -> Batch:
        """The oldest records, up to the limits in rows and bytes and at least one."""
        parts: list[Polled] = []
        rows = nbytes = 0
        while self._polls:
            arrived, polled = self._polls[0]
            count, size = len(polled.offsets), polled.nbytes
            if rows + count > self.limits.rows or nbytes + size > self.limits.nbytes:
                count = self._fitting(polled, self.limits.rows - rows, self.limits.nbytes - nbytes)
                if count == 0 and not parts:
                    count = 1
                if count == 0:
                    break
                head = polled.slice(0, count)
                self._polls[0] = (arrived, polled.slice(count, len(polled.offsets)))
                if count == len(polled.offsets):
                    self._polls.popleft()
                parts.append(head)
                rows += count
                nbytes += head.nbytes
                break
            self._polls.popleft()
            parts.append(polled)
            rows += count
            nbytes += size
        self.rows -= rows
        self.nbytes -= nbytes
        return self._batch(parts)

    @staticmethod
    def _fitting(polled: Polled, rows: int, nbytes: int) -> int:
        limit = min(rows, len(polled.offsets))
        if polled.nbytes <= nbytes:
            return limit
        ends = data_offsets(polled.keys).astype(np.int64) + data_offsets(polled.values)
        return min(limit, int(np.searchsorted(ends[1:] - ends[0], nbytes, side="right")))

    def _batch(self, parts: list[Polled]) -> Batch:
        # Runs of one partition, which are copied once, and a poll of a single one not at all.
        pieces = [piece for part in parts for piece in _pieces(part)]
        pieces.sort(key=lambda piece: int(piece.partitions[0]))
        numbers = np.concatenate([piece.partitions for piece in pieces])
        offsets = np.concatenate([piece.offsets for piece in pieces])
        headers = None
        if any(piece.headers is not None for piece in pieces):
            headers = [h for one in pieces for h in (one.headers or [None] * len(one.offsets))]
        self._number += 1
        return Batch(
            id=self._number,
            spans=self._spans(numbers, offsets),
            offsets=pa.array(offsets),
            timestamps=pa.array(np.concatenate([piece.timestamps for piece in pieces])),
            keys=_joined([piece.keys for piece in pieces]),
            values=_joined([piece.values for piece in pieces]),
            headers=headers,
        )

    def _spans(self, numbers: np.ndarray, offsets: np.ndarray) -> tuple[Span, ...]:
        still_waiting = self._waiting()
        spans = []
        for start, stop in pairwise(runs(numbers)):
            number = int(numbers[start])
            following = int(offsets[stop - 1]) + 1
            if number not in still_waiting:
                following = max(following, self._ends.pop(number, 0))
            spans.append(
                Span(Partition(self._topic, number), self._next[number], following, stop - start)
            )
            self._next[number] = following
        return tuple(spans)

    def _waiting(self) -> set[int]:
        """The partitions with records that are in no batch yet."""
        return {int(n) for _, polled in self._polls for n in np.unique(polled.partitions)}

    def skips(self) -> list[Span]:
        """Offsets without records that the ends of partitions have shown, each once."""
        if not self._ends:
            return []
        waiting = self._waiting()
        spans = []
        for number in [n for n in self._ends if n not in waiting]:
            end = self._ends.pop(number)
            if end > self._next[number]:
                spans.append(Span(Partition(self._topic, number), self._next[number], end, 0))
                self._next[number] = end
        return spans

    def positions(self) -> dict[Partition, int]:
        """The next offset that each partition's batches have not answered for yet."""
        return {Partition(self._topic, number): offset for number, offset in self._next.items()}

    def new_id(self) -> int:
        """An id for a part of a batch that was split."""
        self._number += 1
        return self._number


def _pieces(polled: Polled) -> list[Polled]:
    cuts = runs(polled.partitions)
    return [polled] if len(cuts) == 2 else [polled.slice(*run) for run in pairwise(cuts)]


def _joined(arrays: list[pa.Array]) -> pa.Array:
    """One binary array without bytes of others: a slice takes its whole poll along to a replica."""
    data = arrays[0].buffers()[2]
    if len(arrays) == 1 and data is not None and data.size == data_bytes(arrays[0]):
        return arrays[0]
    return pa.concat_arrays(arrays)
