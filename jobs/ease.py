"""EASE: the best linear item-to-item model in closed form, and its ONNX graph.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, checker, helper, numpy_helper

# What ../shared/data/NOTICE.md measured with; cross-validation inside the training part agrees.
REGULARISATION = 400.0
OPSET = 17
IR_VERSION = 9

Matrix = npt.NDArray[np.float64]


def fit(interactions: npt.ArrayLike, regularisation: float = REGULARISATION) -> Matrix:
    """Weights [items, items] from a 0/1 matrix [users, items]; the diagonal is zero."""
    seen = np.asarray(interactions, np.float64)
    gram = seen.T @ seen
    gram[np.diag_indices_from(gram)] += regularisation
    inverse = np.linalg.inv(gram)
    weights: Matrix = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


def export(weights: Matrix) -> bytes:
    """The graph that ranks: histories and blocks [batch, items], k [1] to items and scores."""
    items = len(weights)
    constants = [
        numpy_helper.from_array(weights.astype(np.float32), "weights"),
        numpy_helper.from_array(np.array(-np.inf, np.float32), "never"),
    ]
    nodes = [
        helper.make_node("MatMul", ["history", "weights"], ["all_scores"]),
        helper.make_node("Where", ["blocked", "never", "all_scores"], ["offered"]),
        helper.make_node("TopK", ["offered", "k"], ["scores", "best"], axis=1),
    ]
    inputs = [
        tensor("history", TensorProto.FLOAT, ["batch", items]),
        tensor("blocked", TensorProto.BOOL, ["batch", items]),
        tensor("k", TensorProto.INT64, [1]),
    ]
    outputs = [
        tensor("scores", TensorProto.FLOAT, ["batch", None]),
        tensor("best", TensorProto.INT64, ["batch", None]),
    ]
    return model("ease", nodes, inputs, outputs, constants)


def tensor(name: str, kind: int, shape: list[Any]) -> Any:
    """An input or an output of a graph."""
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]
) -> bytes:
    """A checked graph as the bytes of an ONNX file."""
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString())
