"""Lists of indices as inputs: each form has the shape and the type that the model takes."""

from typing import Any

import numpy as np
import pytest

from pipeline.forms import formed
from pipeline.model import Form, FormSpec, Tensor
from pipeline.ragged import Ragged, ones

LISTS = Ragged.of_lengths(np.array([4, 5, 6, 2]), np.array([3, 0, 1]))
SIZE = 8


@pytest.mark.parametrize(
    ("spec", "tensor", "expected"),
    [
        (FormSpec("x", Form.LENGTH), Tensor("int64", (None,)), [3, 0, 1]),
        (FormSpec("x", Form.LENGTH, newest=2), Tensor("float", (None, 1)), [[2.0], [0.0], [1.0]]),
        (
            FormSpec("x", Form.PADDED, newest=2),
            Tensor("int32", (None, None)),
            [[5, 6], [0, 0], [0, 2]],
        ),
        (
            FormSpec("x", Form.PADDED, newest=3, pad=7, left=False),
            Tensor("int64", (None, 4)),
            [[4, 5, 6, 7], [7, 7, 7, 7], [2, 7, 7, 7]],
        ),
        (
            FormSpec("x", Form.MASK, newest=2, left=False),
            Tensor("bool", (None, None)),
            [[True, True], [False, False], [True, False]],
        ),
        (
            FormSpec("x", Form.MULTI_HOT, newest=2),
            Tensor("float", (None, SIZE)),
            [[0, 0, 0, 0, 0, 1, 1, 0], [0] * SIZE, [0, 0, 1, 0, 0, 0, 0, 0]],
        ),
    ],
)
def test_lists_take_their_form(spec: FormSpec, tensor: Tensor, expected: list[Any]) -> None:
    """Values, shape and type are those that the form says, whatever the lengths are."""
    made = formed(spec, LISTS, tensor, SIZE)
    assert made.tolist() == expected
    assert made.dtype == {"int32": np.int32, "int64": np.int64, "float": np.float32}.get(
        tensor.kind, np.bool_
    )


@pytest.mark.parametrize(("shape", "expected"), [((None,), [3, 1]), ((None, 1), [[3], [1]])])
def test_one_id_fills_a_vector_or_a_column(shape: Any, expected: list[Any]) -> None:
    """A single id is a value for each record, in the axes that the model has."""
    made = formed(FormSpec("x", Form.INDEX), ones(np.array([3, 1])), Tensor("int64", shape), SIZE)
    assert made.tolist() == expected


def test_all_empty_lists_still_have_a_place() -> None:
    """A batch of empty lists is padding of width one, as no model takes a width of zero."""
    empty = Ragged.of_lengths(np.empty(0, np.int64), np.array([0, 0]))
    made = formed(FormSpec("x", Form.PADDED, newest=5), empty, Tensor("int64", (None, None)), SIZE)
    assert made.tolist() == [[0], [0]]


@pytest.mark.parametrize("form", [Form.EACH, Form.BLOCKED, Form.K])
def test_what_only_a_ranking_makes_is_no_form_of_a_list(form: Form) -> None:
    """Asking for it is a mistake of ours, and says so."""
    with pytest.raises(ValueError, match="no form of a list alone"):
        formed(FormSpec("x", form), LISTS, Tensor("int64", (None,)), SIZE)
