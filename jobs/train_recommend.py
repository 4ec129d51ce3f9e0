"""Train recommendation models, export them to ONNX, prove parity and say how good they are.

    python -m jobs.train_recommend                          # MovieLens 100K, into the cache
    python -m jobs.train_recommend --generated --output models

Three models: `recommend` is EASE, `recommend-pairs` scores one user and one item at a time, trained
and exported by Keras in an environment of its own, and `recommend-sequence` is SASRec, which needs
the extra `train-sequence`. What is made of MovieLens
may not be redistributed, and is refused as a file of the repository.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs import ease, interactions, pair_model, sequence_model
from jobs.interactions import Flags, Interactions
from jobs.ranking_metrics import judge, most_popular
from jobs.recommend_model import Trained, check_parity, session, write
from jobs.tools import ToolFailed

K = 10
NAMES = ("recommend", "recommend-pairs", "recommend-sequence")
LISTED = {"vocabulary": "items", "list": True, "unknown": "drop"}
# Of a graph that is told what is blocked, and picks the best itself.
TOLD = {"blocked": {"form": "blocked"}, "k": {"form": "k"}}
RANKING = {"vocabulary": "items", "scores": "scores", "indices": "best", "seen": "history"}


def train_ease(data: Interactions, training: Flags) -> Trained:
    """EASE on the training part; judged on the rest."""
    seen = data.matrix(training)
    began = time.monotonic()
    weights = ease.fit(seen)
    seconds = time.monotonic() - began
    model = ease.export(weights)
    feeds = {"history": seen, "blocked": seen > 0, "k": np.array([K])}
    scores, best = session(model).run(["scores", "best"], feeds)
    expected = np.where(seen > 0, -np.inf, seen @ weights)
    return Trained(
        "recommend",
        model,
        {
            "ids": {"history": LISTED},
            "inputs": {"history": {"ids": "history", "form": "multi_hot"}, **TOLD},
            "ranking": RANKING,
        },
        {"items": np.arange(1, data.shape[1] + 1)},
        {
            **_judged(data, training, best),
            "parity": check_parity((best, scores), expected),
            "training": {"seconds": round(seconds, 1), "regularisation": ease.REGULARISATION},
        },
    )


def train_pairs(data: Interactions, training: Flags) -> Trained:
    """Keras's model of pairs on the training part. Raises ToolFailed where Keras can't be had."""
    seen = data.matrix(training)
    began = time.monotonic()
    model, by_keras = pair_model.fit(seen)
    seconds = time.monotonic() - began
    users, items = np.indices(seen.shape, np.int32).reshape(2, -1, 1)
    runs = session(model)
    (output,) = (one.name for one in runs.get_outputs())
    scores = runs.run([output], {"user": users, "item": items})[0].reshape(seen.shape)
    scores = np.where(seen > 0, -np.inf, scores)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    expected = np.where(seen > 0, -np.inf, by_keras.astype(np.float64))
    given = best, np.take_along_axis(scores, best, axis=1)
    return Trained(
        "recommend-pairs",
        model,
        {
            "ids": {
                "user": {"vocabulary": "users", "unknown": "reject"},
                "candidates": LISTED,
                "history": {**LISTED, "missing": [], "empty": "keep"},
            },
            "inputs": {
                "user": {"ids": "user", "form": "index"},
                "item": {"ids": "candidates", "form": "each"},
            },
            "ranking": {
                "vocabulary": "items",
                "scores": output,
                "candidates": "candidates",
                "seen": "history",
            },
        },
        {"items": np.arange(1, data.shape[1] + 1), "users": np.arange(1, data.shape[0] + 1)},
        {
            **_judged(data, training, best),
            "parity": check_parity(given, expected),
            "training": {"seconds": round(seconds, 1), "packages": pair_model.packages()},
        },
    )


def train_sequence(data: Interactions, _: Flags) -> Trained:
    """SASRec without each user's last two interactions: one to stop by, one to judge by."""
    from jobs.train_sequence import Plan, fit

    last, before = interactions.last_ones(data), interactions.last_ones(data, 1)
    shape = sequence_model.Shape(data.shape[1])
    began = time.monotonic()
    early, late = (_histories(data, ~last & ~before), _histories(data, ~last))
    seen, judged_by = _blocked(early, shape.items), _one_each(data, before)
    parameters, course = fit(
        shape,
        [one for one in early if len(one) > 1],
        lambda tried: _next_item(tried, early, seen, judged_by)["ndcg_at_10"],
        Plan(),
    )
    seconds = time.monotonic() - began
    model = sequence_model.export(parameters)
    lines = _lines(late, shape.length)
    blocked = _blocked(late, shape.items)
    feeds = {"history": lines, "blocked": blocked, "k": np.array([K])}
    scores, best = session(model).run(["scores", "best"], feeds)
    expected = np.where(blocked, -np.inf, sequence_model.scores(parameters, lines))
    following, everything = _one_each(data, last), np.zeros_like(blocked)
    padded = {"ids": "history", "form": "padded", "newest": shape.length, "pad": 0, "side": "left"}
    return Trained(
        "recommend-sequence",
        model,
        {
            "ids": {"history": LISTED},
            "inputs": {"history": padded, **TOLD},
            "ranking": RANKING,
        },
        {"items": np.arange(1, data.shape[1] + 1)},
        {
            "leave_one_out": _rounded(_next_item(parameters, late, blocked, following)),
            "leave_one_out_of_all": _rounded(_next_item(parameters, late, everything, following)),
            "parity": check_parity((best, scores), expected),
            "training": {"seconds": round(seconds, 1), "epochs": len(course), **asdict(shape)},
        },
        first=1,
    )


