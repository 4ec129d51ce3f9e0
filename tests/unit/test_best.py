"""The best of many scores: what sorting everything would give, ties by rank."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.best import best_of_all, best_of_each
from pipeline.ragged import Ragged

# Few distinct scores, so that ties are the rule.
SCORES = st.lists(
    st.lists(st.sampled_from([-np.inf, 0.0, 0.5, 1.0]), min_size=7, max_size=7),
    min_size=1,
    max_size=5,
)
RANKS = np.array([3, 0, 6, 1, 5, 2, 4])


def expected(scores: list[float], count: int) -> list[int]:
    """Return what a sort of everything gives, without what is blocked."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], RANKS[i]))
    return [i for i in order if scores[i] != -np.inf][:count]


@given(SCORES, st.integers(1, 9))
def test_the_best_of_all_are_those_of_a_full_sort(scores: list[list[float]], count: int) -> None:
    """The columns taken are the first of a full sort, also where scores tie at the cut."""
    chosen = best_of_all(np.array(scores, np.float32), count, RANKS)
    for row, columns in zip(scores, chosen.tolist(), strict=True):
        assert len(columns) == min(count, 7)
        assert {i for i in columns if row[i] != -np.inf} == set(expected(row, count))


@given(SCORES, st.integers(1, 9))
def test_each_list_is_sorted_and_cut(scores: list[list[float]], count: int) -> None:
    """Scores fall, the lower rank is first where they are equal, and lists have their own length."""
    kept = [[i for i, score in enumerate(row) if score != -np.inf] for row in scores]
    values = np.array([i for row in kept for i in row], np.int64)
    lists = Ragged.of_lengths(values, np.array([len(row) for row in kept]))
    flat = np.array([scores[row][i] for row, i in zip(lists.rows, values, strict=True)], np.float32)
    best, sorted_scores = best_of_each(lists, flat, count, RANKS)
    for row in range(len(scores)):
        places = best.values[best.offsets[row] : best.offsets[row + 1]].tolist()
        assert places == expected(scores[row], count)
        own = sorted_scores[best.offsets[row] : best.offsets[row + 1]].tolist()
        assert own == [scores[row][i] for i in places]


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_no_number_comes_first(count: int) -> None:
    """A NaN is never hidden behind better scores, so that the row's check finds it."""
    chosen = best_of_all(np.array([[1.0, np.nan, 3.0]]), count, RANKS[:3])
    assert 1 in chosen[0]
