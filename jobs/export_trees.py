"""A blend of tree ensembles and one linear model as a single ONNX graph.

The graph computes, for `features` float32 [N, F],

    probability = sigmoid(mean over members of member logit)          float32 [N, 1]
    logit of an ensemble with mean leaf value p:  log(p + e) - log(1 - p + e), e = SMOOTHING
    logit of the linear model: clip(w . clip((x - mean) / scale, +-CLIP) + bias, +-log(1 / e))

`e` bounds every member's logit alike, so that none outvotes the others by being certain.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

SMOOTHING = 1e-4
CLIP = 10.0  # standard deviations: what lies beyond is an outlier in its size, not in its sign
BOUND = float(np.log(1 / SMOOTHING))

# The oldest versions that say all of this, so that any ONNX Runtime in use reads the file.
_OPSETS = {"": 17, "ai.onnx.ml": 3}
_IR_VERSION = 8


@dataclass(frozen=True, slots=True)
class Linear:
    """Weights of a linear model over standardised, clipped features; arrays are float64 [F]."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: float


def floor_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round down to float32, so that `x <= value` keeps its answer for every float32 x.

    scikit-learn compares float32 features with float64 thresholds; rounding to nearest would
    let rows that lie between a threshold and its rounded value change sides.
    """
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
        below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > values, below, nearest)


def blend(ensembles: Sequence[Sequence[Any]], linear: Linear) -> onnx.ModelProto:
    """Build the graph of the module's docstring.

    Each ensemble is a sequence of fitted binary scikit-learn trees (`DecisionTreeClassifier`,
    `ExtraTreeClassifier`) that count equally; each ensemble and `linear` count equally too.
    """
    constants = {
        "mean": linear.mean,
        "inverse_scale": 1 / linear.scale,
        "weights": linear.weights[:, None],
        "bias": np.array([linear.bias]),
        "low": np.array(-CLIP),
        "high": np.array(CLIP),
        "lowest_logit": np.array(-BOUND),
        "highest_logit": np.array(BOUND),
        "smoothing": np.array(SMOOTHING),
        "one_smoothed": np.array(1 + SMOOTHING),
    }
    nodes = [
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "inverse_scale"], ["standard"]),
        helper.make_node("Clip", ["standard", "low", "high"], ["clipped"]),
        helper.make_node("Gemm", ["clipped", "weights", "bias"], ["linear"]),
        helper.make_node("Clip", ["linear", "lowest_logit", "highest_logit"], ["linear_logit"]),
    ]
    logits = ["linear_logit"]
    for index, trees in enumerate(ensembles):
        nodes += [
            _ensemble(trees, f"mean_leaf_{index}"),
            *_smoothed_logit(f"mean_leaf_{index}", f"logit_{index}"),
        ]
        logits.append(f"logit_{index}")
    nodes += [
        helper.make_node("Mean", logits, ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "blend",
        [_float_matrix("features", linear.mean.size)],
        [_float_matrix("probability", 1)],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    model = helper.make_model(
        graph,
        producer_name="headrace",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid(*item) for item in _OPSETS.items()],
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _float_matrix(name: str, columns: int) -> Any:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", columns])


def _smoothed_logit(probability: str, result: str) -> list[Any]:
    """Nodes for log(p + e) - log(1 + e - p)."""
    return [
        helper.make_node("Add", [probability, "smoothing"], [f"{result}_for"]),
        helper.make_node("Sub", ["one_smoothed", probability], [f"{result}_against"]),
        helper.make_node("Log", [f"{result}_for"], [f"{result}_log_for"]),
        helper.make_node("Log", [f"{result}_against"], [f"{result}_log_against"]),
        helper.make_node("Sub", [f"{result}_log_for", f"{result}_log_against"], [result]),
    ]


def _ensemble(trees: Iterable[Any], result: str) -> Any:
    """One TreeEnsembleRegressor that averages the share of class 1 in each tree's leaf."""
    columns: dict[str, list[NDArray[Any]]] = {}
    leaves: dict[str, list[NDArray[Any]]] = {}
    for number, estimator in enumerate(trees):
        tree = estimator.tree_
        node = np.arange(tree.node_count)
        is_leaf = tree.children_left < 0
        shares = tree.value[:, 0, 1] / tree.value[:, 0].sum(axis=1)
        for name, column in {
            "nodes_treeids": np.full_like(node, number),
            "nodes_nodeids": node,
            "nodes_featureids": np.where(is_leaf, 0, tree.feature),
            "nodes_values": np.where(is_leaf, np.float32(0), floor_float32(tree.threshold)),
            "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ"),
            "nodes_truenodeids": np.where(is_leaf, 0, tree.children_left),
            "nodes_falsenodeids": np.where(is_leaf, 0, tree.children_right),
        }.items():
            columns.setdefault(name, []).append(column)
        for name, column in {
            "target_treeids": np.full(is_leaf.sum(), number),
            "target_nodeids": node[is_leaf],
            "target_ids": np.zeros(is_leaf.sum(), dtype=np.int64),
            "target_weights": shares[is_leaf].astype(np.float32),
        }.items():
            leaves.setdefault(name, []).append(column)
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        [result],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="AVERAGE",
        **{name: np.concatenate(parts).tolist() for name, parts in (columns | leaves).items()},
    )
