"""Lists of different length in two arrays, as Arrow keeps them, and the matrices made of them.

Nothing here loops over rows in Python: a batch of histories costs a few passes of NumPy.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Ragged:
    """Row i holds `values[offsets[i]:offsets[i + 1]]`; `offsets` is int64 `[rows + 1]`.

    `absent` bool `[rows]` tells rows that have no list from rows whose list is empty; None where
    every row has one.
    """

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]
    absent: npt.NDArray[np.bool_] | None = None

    @classmethod
    def of_lengths(cls, values: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> Self:
        """From the values of all rows and how many of them each row has."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice) -> Self:
        start, stop, _ = rows.indices(len(self))
        bounds = self.offsets[start : max(start, stop) + 1]
        absent = None if self.absent is None else self.absent[rows]
        return type(self)(self.values[bounds[0] : bounds[-1]], bounds - bounds[0], absent)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """How many values each row has, `[rows]`."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The row of each value, `[values]`."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, rows: npt.NDArray[np.int64]) -> Self:
        """These rows, in this order."""
        lengths = self.lengths[rows]
        made = self.of_lengths(self.values, lengths)
        places = np.arange(made.offsets[-1]) + np.repeat(
            self.offsets[rows] - made.offsets[:-1], lengths
        )
        absent = None if self.absent is None else self.absent[rows]
        return type(self)(self.values[places], made.offsets, absent)

    def where(self, kept: npt.NDArray[np.bool_]) -> Self:
        """Only the values for which `kept` `[values]` is true."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return type(self)(self.values[kept], before[self.offsets], self.absent)

    def newest(self, count: int) -> Self:
        """At most the last `count` values of each row."""
        if self.lengths.max(initial=0) <= count:
            return self
        behind = self.offsets[1:][self.rows] - np.arange(len(self.values))
        return self.where(behind <= count)

    def oldest(self, count: int) -> Self:
        """At most the first `count` values of each row."""
        if self.lengths.max(initial=0) <= count:
            return self
        return self.where(np.arange(len(self.values)) - self.offsets[:-1][self.rows] < count)

    def padded(self, fill: Any, width: int, kind: Any, *, left: bool) -> npt.NDArray[Any]:
        """`[rows, width]` of type `kind`, with `fill` on the left or the right of the values.

        No row may have more than `width` values.
        """
        matrix = np.full((len(self), width), fill, kind)
        rows = self.rows
        columns = np.arange(len(self.values)) - self.offsets[:-1][rows]
        if left:
            columns += width - self.lengths[rows]
        matrix[rows, columns] = self.values
        return matrix

    def multi_hot(self, width: int, kind: Any) -> npt.NDArray[Any]:
        """`[rows, width]` of type `kind`: 1 at each value of a row, however often it stands there.

        Values are indices in `[0, width)`.
        """
        matrix = np.zeros((len(self), width), kind)
        matrix[self.rows, self.values] = 1
        return matrix


def ones(values: npt.NDArray[Any]) -> Ragged:
    """Rows of one value each."""
    return Ragged(values, np.arange(len(values) + 1))