def _judged(data: Interactions, training: Flags, best: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Quality on what was held out, beside that of the most popular items."""
    seen, relevant = data.matrix(training), data.matrix(~training) > 0
    return {
        "held_out": _rounded(asdict(judge(best, seen, relevant))),
        "most_popular": _rounded(asdict(judge(most_popular(seen, K), seen, relevant))),
    }


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def _histories(data: Interactions, chosen: Flags) -> list[npt.NDArray[np.int64]]:
    """The items of each user in the order of time."""
    order = np.argsort(data.users[chosen], kind="stable")
    counts = np.bincount(data.users[chosen], minlength=data.shape[0] + 1)[1:]
    return np.split(data.items[chosen][order], np.cumsum(counts)[:-1])


def _one_each(data: Interactions, chosen: Flags) -> npt.NDArray[np.int64]:
    """The item of each user's only chosen interaction, in the order of users."""
    return np.concatenate(_histories(data, chosen))


def _lines(histories: list[npt.NDArray[np.int64]], length: int) -> npt.NDArray[np.int64]:
    """The newest of each history, padded on the left with 0."""
    made = np.zeros((len(histories), length), np.int64)
    for line, history in zip(made, histories, strict=True):
        newest = history[-length:]
        line[length - len(newest) :] = newest
    return made


def _blocked(histories: list[npt.NDArray[np.int64]], items: int) -> npt.NDArray[np.bool_]:
    """Padding and what was seen, `[users, items + 1]`."""
    made = np.zeros((len(histories), items + 1), np.bool_)
    made[:, 0] = True
    for line, history in zip(made, histories, strict=True):
        line[history] = True
    return made


def _next_item(
    parameters: sequence_model.Parameters,
    histories: list[npt.NDArray[np.int64]],
    blocked: Flags,
    following: npt.NDArray[np.int64],
) -> dict[str, float]:
    """Measure by the item that follows each history, among all that are not `blocked`."""
    scores = sequence_model.scores(parameters, _lines(histories, len(parameters["places"])))
    scores[blocked] = -np.inf
    # Index 0 is padding.
    scores[:, 0] = -np.inf
    own = scores[np.arange(len(scores)), following]
    places = (scores > own[:, None]).sum(axis=1)
    hits = places < K
    return {
        "ndcg_at_10": float((hits / np.log2(places + 2)).mean()),
        "hits_at_10": float(hits.mean()),
    }


Trainer = Callable[[Interactions, Flags], Trained]
TRAINERS: dict[str, Trainer] = dict(
    zip(NAMES, (train_ease, train_pairs, train_sequence), strict=True)
)


def main() -> None:
    """Train, export, check and write."""
    parser = argparse.ArgumentParser(prog="python -m jobs.train_recommend", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--generated", action="store_true", help="the generated set, not MovieLens")
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seed", type=int, default=0, help="of the split in training and held out")
    parser.add_argument("--output", type=Path, help="folder of the models (the cache's models)")
    chosen = parser.parse_args()
    data = interactions.generated() if chosen.generated else interactions.load()
    output = chosen.output or interactions.cache() / "models"
    training = interactions.split(data, chosen.seed)
    for name in chosen.models:
        if name == "recommend-sequence" and importlib.util.find_spec("jax") is None:
            print(f"{name} is left out: pip install 'headrace[train-sequence]' brings JAX")
            continue
        try:
            trained = TRAINERS[name](data, training)
        except ToolFailed as reason:
            print(f"{name} is left out: {reason}")
            continue
        print(f"{write(trained, output, data.name)}: {trained.metrics}")


if __name__ == "__main__":
    main()
