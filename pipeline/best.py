"""The best of many scores, with ties broken by rank: pure functions of arrays.

A NaN counts as the highest score, so that whoever checks the result sees it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.ragged import Ragged


def best_of_all(
    scores: npt.NDArray[Any], count: int, ranks: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The columns of the `count` highest scores of each row, in any order.

    `scores` is `[rows, columns]`, the answer `[rows, min(count, columns)]`; of equal scores that of
    the lowest rank `[columns]` is taken.
    """
    keys = _keys(scores)
    count = min(count, keys.shape[1])
    chosen = np.argpartition(keys, count - 1, axis=1)[:, :count]
    # argpartition takes any of those that equal the last one.
    last = np.take_along_axis(keys, chosen, axis=1).max(axis=1, keepdims=True)
    tied = (np.count_nonzero(keys <= last, axis=1) > count) & (last[:, 0] < np.inf)
    if tied.any():
        rows = keys[tied]
        chosen[tied] = np.lexsort((np.broadcast_to(ranks, rows.shape), rows))[:, :count]
    return chosen


def best_of_each(
    lists: Ragged, scores: npt.NDArray[Any], count: int, ranks: npt.NDArray[np.int64]
) -> tuple[Ragged, npt.NDArray[Any]]:
    """The `count` highest of each list of indices, and their scores; `scores` has one a value."""
    keys, rows, values = _keys(scores), lists.rows, lists.values
    # What a graph has chosen comes in this order, unless scores are equal: sorting costs more than
    # the whole model does on a GPU.
    if not np.all((keys[1:] > keys[:-1]) | (rows[1:] != rows[:-1])):
        order = np.lexsort((ranks[values], keys, rows))
        values, scores = values[order], scores[order]
    scored = Ragged(scores, lists.offsets).oldest(count)
    return Ragged(values, lists.offsets).oldest(count), scored.values


def _keys(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What ascends where scores descend."""
    return np.where(np.isnan(scores), -np.inf, -scores)
