"""SASRec: self-attention over what somebody did lately, scores for what comes next.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, with the softmax over all
items that later work found better than sampled negatives (Klenitskiy and Vasilev, RecSys 2023).
`forward` is written once, in the functions that NumPy and JAX share: JAX trains it (the extra
`train-sequence`), and NumPy says what the ONNX graph must give.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from jobs.ease import model, tensor

Parameters: TypeAlias = dict[str, Any]
# Added to what attention must not see; e^-1e9 is 0 in float32.
HIDDEN = -1e9
EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Shape:
    """Items without the one of index 0, which is padding; all else as in the paper, one head."""

    items: int
    length: int = 50
    width: int = 64
    blocks: int = 2


def initial(shape: Shape, seed: int) -> Parameters:
    """Random parameters, float32."""
    generator = np.random.default_rng(seed)

    def normal(*size: int, scale: float = 0.02) -> npt.NDArray[np.float32]:
        return generator.normal(0, scale, size).astype(np.float32)

    width = shape.width
    made: Parameters = {
        "items": normal(shape.items + 1, width),
        "places": normal(shape.length, width),
        "last.gain": np.ones(width, np.float32),
        "last.shift": np.zeros(width, np.float32),
    }
    for block in range(shape.blocks):
        for name in ("query", "key", "value", "inner", "outer"):
            made[f"{block}.{name}"] = normal(width, width, scale=1 / math.sqrt(width))
        for name in ("first", "second"):
            made[f"{block}.{name}.gain"] = np.ones(width, np.float32)
            made[f"{block}.{name}.shift"] = np.zeros(width, np.float32)
        made[f"{block}.inner.bias"] = np.zeros(width, np.float32)
        made[f"{block}.outer.bias"] = np.zeros(width, np.float32)
    return made


def forward(
    parameters: Parameters, sequences: Any, xp: Any = np, drop: Any = lambda values: values
) -> Any:
    """The state after each place, `[batch, length, width]`, of sequences padded on the left with 0.

    `xp` is numpy or jax.numpy; `drop` is the dropout of training. A sequence may be shorter than
    the model's length: places are counted from its end.
    """
    length = sequences.shape[1]
    width = parameters["items"].shape[1]
    known = sequences != 0
    states = parameters["items"][sequences] * math.sqrt(width)
    states = drop(states + parameters["places"][-length:]) * known[..., None]
    # A place sees itself and what stands before it, but no padding; the first of all padding
    # sees only itself, so that nothing is divided by zero.
    before = xp.tril(xp.ones((length, length), bool))
    seen = (before & known[:, None, :]) | xp.eye(length, dtype=bool)
    mask = xp.where(seen, 0.0, HIDDEN).astype(np.float32)
    blocks = sum(name.endswith(".query") for name in parameters)
    for block in range(blocks):
        one = {k.partition(".")[2]: v for k, v in parameters.items() if k.startswith(f"{block}.")}
        normed = _normalised(xp, states, one["first.gain"], one["first.shift"])
        query, key, value = normed @ one["query"], states @ one["key"], states @ one["value"]
        logits = query @ xp.swapaxes(key, 1, 2) / math.sqrt(width) + mask
        logits = logits - logits.max(axis=-1, keepdims=True)
        weights = xp.exp(logits)
        weights = weights / weights.sum(axis=-1, keepdims=True)
        states = states + drop(weights @ value)
        normed = _normalised(xp, states, one["second.gain"], one["second.shift"])
        inner = xp.maximum(normed @ one["inner"] + one["inner.bias"], 0.0)
        states = (states + drop(drop(inner) @ one["outer"] + one["outer.bias"])) * known[..., None]
    return _normalised(xp, states, parameters["last.gain"], parameters["last.shift"])


def _normalised(xp: Any, values: Any, gain: Any, shift: Any) -> Any:
    centred = values - values.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / xp.sqrt(variance + np.float32(EPSILON)) * gain + shift


def scores(parameters: Parameters, sequences: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The score of each index, `[batch, items + 1]`, by NumPy."""
    last = forward(parameters, sequences)[:, -1]
    return np.asarray(last @ parameters["items"].T, np.float32)


