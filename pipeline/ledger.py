"""What is out, what has come back, and what may be written and committed now.

Per partition the spans stand in offset order from the committed position; what may be written is
the settled prefix. A slow batch so holds back its own partitions and no others. The idea of a
settled prefix is Jeffail/checkpoint's; here a batch may answer for several partitions.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.batch import Batch, Partition, Scored, Settled, Span


@dataclass(slots=True)
class _Open:
    """One batch on its way. `order` sorts batches as their records came, also after a split."""

    batch: Batch
    order: tuple[int, ...]
    waiting: int
    scored: Scored | None = None


@dataclass(slots=True)
class _Entry:
    span: Span
    batch_id: int | None
    index: int = 0


@dataclass(slots=True)
class _Line:
    """One partition: the end of its settled prefix, and the spans beyond it."""

    done: int
    entries: deque[_Entry] = field(default_factory=deque)


class Ledger:
    """One slot's books; owned by the feeder's loop.

    Bounded by the feeder, which stops polling at twice a commit's rows or bytes.
    """

    def __init__(self, positions: Mapping[Partition, int]) -> None:
        self._lines = {partition: _Line(position) for partition, position in positions.items()}
        self._open: dict[int, _Open] = {}
        self._opened = 0
        self.rows = 0
        self.nbytes = 0

    def open(self, batch: Batch) -> None:
        """Enter a batch whose spans continue their partitions."""
        self._opened += 1
        self._open[batch.id] = _Open(batch, (self._opened,), len(batch.spans))
        for index, span in enumerate(batch.spans):
            self._lines[span.partition].entries.append(_Entry(span, batch.id, index))
        self.rows += batch.rows
        self.nbytes += batch.nbytes

    def skip(self, span: Span) -> None:
        """Enter offsets that hold no records; they count as settled."""
        self._lines[span.partition].entries.append(_Entry(span, None))

    def split(self, batch: Batch, parts: Sequence[Batch]) -> None:
        """Put `parts`, which together are `batch`, in its place."""
        whole = self._open.pop(batch.id)
        fresh: dict[Partition, list[_Entry]] = {}
        for number, part in enumerate(parts):
            order = (*whole.order, number)
            self._open[part.id] = _Open(part, order, len(part.spans))
            for index, span in enumerate(part.spans):
                fresh.setdefault(span.partition, []).append(_Entry(span, part.id, index))
        for partition, entries in fresh.items():
            line = self._lines[partition]
            renewed: deque[_Entry] = deque()
            placed = False
            for entry in line.entries:
                if entry.batch_id != batch.id:
                    renewed.append(entry)
                elif not placed:
                    renewed.extend(entries)
                    placed = True
            line.entries = renewed

    def settle(self, scored: Scored) -> None:
        """Enter the answer to a batch."""
        self._open[scored.batch_id].scored = scored

    def take(self) -> tuple[Settled, ...]:
        """What may be written now, in offset order by partition; it is the caller's from here on.

        Whole batches where all their partitions are ready, else the spans that are.
        """
        ready: dict[int, list[int]] = {}
        for line in self._lines.values():
            while line.entries:
                entry = line.entries[0]
                if entry.batch_id is not None:
                    if self._open[entry.batch_id].scored is None:
                        break
                    ready.setdefault(entry.batch_id, []).append(entry.index)
                line.done = entry.span.next
                line.entries.popleft()
        taken = []
        for batch_id in sorted(ready, key=lambda i: self._open[i].order):
            taken.extend(self._withdraw(self._open[batch_id], sorted(ready[batch_id])))
        return tuple(taken)

    def _withdraw(self, item: _Open, indexes: list[int]) -> list[Settled]:
        assert item.scored is not None
        item.waiting -= len(indexes)
        if item.waiting == 0:
            del self._open[item.batch.id]
        if len(indexes) == len(item.batch.spans):
            return [Settled(item.batch, item.scored)]
        starts = [0]
        for span in item.batch.spans:
            starts.append(starts[-1] + span.rows)
        parts = []
        for index in indexes:
            start, stop = starts[index], starts[index + 1]
            parts.append(Settled(item.batch.slice(start, stop), item.scored.slice(start, stop)))
        return parts

    def written(self, taken: Sequence[Settled]) -> None:
        """What was taken is committed, and no longer counts against the bounds."""
        for settled in taken:
            self.rows -= settled.batch.rows
            self.nbytes -= settled.batch.nbytes

    def positions(self) -> dict[Partition, int]:
        """The end of each partition's taken prefix: what a commit of the taken may commit."""
        return {partition: line.done for partition, line in self._lines.items()}
