"""Measures of lists: values worked out by hand, and bounds that hold for any lists."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.ranking_metrics import judge, most_popular

TRAINING = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 0, 0]], np.float32)
RELEVANT = np.array([[0, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)


def test_values_by_hand() -> None:
    """Two people, three places: a hit at the first and third, a hit at the second."""
    lists = np.array([[2, 4, 3], [2, 1, -1], [1, 2, 3]])
    quality = judge(lists, TRAINING, RELEVANT)
    second, third = 1 / math.log2(3), 1 / math.log2(4)
    assert quality.ndcg == pytest.approx(((1 + third) / (1 + second) + second) / 2)
    assert quality.precision == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert quality.recall == pytest.approx(1)
    assert quality.mean_average_precision == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    # Items 1, 2, 3 and 4 were shown; 0, 1 and 3 are in the training part.
    assert quality.coverage == pytest.approx(4 / 3)
    # Items 3 and 1 have one of five interactions each.
    assert quality.novelty == pytest.approx(math.log2(5))


def test_who_has_nothing_held_out_does_not_count() -> None:
    """The third person's list changes no mean."""
    lists = np.array([[2], [1], [4]])
    assert judge(lists, TRAINING, RELEVANT).precision == 1


@given(st.lists(st.permutations(range(5)), min_size=3, max_size=3))
def test_measures_stay_within_their_bounds(orders: list[list[int]]) -> None:
    """Means are between 0 and 1, and the best order has the highest nDCG."""
    quality = judge(np.array(orders)[:, :3], TRAINING, RELEVANT)
    ideal = judge(np.array([[2, 3, 0], [1, 0, 2], [0, 1, 2]]), TRAINING, RELEVANT)
    assert 0 <= quality.ndcg <= ideal.ndcg == pytest.approx(1)
    assert 0 <= quality.mean_average_precision <= quality.recall <= 1


def test_the_most_popular_are_unseen_ones() -> None:
    """The base line leaves out what each person has seen."""
    assert most_popular(TRAINING, 2).tolist() == [[3, 2], [1, 2], [1, 3]]
