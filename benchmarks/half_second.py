"""A recipe whose replicas take half a second for a batch of any size, from decoding to rows.

They wait for most of it, so that as many of them as on machines of their own fit on a small one.
The module imports nothing of this folder, because it travels to the replicas by value.
"""

import time
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.model import ModelFiles, Signature
from pipeline.recipe import Decoded, Recipe, Values

SECONDS = 0.5


def recipe(_files: ModelFiles, signature: Signature) -> Recipe:
    """Read nothing of an event, and wait."""
    ((name, tensor),) = signature.inputs.items()
    assert tensor.width is not None
    width = tensor.width
    due = 0.0

    def decode(values: Values) -> Decoded:
        nonlocal due
        due = time.monotonic() + SECONDS
        return Decoded(range(len(values)), np.arange(len(values)), ())

    def feeds(events: Any) -> dict[str, Any]:
        return {name: np.zeros((len(events), width), np.float32)}

    def rows(_events: Any, outputs: dict[str, Any]) -> dict[str, Any]:
        time.sleep(max(0.0, due - time.monotonic()))
        (scores,) = outputs.values()
        return {"score": scores[:, 0]}

    return Recipe(decode, feeds, rows, (pa.field("score", pa.float32()),))
