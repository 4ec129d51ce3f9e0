"""What is scored in a comparison: the events, the model, and the numbers that must come out.

Everything is deterministic: event n is the same in every run, and so is its score.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Task:
    """One workload of the benchmark; its results go to `results{suffix}.md`.

    `events(count, first)` gives key, value and partition of events by their number, which is their
    `id`. `write_model(folder)` writes a model folder, `reference(model)` gives the number that
    event n must have at place n modulo its length: its score, or the mean score of its list.
    `loop` is the module of the hand-written loop, empty where there is none. Latency is measured
    for `latency_seconds` of each contender, not at all where it is 0.
    """

    name: str
    records: int
    events: Callable[[int, int], Iterator[tuple[bytes, bytes, int]]]
    write_model: Callable[[Path], Path]
    reference: Callable[[Path], npt.NDArray[np.float32]]
    loop: str = ""
    suffix: str = ""
    latency_seconds: float = 0.0
