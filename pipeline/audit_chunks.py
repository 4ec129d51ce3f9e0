"""The chunks of one commit in the journal: what they hold, and what its record must say of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipeline import journal
from pipeline.anomaly import Anomaly
from pipeline.schema import STANDARD


@dataclass(slots=True)
class Chunks:
    """The chunks of one commit so far, and the journal offset of the first."""

    offset: int
    count: int = 0
    rows: int = 0
    dates: set[str] = field(default_factory=set)
    spans: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, key: journal.Key, rows: int) -> None:
        """Take in a chunk."""
        self.count += 1
        self.rows += rows
        self.dates.add(key.date)
        self.spans += key.spans

    def differences(self, commit: journal.CommitRecord) -> Iterator[tuple[Anomaly, str]]:
        """What the record of a commit with as many chunks says otherwise."""
        if self.rows != commit.rows_out:
            yield Anomaly.TORN, f"counts {commit.rows_out} rows, its chunks hold {self.rows}"
        if self.dates - {commit.date}:
            text = f"is of {commit.date}, its chunks are of {', '.join(sorted(self.dates))}"
            yield Anomaly.MISMATCHED, text
        reached = {number: first for number, first, _ in commit.spans}
        ends = {number: following for number, _, following in commit.spans}
        for number, first, following in self.spans:
            if reached.get(number) != first or not first < following <= ends[number]:
                text = (
                    f"covers partition {number} from {reached.get(number)} to {ends.get(number)}, "
                    f"where a chunk of it answers for {first} to {following}"
                )
                yield Anomaly.MISMATCHED, text
            if number in reached:
                reached[number] = following


def read(body: bytes) -> pa.Table:
    """The rows of a chunk. Raises pyarrow's ArrowException or KeyError where it is not whole."""
    table = journal.read_chunk(body)
    table.select([field.name for field in STANDARD])
    return table


def within(table: pa.Table, ranges: Mapping[int, tuple[int, int]]) -> pa.Table:
    """The rows that stand in the range `[first, next)` of their partition."""
    partitions, offsets = table["partition"].to_numpy(), table["offset"].to_numpy()
    keep = np.zeros(table.num_rows, np.bool_)
    for number, (first, following) in ranges.items():
        keep |= (partitions == number) & (offsets >= first) & (offsets < following)
    return table if keep.all() else table.filter(pa.array(keep))
