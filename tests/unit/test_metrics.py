"""Metrics agree with their definitions, with scikit-learn, and with chance where it rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference

from jobs.metrics import (
    average_precision,
    bootstrap,
    precision_recall_curve,
    rates_at,
    recall_at,
    roc_auc,
    tally,
    threshold_at,
)

LABELLED = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=60
).filter(lambda rows: len({label for label, _ in rows}) == 2)


def _separable(rows: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(rows) < 0.05).astype(np.int64)
    labels[:2] = 0, 1
    return labels, generator.normal(size=rows) + 2 * labels


@given(LABELLED)
def test_areas_are_those_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    """ROC AUC and average precision equal scikit-learn's, ties included."""
    labels, scores = np.array(rows).T
    counts = tally(labels, scores)
    assert roc_auc(counts) == pytest.approx(reference.roc_auc_score(labels, scores))
    assert average_precision(counts) == pytest.approx(
        reference.average_precision_score(labels, scores)
    )


@given(LABELLED)
def test_curve_is_that_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    """Precision and recall equal scikit-learn's at every distinct score."""
    labels, scores = np.array(rows).T
    precision, recall, thresholds = reference.precision_recall_curve(labels, scores)
    curve = precision_recall_curve(tally(labels, scores))
    ours = {
        threshold: (p, r)
        for threshold, p, r in zip(curve.thresholds, curve.precision, curve.recall, strict=True)
    }
    for threshold, p, r in zip(thresholds, precision[:-1], recall[:-1], strict=True):
        assert ours[threshold] == pytest.approx((p, r))


@given(LABELLED, st.floats(0, 1))
def test_recall_at_a_rate_is_the_best_allowed(rows: list[tuple[int, int]], rate: float) -> None:
    """No threshold that keeps to the false positive rate catches more than `recall_at` says."""
    labels, scores = np.array(rows).T
    allowed = [
        (scores[labels == 1] >= threshold).mean()
        for threshold in [*np.unique(scores), np.inf]
        if (scores[labels == 0] >= threshold).mean() <= rate
    ]
    assert recall_at(tally(labels, scores), rate) == pytest.approx(max(allowed))


def test_threshold_keeps_to_its_rate() -> None:
    """Flagging at `threshold_at` has the recall of `recall_at` and stays within the rate."""
    counts = tally(*_separable(5000, 1))
    _, recall, rate = rates_at(counts, threshold_at(counts, 0.01))
    assert rate <= 0.01
    assert recall == pytest.approx(float(recall_at(counts, 0.01)))


def test_threshold_that_ties_forbid_is_refused() -> None:
    """A rate below that of the highest score names itself in the error."""
    with pytest.raises(ValueError, match=r"0\.01"):
        threshold_at(tally([0, 1, 0], [1.0, 1.0, 0.0]), 0.01)


def test_precision_of_nothing_is_nan() -> None:
    """A threshold above every score flags nothing: no precision, no recall."""
    precision, recall, rate = rates_at(tally([0, 1], [0.1, 0.2]), 0.5)
    assert np.isnan(precision)
    assert (recall, rate) == (0, 0)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.5], "shape"),
        ([0, 2], [0.5, 0.6], "0 and 1"),
        ([0, 1], [0.5, np.nan], "NaN"),
        ([1, 1], [0.5, 0.6], "one class"),
    ],
)
def test_bad_input_is_named(labels: list[int], scores: list[float], message: str) -> None:
    """A tally of unusable rows says what is wrong with them."""
    with pytest.raises(ValueError, match=message):
        tally(labels, scores)


def test_resamples_keep_the_classes() -> None:
    """A bootstrap replicate has as many rows of each class as the data."""
    counts = tally(*_separable(300, 2))
    assert bootstrap(counts, lambda t: t.positives.sum(axis=-1) * 1.0, repetitions=50).low == (
        counts.positives.sum()
    )
    assert bootstrap(counts, lambda t: t.negatives.sum(axis=-1) * 1.0, repetitions=50).high == (
        counts.negatives.sum()
    )


def test_bootstrap_has_the_width_of_theory() -> None:
    """The interval of the ROC AUC is as wide as the standard error of DeLong et al. (1988) says."""
    labels, scores = _separable(3000, 3)
    interval = bootstrap(tally(labels, scores), roc_auc, repetitions=400)
    wins = scores[labels == 1][:, None] > scores[labels == 0]
    by_positive, by_negative = wins.mean(axis=1), wins.mean(axis=0)
    error = np.sqrt(
        by_positive.var(ddof=1) / by_positive.size + by_negative.var(ddof=1) / by_negative.size
    )
    assert interval.low < interval.value < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.25)


def test_bootstrap_repeats_itself() -> None:
    """The same seed gives the same interval, another seed another one."""
    counts = tally(*_separable(500, 4))
    first = bootstrap(counts, roc_auc, repetitions=100, seed=5)
    assert bootstrap(counts, roc_auc, repetitions=100, seed=5) == first
    assert bootstrap(counts, roc_auc, repetitions=100, seed=6) != first
