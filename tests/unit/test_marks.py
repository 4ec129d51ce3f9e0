"""Sets of offsets: what a set of numbers says, in a bit each."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.marks import WINDOW, Marks

# Around the borders of windows, and far away.
OFFSETS = st.one_of(
    st.integers(0, 50), st.integers(WINDOW - 20, WINDOW + 20), st.integers(1 << 40, (1 << 40) + 50)
)
RANGES = st.tuples(OFFSETS, st.integers(0, 200))


@given(st.lists(st.one_of(st.lists(OFFSETS, max_size=20), RANGES), max_size=8), RANGES)
def test_marks_are_a_set(steps: list[list[int] | tuple[int, int]], asked: tuple[int, int]) -> None:
    """Whatever is put in is in, is told when it was in before, and nothing else is."""
    marks, model = Marks(), set[int]()
    for step in steps:
        if isinstance(step, tuple):
            marks.add_range(step[0], step[0] + step[1])
            model |= set(range(step[0], step[0] + step[1]))
            continue
        again = []
        for offset in step:
            again.append(offset in model)
            model.add(offset)
        assert marks.add(np.array(step, np.int64)).tolist() == again
    first, length = asked
    assert marks.mask(first, first + length).tolist() == [
        offset in model for offset in range(first, first + length)
    ]
    some = np.array([first, first + length, 7], np.int64)
    assert marks.has(some).tolist() == [offset in model for offset in some.tolist()]
    assert marks.from_offset(first).tolist() == sorted(o for o in model if o >= first)


def test_full_windows_cost_nothing() -> None:
    """Ten million offsets without a hole take less than a byte for a thousand of them."""
    marks = Marks()
    for first in range(0, 10_000_000, 100_000):
        marks.add(np.arange(first, first + 100_000, dtype=np.int64))
    held = {id(window): window.nbytes for window in marks._windows.values()}
    assert sum(held.values()) <= 2 * WINDOW // 8
    assert not marks.has(np.array([10_000_000], np.int64)).any()
