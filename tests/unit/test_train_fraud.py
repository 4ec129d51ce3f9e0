"""The exported graph scores as scikit-learn does, and training never looks ahead."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import train_fraud
from jobs.export_trees import floor_float32
from jobs.fraud_model import FEATURES, Labels, Matrix, Members, export, fit

DOUBLES = st.floats(allow_nan=False, allow_infinity=False)


def _transactions(rows: int, seed: int) -> tuple[Matrix, Labels]:
    generator = np.random.default_rng(seed)
    labels = (np.arange(rows) % 20 == 0).astype(np.int64)
    features = generator.normal(size=(rows, len(FEATURES))) + labels[:, None]
    return features.astype(np.float32), labels


@pytest.fixture(scope="module")
def members() -> Members:
    return fit(*_transactions(1500, 1))


@given(DOUBLES, st.floats(width=32, allow_nan=False))
def test_rounding_down_keeps_every_comparison(threshold: float, feature: float) -> None:
    """A float32 feature is on the same side of a threshold before and after rounding."""
    rounded = floor_float32(np.array([threshold]))[0]
    assert (feature <= threshold) == bool(np.float32(feature) <= rounded)


@given(DOUBLES)
def test_neighbours_of_a_threshold_keep_their_side(threshold: float) -> None:
    """The two float32 numbers around a threshold, where rounding could hurt, keep their side."""
    rounded = floor_float32(np.array([threshold]))[0]
    with np.errstate(over="ignore"):
        above = np.nextafter(rounded, np.float32(np.inf))
    assert float(rounded) <= threshold < float(above)


def test_graph_scores_as_scikit_learn_does(members: Members) -> None:
    """On unseen rows, the exported graph and scikit-learn differ by float32 rounding only."""
    features, _ = _transactions(2000, 2)
    assert train_fraud.check_parity(export(members), members, features) < train_fraud.PARITY


def test_rows_on_a_threshold_take_the_same_branch(members: Members) -> None:
    """Rows whose features are the trees' thresholds, rounded to float32, score the same."""
    features, _ = _transactions(2000, 3)
    generator = np.random.default_rng(3)
    forests = [members.extra, *members.sampled]
    trees = [tree for forest in forests for tree in forest.estimators_]
    for column in range(features.shape[1]):
        thresholds = np.concatenate(
            [tree.tree_.threshold[tree.tree_.feature == column] for tree in trees]
        )
        features[:, column] = generator.choice(thresholds, len(features)).astype(np.float32)
    assert train_fraud.check_parity(export(members), members, features) < train_fraud.PARITY


def test_outliers_stay_finite(members: Members) -> None:
    """Huge features, and those that make every member certain, still give a score in [0, 1]."""
    extremes = np.array([-1e30, -1e6, 0, 1e6, 1e30], dtype=np.float32)
    features = np.repeat(extremes[:, None], len(FEATURES), axis=1)
    scores = train_fraud.score(export(members), features)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_another_model_is_told_apart(members: Members) -> None:
    """A graph that is not the members' own is refused."""
    features, _ = _transactions(200, 4)
    other = export(fit(*_transactions(400, 5)))
    with pytest.raises(ValueError, match="differs from scikit-learn"):
        train_fraud.check_parity(other, members, features)


def test_the_same_rows_give_the_same_bytes(members: Members) -> None:
    """Training twice on the same rows gives the same file, so that its sha256 can be checked."""
    assert export(fit(*_transactions(1500, 1))) == export(members)


def test_folds_judge_by_later_rows() -> None:
    """Each fold trains on all rows before those it is judged by, and the last reaches the end."""
    folds = list(train_fraud.folds(1000))
    for earlier, later in folds:
        assert earlier.start == 0
        assert earlier.stop == later.start < later.stop
    assert folds[-1][1].stop == 1000


@pytest.mark.parametrize(
    ("times", "dropped", "message"),
    [([0, 2, 1], [], "not sorted by Time"), ([0, 1, 2], ["V7", "Class"], "no column V7, Class")],
)
def test_unusable_files_are_refused(
    tmp_path: Path, times: list[int], dropped: list[str], message: str
) -> None:
    """A file that lacks a column or is not in the order of time is refused by name."""
    columns = {"Time": times} | {name: [0.0] * 3 for name in FEATURES} | {"Class": [0, 1, 0]}
    path = tmp_path / "transactions.parquet"
    pq.write_table(pa.table(columns).drop_columns(dropped), path)
    with pytest.raises(ValueError, match=message):
        train_fraud.read(path)
