"""How good recommendations are: nDCG, precision, recall, MAP, coverage, novelty, at k.

As the published table measures them (recommenders-team/recommenders): relevance is 0 or 1, means
are over the users who have something relevant.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over users; `coverage` is the share of the items that anybody was recommended.

    `novelty` is the mean of -log2 of the share that an item has of all training interactions, over
    all that was recommended.
    """

    ndcg: float
    precision: float
    recall: float
    mean_average_precision: float
    coverage: float
    novelty: float


def judge(
    recommended: npt.NDArray[np.int64], training: Matrix, relevant: npt.NDArray[np.bool_]
) -> Quality:
    """Measure lists `[users, k]` of item columns, best first, -1 where a list has ended.

    `training` counts interactions and `relevant` marks what was held out, both `[users, items]`.
    """
    judged = relevant.any(axis=1)
    lists, wanted = recommended[judged], relevant[judged]
    given = lists >= 0
    hits = np.take_along_axis(wanted, np.maximum(lists, 0), axis=1) & given
    many = wanted.sum(axis=1)
    k = lists.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(many, k) - 1]
    precisions = np.cumsum(hits, axis=1) / np.arange(1, k + 1)
    counts = training.sum(axis=0)
    shown = lists[given]
    # An item that nobody has in the training part has no share to speak of.
    shares = counts[shown][counts[shown] > 0] / counts.sum()
    return Quality(
        ndcg=float(((hits * discounts).sum(axis=1) / ideal).mean()),
        precision=float((hits.sum(axis=1) / k).mean()),
        recall=float((hits.sum(axis=1) / many).mean()),
        mean_average_precision=float(((hits * precisions).sum(axis=1) / many).mean()),
        coverage=len(np.unique(shown)) / int((counts > 0).sum()),
        novelty=float(-np.log2(shares).mean()),
    )


def most_popular(training: Matrix, k: int) -> npt.NDArray[np.int64]:
    """The base line `[users, k]`: for everybody the items with the most interactions, unseen."""
    counts = np.where(training > 0, -np.inf, training.sum(axis=0))
    order: npt.NDArray[np.int64] = np.argsort(-counts, axis=1, kind="stable")[:, :k]
    return order
