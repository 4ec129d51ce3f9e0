"""Lists of indices as the arrays that a model takes: padded, masked, counted, multi-hot."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.model import NUMPY_TYPES, Form, FormSpec, Tensor
from pipeline.ragged import Ragged


def formed(spec: FormSpec, lists: Ragged, tensor: Tensor, size: int) -> npt.NDArray[Any]:
    """The input `[rows, ...]` that `spec` makes of `lists`, whose vocabulary has `size` indices.

    Raises ValueError for EACH, BLOCKED and K, which only a ranking can make.
    """
    kind = NUMPY_TYPES[tensor.kind]
    if spec.newest is not None:
        lists = lists.newest(spec.newest)
    match spec.form:
        case Form.INDEX:
            made = lists.values.astype(kind)
        case Form.LENGTH:
            made = lists.lengths.astype(kind)
        case Form.MULTI_HOT:
            return lists.multi_hot(size, kind)
        case Form.PADDED:
            return lists.padded(spec.pad, _width(lists, tensor), kind, left=spec.left)
        case Form.MASK:
            true = Ragged(np.ones(len(lists.values), kind), lists.offsets)
            return true.padded(0, _width(lists, tensor), kind, left=spec.left)
        case other:
            raise ValueError(f"{other.value} is no form of a list alone")
    return made.reshape(len(lists), *(1 for _ in tensor.shape[1:]))


def _width(lists: Ragged, tensor: Tensor) -> int:
    """The model's own width, or that of the longest list where the model leaves it free."""
    return tensor.width or max(1, int(lists.lengths.max(initial=0)))
