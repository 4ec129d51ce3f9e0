"""A model of pairs that knows nothing of the pipeline: Keras trains it and exports it to ONNX."""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs.environment import python_of
from jobs.tools import run_quietly

PROGRAM = Path(__file__).with_name("pair_keras.py")
PINNED = PROGRAM.with_suffix(".txt")
TRAINING_SECONDS = 1_800.0

Matrix = npt.NDArray[np.float32]


def fit(seen: Matrix) -> tuple[bytes, Matrix]:
    """Keras's own export, and what Keras itself gives each pair `[users, items]`.

    The graph takes `user` and `item`, int32 `[pairs, 1]`, and gives one float32 `[pairs, 1]`.
    Raises ToolFailed, also where the environment (1 GB, made the first time) cannot be had.
    """
    python = python_of("pair-keras", PINNED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "seen.npy", seen)
        program = [str(python), str(PROGRAM), str(folder / "seen.npy"), str(folder)]
        run_quietly(program, TRAINING_SECONDS)
        return (folder / "model.onnx").read_bytes(), np.load(folder / "scores.npy")


def packages() -> list[str]:
    """What trains and exports, with versions."""
    ours = ("keras==", "tensorflow", "tf2onnx==")
    return [line for line in PINNED.read_text().splitlines() if line.startswith(ours)]
