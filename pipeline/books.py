"""What an audit knows of one input partition: which offsets were answered, where, and with what."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.marks import WINDOW, Marks, Offsets

# A partition of a topic, and the offsets in it between which the rows of a window lie.
Spots = dict[int, tuple[int, int]]


@dataclass(slots=True)
class Contents:
    """Sums of the digests of a window's rows, in the journal and in the topic, and where they lie.

    Equal rows give equal sums; of different ones, one pair in 2**64 does.
    """

    sums: list[int] = field(default_factory=lambda: [0, 0])
    spots: tuple[Spots, Spots] = field(default_factory=lambda: ({}, {}))


JOURNAL, TOPIC = 0, 1


@dataclass(slots=True)
class Book:
    """One input partition; `committed` and `start` are next offsets, `start` the job's first one.

    `row`, `predicted` and `dead` hold the offsets with a row in the journal, a prediction, a dead
    letter. `may_be_dead` covers the commits that count dead letters. `stands` says whether a commit
    ends at the committed offset, or a claim was made there; `epoch` is that of the newest commit.
    """

    committed: int
    start: int | None = None
    row: Marks = field(default_factory=Marks)
    predicted: Marks = field(default_factory=Marks)
    dead: Marks = field(default_factory=Marks)
    may_be_dead: Marks = field(default_factory=Marks)
    # Neighbouring spans are joined: without a gap, one for each journal partition.
    spans: list[list[int]] = field(default_factory=list)
    stands: bool = False
    epoch: int = 0
    schemas: list[tuple[int, pa.Schema]] = field(default_factory=list)
    contents: dict[int, Contents] = field(default_factory=dict)
    records: int = 0
    # Below it, retention has removed answers.
    cut: int = 0

    def began(self, offset: int) -> None:
        """Take in where an owner began; the job began at the first."""
        self.stands |= offset == self.committed
        self._starts(offset)

    def ended(self, offset: int, epoch: int) -> None:
        """Take in where a commit ended, whether its rows were taken or not."""
        if offset == self.committed:
            self.stands, self.epoch = True, epoch

    def cover(self, first: int, following: int) -> None:
        """Take in what was taken of one span of a commit or of a chunk."""
        self._starts(first)
        if self.spans and self.spans[-1][1] == first:
            self.spans[-1][1] = following
        else:
            self.spans.append([first, following])

    def _starts(self, offset: int) -> None:
        self.start = offset if self.start is None else min(self.start, offset)

    def breaks(self) -> Iterator[tuple[int, int]]:
        """Where spans do not continue each other: how far they came, where the next one begins."""
        at = self.start
        for first, following in sorted(self.spans):
            if at is not None and first != at:
                yield at, first
            at = following if at is None else max(at, following)

    @property
    def reached(self) -> int | None:
        """How far the commits of the journal go."""
        return max((following for _, following in self.spans), default=self.start)

    def learn(self, offset: int, schema: pa.Schema) -> None:
        """Rows from `offset` on have this schema, until another one comes."""
        if not self.schemas or not self.schemas[-1][1].equals(schema):
            self.schemas.append((offset, schema))
            self.schemas.sort(key=lambda one: one[0])

    def schema(self, offset: int) -> pa.Schema | None:
        """The schema of the row at an offset, None where the journal had none yet."""
        at = bisect_right(self.schemas, offset, key=lambda one: one[0])
        return self.schemas[at - 1][1] if at else None

    def add_contents(
        self,
        side: int,
        offsets: Offsets,
        digests: npt.NDArray[np.uint64],
        number: int,
        places: Sequence[int],
    ) -> None:
        """Add rows of one side that lie at `places` of its partition `number`."""
        inside = (offsets >= (self.start or 0)) & (offsets < self.committed)
        windows = offsets // WINDOW
        for window in np.unique(windows[inside]).tolist():
            here = np.flatnonzero(inside & (windows == window))
            contents = self.contents.setdefault(window, Contents())
            total = int(digests[here].sum(dtype=np.uint64)) + contents.sums[side]
            contents.sums[side] = total & ((1 << 64) - 1)
            low, high = places[int(here[0])], places[int(here[-1])]
            spots = contents.spots[side]
            known = spots.get(number, (low, high))
            spots[number] = (min(known[0], low), max(known[1], high))

    def suspects(self) -> Iterator[tuple[int, Contents]]:
        """The windows whose rows differ."""
        for window, contents in sorted(self.contents.items()):
            if contents.sums[JOURNAL] != contents.sums[TOPIC] and (window + 1) * WINDOW > self.cut:
                yield window, contents
