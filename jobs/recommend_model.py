"""A trained recommender on its way to a model folder: compared with its library, then written."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import yaml

from jobs.interactions import MOVIELENS

ROOT = Path(__file__).resolve().parents[1]
VERSION = "1"  # the program is the version: the same data gives the same model
PARITY_SHARE, PARITY = 0.999, 1e-5
PACKAGES = ("numpy", "onnx", "onnxruntime", "scikit-learn")
Lists = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Trained:
    """One model: its graph, what model.yaml says of it, the ids of its indices from `first` on."""

    name: str
    model: bytes
    content: Mapping[str, Any]
    vocabularies: Mapping[str, npt.NDArray[np.int64]]
    metrics: Mapping[str, Any]
    first: int = 0


def session(model: bytes) -> Any:
    """The model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def check_parity(given: Lists, expected: npt.NDArray[np.float64]) -> dict[str, float]:
    """Compare a graph's best items and scores `[users, K]` with all scores `[users, items]`.

    What may not be recommended has -inf. Raises ValueError where fewer than PARITY_SHARE of the
    lists are equal, or a score is further away than PARITY.
    """
    best, scores = given
    order = np.argsort(-expected, axis=1, kind="stable")[:, : best.shape[1]]
    equal = float((best == order).all(axis=1).mean())
    away = float(np.abs(np.take_along_axis(expected, best, axis=1) - scores).max())
    if equal < PARITY_SHARE or away > PARITY:
        raise ValueError(
            f"the exported model differs: {equal:.2%} of the lists are equal, scores by {away:.1e};"
            f" allowed are {PARITY_SHARE:.1%} and {PARITY}"
        )
    return {"equal_lists": round(equal, 5), "largest_difference": float(f"{away:.1e}")}


def write(trained: Trained, output: Path, data: str) -> Path:
    """Write a version's folder below `output`, trained on what `data` names; returns the model's.

    Raises ValueError for a model of MovieLens in the repository.
    """
    folder = output.resolve() / trained.name / VERSION
    if folder.is_relative_to(ROOT) and data == MOVIELENS:
        raise ValueError(
            f"{folder} lies in the repository, and what is made of {data} may not be "
            "redistributed: name an --output elsewhere, or train with --generated"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(trained.model)
    vocabularies = {}
    for name, ids in trained.vocabularies.items():
        content = "".join(f"{one}\n" for one in ids.tolist()).encode()
        (folder / f"{name}.txt").write_bytes(content)
        vocabularies[name] = {
            "file": f"{name}.txt",
            "type": "int64",
            "sha256": hashlib.sha256(content).hexdigest(),
            "first": trained.first,
        }
    manifest = {
        "sha256": hashlib.sha256(trained.model).hexdigest(),
        "vocabularies": vocabularies,
        **trained.content,
        "metrics": {
            "data": data,
            **trained.metrics,
            "versions": {
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in PACKAGES},
            },
        },
    }
    text = yaml.safe_dump(manifest, sort_keys=False, default_flow_style=None, width=100)
    (folder / "model.yaml").write_text(text)
    return folder.parent