class _Graph:
    """Collects nodes; each method adds one and names what it gives."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def normalised(self, values: str, parameters: Parameters, name: str) -> str:
        gain, shift = (self.constant(parameters[f"{name}.{part}"]) for part in ("gain", "shift"))
        return self.add("LayerNormalization", values, gain, shift, epsilon=EPSILON)


def export(parameters: Parameters) -> bytes:
    """The graph that ranks: sequences `[batch, length]` of any length up to the model's.

    Beside them `blocked` `[batch, items + 1]` and `k` `[1]`; gives `scores` and `best`.
    """
    graph = _Graph()
    add, constant = graph.add, graph.constant
    table = constant(parameters["items"])
    width = parameters["items"].shape[1]
    zero, one, axis2 = (
        constant(np.array([0], np.int64)),
        constant(np.array([1], np.int64)),
        constant(np.array([2], np.int64)),
    )
    known = add("Not", add("Equal", "history", constant(np.int64(0))))
    live = add("Unsqueeze", add("Cast", known, to=TensorProto.FLOAT), axis2)
    length = add("Shape", "history", start=1, end=2)
    most = constant(np.array([len(parameters["places"])], np.int64))
    places = add("Slice", constant(parameters["places"]), add("Sub", most, length), most, zero)
    states = add("Mul", add("Gather", table, "history"), constant(np.float32(math.sqrt(width))))
    states = add("Mul", add("Add", states, places), live)
    square = add("Concat", length, length, axis=0)
    ones = add("ConstantOfShape", square, value=numpy_helper.from_array(np.ones(1, np.float32)))
    before = add("Cast", add("Trilu", ones, upper=0), to=TensorProto.BOOL)
    itself = add("Cast", add("EyeLike", ones, dtype=TensorProto.FLOAT), to=TensorProto.BOOL)
    seen = add("Or", add("And", before, add("Unsqueeze", known, one)), itself)
    mask = add("Where", seen, constant(np.float32(0)), constant(np.float32(HIDDEN)))
    scale = constant(np.float32(1 / math.sqrt(width)))
    for block in range(sum(name.endswith(".query") for name in parameters)):
        normed = graph.normalised(states, parameters, f"{block}.first")
        query = add("MatMul", normed, constant(parameters[f"{block}.query"]))
        key = add("MatMul", states, constant(parameters[f"{block}.key"]))
        value = add("MatMul", states, constant(parameters[f"{block}.value"]))
        logits = add("MatMul", query, add("Transpose", key, perm=[0, 2, 1]))
        logits = add("Add", add("Mul", logits, scale), mask)
        states = add("Add", states, add("MatMul", add("Softmax", logits, axis=-1), value))
        normed = graph.normalised(states, parameters, f"{block}.second")
        inner = add("MatMul", normed, constant(parameters[f"{block}.inner"]))
        inner = add("Relu", add("Add", inner, constant(parameters[f"{block}.inner.bias"])))
        outer = add("MatMul", inner, constant(parameters[f"{block}.outer"]))
        outer = add("Add", outer, constant(parameters[f"{block}.outer.bias"]))
        states = add("Mul", add("Add", states, outer), live)
    # Only the last place is asked for.
    last = add("Gather", states, constant(np.int64(-1)), axis=1)
    last = graph.normalised(last, parameters, "last")
    everything = add("MatMul", last, constant(np.ascontiguousarray(parameters["items"].T)))
    offered = add("Where", "blocked", constant(np.float32(-np.inf)), everything)
    graph.nodes.append(helper.make_node("TopK", [offered, "k"], ["scores", "best"], axis=1))
    size = len(parameters["items"])
    return model(
        "sasrec",
        graph.nodes,
        [
            tensor("history", TensorProto.INT64, ["batch", "length"]),
            tensor("blocked", TensorProto.BOOL, ["batch", size]),
            tensor("k", TensorProto.INT64, [1]),
        ],
        [
            tensor("scores", TensorProto.FLOAT, ["batch", None]),
            tensor("best", TensorProto.INT64, ["batch", None]),
        ],
        graph.constants,
    )
