"""The workload of the Crayfish benchmark (EDBT 2024): images of 784 numbers as JSON, a small FFNN.

Everything is deterministic: event n is the same in every run, and so are its scores.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.model_folder import reference_session, write_version
from benchmarks.task import Task
from benchmarks.workload import DISTINCT, KEYS, PARTITIONS

FEATURES = 784
FILE = Path(__file__).parent / "model-ffnn.onnx"


def images() -> npt.NDArray[np.float32]:
    """The image that event n takes from row n mod `DISTINCT`, float32 [DISTINCT, FEATURES]."""
    return np.random.default_rng(1).random((DISTINCT, FEATURES), np.float32)


def events(count: int, first: int = 0) -> Iterator[tuple[bytes, bytes, int]]:
    """Key, value (about 8,300 bytes) and partition of events `first` to `first + count - 1`."""
    # As Java and Python write a float: the fewest digits that lead back to it.
    texts = [",".join(map(str, row)).encode() for row in images()]
    for number in range(first, first + count):
        value = b'{"id":%d,"features":[%s]}' % (number, texts[number % DISTINCT])
        yield b"image-%d" % (number % KEYS), value, number % PARTITIONS


def write_model(folder: Path) -> Path:
    """Copy the network to `folder/ffnn/1`; returns `folder/ffnn`."""
    text = "inputs:\n  input: {field: features}\noutputs:\n  output: {column: scores}\n"
    return write_version(folder, "ffnn", FILE.read_bytes(), text)


def reference(model: Path) -> npt.NDArray[np.float32]:
    """The mean of the ten scores of each of the `DISTINCT` images, float32 [DISTINCT]."""
    feeds = {"input": images()[:, np.newaxis, :]}
    scores = reference_session(model).run(["output"], feeds)[0]
    return np.asarray(scores.mean(axis=1), np.float32)


CRAYFISH = Task(
    "crayfish", 200_000, events, write_model, reference, suffix="-crayfish", latency_seconds=20.0
)
