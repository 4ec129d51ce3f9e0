"""Lists of different length as arrays: each operation does to all rows what a loop would do."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ragged import Ragged, ones

LISTS = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=8)


def ragged(lists: list[list[int]]) -> Ragged:
    values = np.array([one for row in lists for one in row], np.int64)
    return Ragged.of_lengths(values, np.array([len(row) for row in lists], np.int64))


def plain(lists: Ragged) -> list[list[Any]]:
    return [lists[row : row + 1].values.tolist() for row in range(len(lists))]


@given(LISTS, st.integers(0, 9), st.integers(0, 9))
def test_a_slice_holds_its_rows(lists: list[list[int]], start: int, stop: int) -> None:
    """A slice is the same rows, counted from their own start."""
    assert plain(ragged(lists)[start:stop]) == lists[start:stop]


@given(LISTS, st.data())
def test_take_gives_rows_in_the_order_asked_for(
    lists: list[list[int]], data: st.DataObject
) -> None:
    """Rows may be left out, repeated and turned around."""
    if lists:
        rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=8))
        taken = ragged(lists).take(np.array(rows, np.int64))
        assert plain(taken) == [lists[row] for row in rows]


@given(LISTS, st.integers(1, 7))
def test_newest_and_oldest_keep_the_ends(lists: list[list[int]], count: int) -> None:
    """Of a list that is too long its last values are kept, or its first."""
    assert plain(ragged(lists).newest(count)) == [row[-count:] for row in lists]
    assert plain(ragged(lists).oldest(count)) == [row[:count] for row in lists]


@given(LISTS, st.integers(0, 9))
def test_where_drops_values_and_keeps_rows(lists: list[list[int]], unwanted: int) -> None:
    """A row may lose all its values and is still there."""
    made = ragged(lists)
    kept = [[one for one in row if one != unwanted] for row in lists]
    assert plain(made.where(made.values != unwanted)) == kept


@given(LISTS, st.booleans())
def test_padded_fills_one_side(lists: list[list[int]], left: bool) -> None:
    """Each row stands at one end of its line, and the fill at the other."""
    lines = ragged(lists).padded(-1, 6, np.int32, left=left).tolist()
    fills = [[-1] * (6 - len(row)) for row in lists]
    pairs = zip(lists, fills, strict=True)
    assert lines == [fill + row if left else row + fill for row, fill in pairs]


@given(LISTS)
def test_multi_hot_counts_presence(lists: list[list[int]]) -> None:
    """A value that stands twice in a row is there once."""
    matrix = ragged(lists).multi_hot(10, np.float32)
    assert matrix.tolist() == [[float(i in row) for i in range(10)] for row in lists]


def test_absence_follows_its_rows() -> None:
    """Slices and selections carry which rows have no list at all."""
    made = Ragged(np.array([1, 2]), np.array([0, 1, 1, 2]), np.array([False, True, False]))
    taken = made.take(np.array([1, 2]))
    assert taken.absent is not None
    assert taken.absent.tolist() == [True, False]
    part = made[1:]
    assert part.absent is not None
    assert part.absent.tolist() == [True, False]


def test_ones_are_lists_of_one() -> None:
    """A column of single values is a column of lists of one."""
    assert plain(ones(np.array([4, 5]))) == [[4], [5]]
