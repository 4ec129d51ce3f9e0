"""What every contender scores: card transactions as JSON, and the model that scores them.

Everything is deterministic: event n is the same in every run, and so is its score.
"""

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer

from benchmarks.model_folder import reference_session, write_version
from benchmarks.task import Task

FEATURES = 30
LAYERS = (FEATURES, 256, 128, 1)
PARTITIONS = 8
KEYS = 5_000
# Distinct feature rows; more would change nothing for the contenders but the time to make them.
DISTINCT = 2_000
FLUSH_SECONDS = 120.0


def feature_rows() -> npt.NDArray[np.float32]:
    """The features that event n takes from row n mod `DISTINCT`, float32 [DISTINCT, FEATURES]."""
    values = np.random.default_rng(1).normal(size=(DISTINCT, FEATURES))
    return values.round(6).astype(np.float32)


def _feature_texts() -> list[bytes]:
    values = np.random.default_rng(1).normal(size=(DISTINCT, FEATURES)).round(6)
    return [json.dumps(row).encode() for row in values.tolist()]


def events(count: int, first: int = 0) -> Iterator[tuple[bytes, bytes, int]]:
    """Key, value (about 350 bytes) and partition of events `first` to `first + count - 1`."""
    texts = _feature_texts()
    for number in range(first, first + count):
        value = b'{"id":%d,"features":%s}' % (number, texts[number % DISTINCT])
        yield b"card-%d" % (number % KEYS), value, number % PARTITIONS


def fill(bootstrap: str, topic: str, count: int, made: Iterator[tuple[bytes, bytes, int]]) -> float:
    """Produce `count` events to a topic of `PARTITIONS` partitions; returns the seconds it took.

    Raises RuntimeError where the broker did not take them all.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": "lz4",
            "linger.ms": 20,
            "acks": "all",
            "queue.buffering.max.messages": 500_000,
        }
    )
    began = time.monotonic()
    for key, value, partition in made:
        while True:
            try:
                producer.produce(topic, value, key, partition)
                break
            except BufferError:
                producer.poll(0.1)
    left = producer.flush(FLUSH_SECONDS)
    if left:
        raise RuntimeError(f"the broker took all but {left} of {count} events: is its disk full?")
    return time.monotonic() - began


def write_model(folder: Path, layers: Sequence[int] = LAYERS) -> Path:
    """Write an MLP of these widths as `folder/mlp/1`; returns `folder/mlp`."""
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    nodes, weights, layer = [], [], "features"
    last = len(layers) - 2
    for number, shape in enumerate(itertools.pairwise(layers)):
        matrix = generator.normal(0, 0.1, shape).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"weight{number}"))
        weights.append(numpy_helper.from_array(np.zeros(shape[1], np.float32), f"bias{number}"))
        inputs = [layer, f"weight{number}", f"bias{number}"]
        nodes.append(helper.make_node("Gemm", inputs, [f"sum{number}"]))
        layer = "probability" if number == last else f"layer{number}"
        kind = "Sigmoid" if number == last else "Relu"
        nodes.append(helper.make_node(kind, [f"sum{number}"], [layer]))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", layers[0]])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", 1])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    text = (
        "inputs:\n  features: {field: features}\n"
        "outputs:\n  probability: {column: score}\n"
        "threshold: {column: score, at_least: 0.5, name: flagged}\n"
    )
    return write_version(folder, "mlp", made.SerializeToString(), text)


def reference_scores(model: Path) -> npt.NDArray[np.float32]:
    """The score of each of the `DISTINCT` feature rows, float32 [DISTINCT]."""
    scores = reference_session(model).run(["probability"], {"features": feature_rows()})[0]
    return np.asarray(scores, np.float32)[:, 0]


CARDS = Task(
    "cards",
    2_000_000,
    events,
    write_model,
    reference_scores,
    "benchmarks.bare_loop",
    latency_seconds=20.0,
)
