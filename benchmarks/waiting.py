"""Recipes whose replicas take a known time and no processor: they wait instead of computing.

What they do beside it, and what a busy machine adds to their sleep, is part of the known time: so
many of them on a small machine score what as many would on machines of their own. The module
imports nothing of this folder, because it travels to the replicas by value.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.capacity import ServiceTime
from pipeline.model import ModelFiles, Signature
from pipeline.recipe import Decoded, Recipe

# Of a batch of 32: a third of a second, and so 100 records per second.
SERVICE = ServiceTime(0.080, 0.0075)
# What comes so soon after the batch before it was there already, and Ray was bringing it.
AT_ONCE_SECONDS = 0.08
# What a replica waits before it is ready, beside what Ray takes.
START_SECONDS = 10.0
HALF_SECOND = 0.5


def recipe(_files: ModelFiles, signature: Signature) -> Recipe:
    """Wait as long as a cold start takes; its batches then wait as long as `SERVICE` says."""
    time.sleep(START_SECONDS)
    due = 0.0

    def end(rows: int) -> float:
        nonlocal due
        now = time.monotonic()
        due = (due if now - due < AT_ONCE_SECONDS else now) + SERVICE.seconds(rows)
        return due

    return _waiting(signature, end)


def half_second(_files: ModelFiles, signature: Signature) -> Recipe:
    """Half a second for a batch of any size, from its decoding to its rows."""
    return _waiting(signature, lambda _: time.monotonic() + HALF_SECOND)


def _waiting(signature: Signature, end: Callable[[int], float]) -> Recipe:
    """Wait with each batch until `end` of its rows, by the monotonic clock, asked at its begin."""
    ((name, tensor),) = signature.inputs.items()
    assert tensor.width is not None
    width = tensor.width
    due = 0.0

    def decode(values: pa.Array) -> Decoded:
        nonlocal due
        due = end(len(values))
        return Decoded([b""] * len(values), np.arange(len(values)), ())

    def feeds(events: Any) -> dict[str, Any]:
        return {name: np.zeros((len(events), width), np.float32)}

    def rows(_events: Any, outputs: dict[str, Any]) -> dict[str, Any]:
        time.sleep(max(0.0, due - time.monotonic()))
        (scores,) = outputs.values()
        return {"score": scores[:, 0]}

    return Recipe(decode, feeds, rows, (pa.field("score", pa.float32()),))
