"""How the time of a recommendation grows with the catalogue: `python -m benchmarks.catalogue`.

An embedding model on one thread, in one process and without Kafka: the mean of a history's
embeddings against those of all items, the best ten. Three graphs give the same lists: one that is
told what is blocked, one that is asked for as many more, and one whose item embeddings are int8.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper

from jobs.ease import model, tensor
from pipeline.edges.onnx import OnnxModel
from pipeline.model import FieldSpec, Form, FormSpec, IdSpec, ModelSpec, RankingSpec
from pipeline.ragged import Ragged
from pipeline.ranking import Ranker, Rules
from pipeline.vocabulary import Vocabulary

WIDTH = 64
HISTORY = 50
K = 10
SIZES = (1_000, 10_000, 100_000)
BATCHES = (1, 16, 256)
SECONDS = 0.5
GRAPHS = ("blocks in the graph", "asked for more", "asked for more, int8")


def graph(kind: str, items: int) -> bytes:
    """One of GRAPHS with random embeddings."""
    table = np.random.default_rng(0).normal(0, 1, (items, WIDTH)).astype(np.float32)
    inputs = [
        tensor("history", TensorProto.INT64, ["batch", "length"]),
        tensor("mask", TensorProto.FLOAT, ["batch", "length"]),
        tensor("k", TensorProto.INT64, [1]),
    ]
    constants: dict[str, Any] = {"table": table, "one": np.array([1]), "two": np.array([2])}
    nodes = [
        helper.make_node("Gather", ["table", "history"], ["each"]),
        helper.make_node("Unsqueeze", ["mask", "two"], ["wide"]),
        helper.make_node("Mul", ["each", "wide"], ["known"]),
        helper.make_node("ReduceMean", ["known"], ["person"], axes=[1], keepdims=0),
    ]
    if kind.endswith("int8"):
        scale = np.float32(np.abs(table).max() / 127)
        constants |= {"scale": scale, "items": np.round(table.T / scale).astype(np.int8)}
        nodes += [
            helper.make_node("DynamicQuantizeLinear", ["person"], ["small", "step", "zero"]),
            helper.make_node("MatMulInteger", ["small", "items", "zero"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["sums"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["step", "scale"], ["unit"]),
            helper.make_node("Mul", ["sums", "unit"], ["all"]),
        ]
    else:
        constants["items"] = np.ascontiguousarray(table.T)
        nodes.append(helper.make_node("MatMul", ["person", "items"], ["all"]))
    source = "all"
    if kind == GRAPHS[0]:
        constants["never"] = np.float32(-np.inf)
        inputs.append(tensor("blocked", TensorProto.BOOL, ["batch", items]))
        nodes.append(helper.make_node("Where", ["blocked", "never", "all"], ["offered"]))
        source = "offered"
    nodes.append(helper.make_node("TopK", [source, "k"], ["scores", "best"], axis=1))
    outputs = [
        tensor("scores", TensorProto.FLOAT, ["batch", None]),
        tensor("best", TensorProto.INT64, ["batch", None]),
    ]
    made = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return model("embeddings", nodes, inputs, outputs, made)


def ranker(kind: str, items: int) -> Ranker:
    """The graph as a replica ranks with it."""
    vocabulary = Vocabulary("items", pa.array(np.arange(items)))
    forms = [
        FormSpec("history", Form.PADDED, "history", HISTORY),
        FormSpec("mask", Form.MASK, "history", HISTORY),
        FormSpec("k", Form.K),
    ]
    forms += [FormSpec("blocked", Form.BLOCKED)] if kind == GRAPHS[0] else []
    spec = ModelSpec(
        name="catalogue",
        version="1",
        sha256="",
        inputs=(),
        outputs=(),
        ids=(IdSpec("history", FieldSpec("history"), vocabulary, many=True),),
        forms=tuple(forms),
        ranking=RankingSpec(vocabulary, "scores", "best", "history"),
    )
    onnx = OnnxModel(graph(kind, items), spec.wanted_outputs)
    return Ranker(onnx, spec, onnx.signature, Rules(K, True, np.zeros(items, np.bool_)))


def histories(items: int, rows: int) -> Ragged:
    """Random ones of HISTORY ids each."""
    drawn: npt.NDArray[Any] = np.random.default_rng(1).integers(0, items, rows * HISTORY)
    return Ragged.of_lengths(drawn, np.full(rows, HISTORY))


def micros(one: Ranker, lists: Ragged) -> float:
    """µs of CPU a record: the best of the runs that fit into half a second, two at least."""
    best, ends = float("inf"), time.monotonic() + SECONDS
    runs = 0
    while runs < 2 or time.monotonic() < ends:
        began = time.process_time()
        one.run({"history": lists})
        best, runs = min(best, time.process_time() - began), runs + 1
    return 1e6 * best / len(lists)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print two Markdown tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalogue", description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=SIZES, help="catalogue sizes")
    chosen = parser.parse_args(arguments)
    print("| items | " + " | ".join(GRAPHS) + " |\n" + "|---" * 4 + "|")
    for items in chosen.items:
        lists = histories(items, 256)
        cells = [f"{micros(ranker(kind, items), lists):,.0f}" for kind in GRAPHS]
        print(f"| {items:,} | " + " | ".join(cells) + " |", flush=True)
    items = max(chosen.items)
    print(f"\n| records a batch, {items:,} items | {GRAPHS[1]} |\n|---|---|")
    one = ranker(GRAPHS[1], items)
    for rows in BATCHES:
        print(f"| {rows} | {micros(one, histories(items, rows)):,.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    main()
