"""Exported recommenders give what their libraries give, and what is shipped is made of our data."""

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from jobs import (
    ease,
    interactions,
    pair_model,
    recommend_model,
    sequence_model,
    train_recommend,
)
from jobs.tools import ToolFailed
from pipeline.edges.onnx import OnnxModel
from pipeline.model_folder import load_files
from pipeline.signature import check_signature

ROOT = Path(__file__).resolve().parents[2]
DATA = interactions.generated()
TRAINING = interactions.split(DATA, 0)


def test_ease_solves_its_own_equation() -> None:
    """The weights are the minimum: the gradient of the regularised error is zero off the diagonal."""
    seen = DATA.matrix(TRAINING).astype(np.float64)
    weights = ease.fit(seen, 10.0)
    slope = seen.T @ (seen @ weights - seen) + 10.0 * weights
    np.fill_diagonal(slope, 0)
    assert np.abs(slope).max() < 1e-8
    assert (np.diag(weights) == 0).all()


def test_the_graph_ranks_as_the_library() -> None:
    """At least 99.9 % of the lists are equal and scores differ by float32 rounding only."""
    metrics = train_recommend.train_ease(DATA, TRAINING).metrics
    assert metrics["parity"]["equal_lists"] >= recommend_model.PARITY_SHARE
    assert metrics["parity"]["largest_difference"] <= recommend_model.PARITY
    assert metrics["held_out"]["ndcg"] > metrics["most_popular"]["ndcg"]


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_a_model_that_keras_exported_ranks_as_keras_does(tmp_path: Path) -> None:
    """Trained and exported by a library that knows nothing of us, it is refused unless lists are equal.

    What is written is a model folder that a job accepts, and that scores pairs.
    """
    try:
        trained = train_recommend.train_pairs(DATA, TRAINING)
    except ToolFailed as reason:
        pytest.skip(f"Keras cannot be had here: {reason}")
    assert trained.metrics["parity"]["equal_lists"] >= recommend_model.PARITY_SHARE
    folder = recommend_model.write(trained, tmp_path, DATA.name)
    files = load_files(folder / "1")
    assert check_signature(files.spec, OnnxModel(files.model).signature) == []
    assert files.spec.pairs


def test_another_model_is_told_apart() -> None:
    """A graph whose scores or lists are not the library's is refused."""
    expected = np.array([[0.0, 3.0, 2.0], [1.0, 0.0, 2.0]])
    best = np.array([[1, 2], [2, 0]])
    scores = np.array([[3.0, 2.0], [2.0, 1.0]])
    recommend_model.check_parity((best, scores), expected)
    with pytest.raises(ValueError, match="differs"):
        recommend_model.check_parity((best, scores + 1e-4), expected)
    with pytest.raises(ValueError, match="differs"):
        recommend_model.check_parity((best[::-1], scores), expected)


@pytest.mark.parametrize("length", [1, 7, 20])
def test_the_sequence_graph_scores_as_numpy(length: int) -> None:
    """Sequences of any length, padded or full, give the scores of the plain function."""
    generator = np.random.default_rng(length)
    shape = sequence_model.Shape(items=30, length=20, width=16)
    parameters = {
        name: (one + generator.normal(0, 0.1, one.shape)).astype(np.float32)
        for name, one in sequence_model.initial(shape, 0).items()
    }
    sequences = generator.integers(1, 31, (50, length))
    for row, line in enumerate(sequences):
        line[: row % length] = 0
    session = onnxruntime.InferenceSession(
        sequence_model.export(parameters), providers=["CPUExecutionProvider"]
    )
    feeds = {"history": sequences, "blocked": np.zeros((50, 31), bool), "k": np.array([31])}
    scores, best = session.run(["scores", "best"], feeds)
    expected = sequence_model.scores(parameters, sequences)
    assert np.abs(np.take_along_axis(expected, best, axis=1) - scores).max() < 1e-5


def test_padding_changes_no_score() -> None:
    """A history scores the same whatever stands to its left to fill the line."""
    parameters = sequence_model.initial(sequence_model.Shape(items=30, length=20, width=16), 0)
    bare = sequence_model.scores(parameters, np.array([[4, 9, 2]]))
    padded = sequence_model.scores(parameters, np.array([[0, 0, 0, 0, 4, 9, 2]]))
    assert padded == pytest.approx(bare, abs=1e-5)


def test_the_sequence_model_learns_what_follows() -> None:
    """Trained on a rule, each item followed by the next one, it ranks the next one first."""
    pytest.importorskip("jax", reason="the extra train-sequence brings JAX")
    from jobs.train_sequence import Plan, fit

    shape = sequence_model.Shape(items=12, length=6, width=16, blocks=1)
    histories = [(np.arange(start, start + 8) % 12) + 1 for start in range(12)]
    lines = np.stack([one[:6] for one in histories])
    following = np.array([one[6] for one in histories])

    def hits(parameters: sequence_model.Parameters) -> float:
        best = sequence_model.scores(parameters, lines)[:, 1:].argmax(axis=1) + 1
        return float((best == following).mean())

    _, course = fit(
        shape, histories, hits, Plan(epochs=150, patience=150, batch=128, rate=0.01, dropout=0.1)
    )
    assert max(course) == 1


def test_the_last_item_is_asked_of_whom_it_belongs_to() -> None:
    """A history and the item that follows it are of one person, in whatever order people came."""
    last = interactions.last_ones(DATA)
    whole = train_recommend._histories(DATA, np.ones_like(last))
    early = train_recommend._histories(DATA, ~last)
    following = train_recommend._one_each(DATA, last)
    assert len(whole) == len(early) == len(following) == DATA.shape[0]
    for everything, before, item in zip(whole, early, following, strict=True):
        assert everything.tolist() == [*before.tolist(), item]


def test_movielens_models_stay_outside_the_repository() -> None:
    """What is made of MovieLens may not be redistributed: writing it among our files is refused."""
    trained = train_recommend.train_ease(DATA, TRAINING)
    with pytest.raises(ValueError, match="may not be redistributed"):
        recommend_model.write(trained, ROOT / "models", interactions.MOVIELENS)


@pytest.mark.parametrize("name", train_recommend.NAMES)
def test_shipped_models_are_whole_and_of_the_generated_set(name: str) -> None:
    """Model, vocabularies and model.yaml fit each other, and their data is ours to give."""
    folder = ROOT / "models" / name / "1"
    files = load_files(folder)
    assert check_signature(files.spec, OnnxModel(files.model).signature) == []
    assert f"data: {DATA.name}" in (folder / "model.yaml").read_text(encoding="utf-8")


def test_written_models_load(tmp_path: Path) -> None:
    """What training writes is a model folder that a job accepts."""
    trained = train_recommend.train_ease(DATA, TRAINING)
    folder = recommend_model.write(trained, tmp_path, DATA.name)
    files = load_files(folder / "1")
    assert check_signature(files.spec, OnnxModel(files.model).signature) == []


def test_each_package_of_keras_is_pinned() -> None:
    """The environment is the same tomorrow, and model.yaml says what trained and exported."""
    lines = pair_model.PINNED.read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert len(pair_model.packages()) == 3
