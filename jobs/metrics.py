"""How well scores separate two classes: ROC AUC, recall at a false positive rate, precision.

Everything starts from a `Tally`, which counts both classes at each distinct score. Metrics are
functions of a tally; its counts may have leading axes, so a bootstrap hands many resampled
tallies to the same function at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Metric = Callable[["Tally"], NDArray[np.float64]]
"""From a tally with counts [..., S] to one value per leading index, [...]."""

# Bounds the memory of a bootstrap: its arrays hold this many counts (8 bytes each) at a time.
_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows of each class at each of S distinct scores.

    `scores` [S] falls strictly; `positives` and `negatives` are [..., S] counts of rows.
    """

    scores: NDArray[np.float64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall when a row is flagged at `score >= thresholds[i]`, all [S]."""

    thresholds: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric's value on the data and the bounds of its bootstrap interval."""

    value: float
    low: float
    high: float


def tally(labels: ArrayLike, scores: ArrayLike) -> Tally:
    """Count both classes at each distinct score.

    `labels` [N] holds 0 or 1 (or booleans), `scores` [N] any finite numbers, higher for class 1.

    Raises:
        ValueError: the shapes differ, a label is neither 0 nor 1, a score is not finite, or one
            class has no rows, so that no rate of it exists.

    """
    truth, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise ValueError(
            f"labels have shape {truth.shape}, scores {values.shape}: give two [N] of equal length"
        )
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("labels hold something else than 0 and 1: map the classes to them first")
    if not np.isfinite(values).all():
        raise ValueError("scores hold NaN or infinity: leave those rows out or score them again")
    flagged = truth.astype(bool)
    if flagged.all() or not flagged.any():
        raise ValueError("labels hold one class only: give rows of both classes")
    distinct, group = np.unique(-values, return_inverse=True)
    return Tally(
        scores=-distinct,
        positives=np.bincount(group[flagged], minlength=distinct.size),
        negatives=np.bincount(group[~flagged], minlength=distinct.size),
    )


def roc_auc(counts: Tally) -> NDArray[np.float64]:
    """Area under the ROC curve: how often a positive scores above a negative, ties count half.

    This is the Mann-Whitney U statistic over the number of pairs (Hanley and McNeil 1982).
    """
    negatives = counts.negatives.sum(axis=-1)
    above = counts.negatives.cumsum(axis=-1)
    below = negatives[..., None] - above + 0.5 * counts.negatives
    pairs = counts.positives.sum(axis=-1) * negatives
    return np.asarray((counts.positives * below).sum(axis=-1) / pairs)


def recall_at(counts: Tally, false_positive_rate: float) -> NDArray[np.float64]:
    """Highest recall whose false positive rate is at most the one given; no interpolation."""
    allowed = _within(counts, false_positive_rate)
    caught = (counts.positives * allowed).sum(axis=-1)
    return np.asarray(caught / counts.positives.sum(axis=-1))


def threshold_at(counts: Tally, false_positive_rate: float) -> float:
    """Lowest distinct score t such that `score >= t` keeps to the false positive rate.

    Raises:
        ValueError: even the highest score alone flags too many negatives.

    """
    allowed = np.flatnonzero(_within(counts, false_positive_rate))
    if not allowed.size:
        raise ValueError(
            f"false_positive_rate {false_positive_rate} is below that of the highest score:"
            " raise it, or break the ties at the top"
        )
    return float(counts.scores[allowed[-1]])


def rates_at(counts: Tally, threshold: float) -> tuple[float, float, float]:
    """Precision, recall and false positive rate of `score >= threshold`, for a tally [S].

    Precision is NaN where nothing is flagged.
    """
    flagged = counts.scores >= threshold
    true = float(counts.positives[flagged].sum())
    false = float(counts.negatives[flagged].sum())
    precision = true / (true + false) if flagged.any() else float("nan")
    return precision, true / float(counts.positives.sum()), false / float(counts.negatives.sum())


def precision_recall_curve(counts: Tally) -> Curve:
    """Precision and recall at each distinct score, from the highest down, for a tally [S]."""
    true = counts.positives.cumsum()
    flagged = true + counts.negatives.cumsum()
    return Curve(counts.scores, true / flagged, true / true[-1])


def average_precision(counts: Tally) -> NDArray[np.float64]:
    """Precision averaged over the positives: the sum of precision times each step of recall."""
    true = counts.positives.cumsum(axis=-1)
    flagged = true + counts.negatives.cumsum(axis=-1)
    precision = true / np.maximum(flagged, 1)
    return np.asarray((precision * counts.positives).sum(axis=-1) / true[..., -1])


def bootstrap(
    counts: Tally, metric: Metric, *, repetitions: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of a metric over resampled rows (Efron and Tibshirani 1993, ch. 13).

    Rows are drawn with replacement within each class, so that each resample has as many
    positives as the data; the same seed gives the same interval.
    """
    generator = np.random.default_rng(seed)
    block = max(1, _CELLS_AT_ONCE // counts.scores.size)
    values = np.concatenate(
        [
            metric(
                Tally(
                    counts.scores,
                    _resample(counts.positives, min(block, repetitions - start), generator),
                    _resample(counts.negatives, min(block, repetitions - start), generator),
                )
            )
            for start in range(0, repetitions, block)
        ]
    )
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(metric(counts)), float(low), float(high))


def _within(counts: Tally, false_positive_rate: float) -> NDArray[np.bool_]:
    """Say where flagging down to a score keeps to the rate: true on a prefix, [..., S]."""
    negatives = counts.negatives.sum(axis=-1)
    return np.asarray(
        counts.negatives.cumsum(axis=-1) <= false_positive_rate * negatives[..., None]
    )


def _resample(
    rows: NDArray[np.int64], repetitions: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draw as many rows with replacement as `rows` [S] counts; counts again, [repetitions, S]."""
    group = np.repeat(np.arange(rows.size), rows)
    drawn = group[generator.integers(group.size, size=(repetitions, group.size))]
    drawn += np.arange(repetitions)[:, None] * rows.size
    return np.bincount(drawn.ravel(), minlength=repetitions * rows.size).reshape(repetitions, -1)
