"""The ONNX edge against ONNX Runtime itself: signatures, kinds of inputs and outputs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.batch import Batch, Partition, Span
from pipeline.decode import DECODERS
from pipeline.edges.onnx import CUDA, RUN_ROWS, OnnxModel
from pipeline.errors import ConfigInvalid
from pipeline.model import FieldSpec, InputSpec, ModelSpec, OutputSpec, Signature, Tensor
from pipeline.recipe import signature_recipe
from pipeline.schema import job_schema
from pipeline.score import Scorer
from pipeline.signature import check_signature

KINDS = {
    "float": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}


def built(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: Any = ()) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def info(name: str, kind: str, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, KINDS[kind], shape)


def identity(kind: str, shape: list[Any]) -> bytes:
    node = helper.make_node("Identity", ["x"], ["y"])
    return built([node], [info("x", kind, shape)], [info("y", kind, shape)])


def one_batch(*values: bytes) -> Batch:
    rows = len(values)
    return Batch(
        id=1,
        spans=(Span(Partition("t", 0), 0, rows, rows),),
        offsets=pa.array(range(rows), pa.int64()),
        timestamps=pa.array([0] * rows, pa.int64()),
        keys=pa.nulls(rows, pa.binary()),
        values=pa.array(values, pa.binary()),
    )


def scored_rows(model: OnnxModel, spec: ModelSpec, *values: bytes) -> list[dict[str, Any]]:
    """Score through the recipe of the signature; rows must agree with the predictions."""
    assert check_signature(spec, model.signature) == []
    recipe = signature_recipe(spec, model.signature, {}, DECODERS["json"])
    made = Scorer(recipe, model, job_schema(recipe.fields), name="m", version="1")
    scored = made.score(one_batch(*values))
    assert not scored.rejects
    scored.rows.validate(full=True)
    own = [field.name for field in recipe.fields]
    predictions = [json.loads(line) for line in scored.predictions.to_pylist()]
    rows: list[dict[str, Any]] = scored.rows.select(own).to_pylist()
    assert len(rows) == len(predictions)
    return rows


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("float", [1.5, -2.0]),
        ("double", [1.1, 2.2]),
        ("int32", [1, -2]),
        ("int64", [2**62, -2]),
        ("bool", [True, False]),
        ("string", ["x", "é"]),
    ],
)
@pytest.mark.parametrize("shape", [["batch"], ["batch", 1]])
def test_every_kind_goes_in_and_comes_out(kind: str, values: list[Any], shape: list[Any]) -> None:
    """Scalars of each supported kind pass from JSON through the model to rows unchanged."""
    model = OnnxModel(identity(kind, shape))
    assert model.signature.inputs["x"] == Tensor(kind, (None, *shape[1:]))
    field = InputSpec("x", (FieldSpec("a"),), stacked=False)
    spec = ModelSpec("m", "1", "", (field,), (OutputSpec("y", "out"),))
    rows = scored_rows(model, spec, *(json.dumps({"a": value}).encode() for value in values))
    assert [row["out"] for row in rows] == values


def test_vectors_go_in_and_come_out() -> None:
    """A JSON array feeds a vector, and a vector comes back as a list."""
    model = OnnxModel(identity("float", ["batch", 3]))
    field = InputSpec("x", (FieldSpec("v"),), stacked=False)
    outputs = (OutputSpec("y", "all"), OutputSpec("y", "last", 2))
    rows = scored_rows(model, ModelSpec("m", "1", "", (field,), outputs), b'{"v": [1, 2.5, 3]}')
    assert rows == [{"all": [1.0, 2.5, 3.0], "last": 3.0}]


def test_several_inputs_feed_one_model() -> None:
    """A model with two inputs gets each from its own fields."""
    node = helper.make_node("Add", ["a", "b"], ["sum"])
    inputs = [info("a", "float", ["n", 2]), info("b", "float", ["n", 1])]
    model = OnnxModel(built([node], inputs, [info("sum", "float", ["n", 2])]))
    spec = ModelSpec(
        "m", "1", "",
        (
            InputSpec("a", (FieldSpec("p"), FieldSpec("q")), stacked=True),
            InputSpec("b", (FieldSpec("r"),), stacked=False),
        ),
        (OutputSpec("sum", "sum"),),
    )  # fmt: skip
    assert scored_rows(model, spec, b'{"p": 1, "q": 2, "r": 10}') == [{"sum": [11.0, 12.0]}]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"]])
def test_classifier_of_sklearn(labels: list[Any]) -> None:
    """Labels and the sequence of maps that sklearn's converter makes become rows, or one picked."""
    skl2onnx = pytest.importorskip("skl2onnx")
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 2)).astype(np.float32)
    y = np.array(labels)[(x[:, 0] > 0).astype(int)]
    fitted = linear_model.LogisticRegression().fit(x, y)
    model = OnnxModel(skl2onnx.to_onnx(fitted, x[:1]).SerializeToString())
    key = "string" if isinstance(labels[0], str) else "int64"
    assert model.signature.outputs["output_probability"] == Tensor(
        f"sequence(map({key},float))", ()
    )
    outputs = (
        OutputSpec("output_label", "label"),
        OutputSpec("output_probability", "probabilities"),
        OutputSpec("output_probability", "score", labels[1]),
    )
    inputs = (InputSpec("X", (FieldSpec("a"), FieldSpec("b")), stacked=True),)
    spec = ModelSpec("m", "1", "", inputs, outputs)
    rows = scored_rows(model, spec, b'{"a": 3, "b": 0}', b'{"a": -3, "b": 0}')
    assert [row["label"] for row in rows] == [labels[1], labels[0]]
    assert rows[0]["score"] > 0.9
    assert rows[1]["score"] < 0.1
    assert dict(rows[0]["probabilities"])[labels[1]] == rows[0]["score"]
    assert rows[0]["score"] == pytest.approx(fitted.predict_proba([[3, 0]])[0, 1], abs=1e-5)


def test_outputs_not_asked_for_are_not_computed() -> None:
    """Only the named outputs come back."""
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    outputs = [info("y", "float", ["n"]), info("z", "float", ["n"])]
    model = OnnxModel(built(nodes, [info("x", "float", ["n"])], outputs), ["z"])
    feeds = {"x": np.ones(2, np.float32)}
    assert list(model.run(feeds)) == ["z"]
    assert set(model.signature.outputs) == {"y", "z"}


def test_batch_of_none_runs() -> None:
    """A batch without rows gives outputs without rows."""
    weights = numpy_helper.from_array(np.ones((2, 1), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = OnnxModel(
        built([node], [info("x", "float", ["n", 2])], [info("y", "float", ["n", 1])], [weights])
    )
    assert model.run({"x": np.empty((0, 2), np.float32)})["y"].shape == (0, 1)


@pytest.mark.parametrize("model", [b"", b"no model", identity("float", ["n"])[:-20]])
def test_what_cannot_be_opened_is_a_mistake(model: bytes) -> None:
    """Broken bytes are a mistake that names the file."""
    with pytest.raises(ConfigInvalid) as caught:
        OnnxModel(model, file="models/fraud/1/model.onnx")
    assert caught.value.mistakes[0].setting == "models/fraud/1/model.onnx"


def test_output_that_does_not_exist_is_a_mistake() -> None:
    """An output that the model lacks is named."""
    with pytest.raises(ConfigInvalid, match="nothing"):
        OnnxModel(identity("float", ["n"]), ["nothing"])


def test_fixed_batch_axis_is_refused_with_the_way_out() -> None:
    """A model exported for one record says how to export it for many."""
    model = OnnxModel(identity("float", [1, 2]))
    fields = InputSpec("x", (FieldSpec("a"), FieldSpec("b")), stacked=True)
    spec = ModelSpec("m", "1", "", (fields,), (OutputSpec("y", "out"),))
    (mistake,) = check_signature(spec, model.signature)
    assert "dynamic batch axis" in mistake.way_out


def test_crayfish_model_takes_flat_arrays(shared_data: Path) -> None:
    """The benchmark's model with [batch, 1, 784] takes one flat array of 784 numbers."""
    model = OnnxModel((shared_data / "crayfish" / "model-ffnn.onnx").read_bytes())
    assert model.signature == Signature(
        {"input": Tensor("float", (None, 1, 784))}, {"output": Tensor("float", (None, 10))}
    )
    field = InputSpec("input", (FieldSpec("image"),), stacked=False)
    spec = ModelSpec("m", "1", "", (field,), (OutputSpec("output", "classes"),))
    values = np.random.default_rng(0).random((3, 784))
    events = [json.dumps({"image": row.tolist()}).encode() for row in values]
    rows = scored_rows(model, spec, *events)
    expected = model.run({"input": values.astype(np.float32).reshape(3, 1, 784)})["output"]
    np.testing.assert_allclose([row["classes"] for row in rows], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="CUDA is here")
def test_without_cuda_a_gpu_model_is_an_error() -> None:
    """A replica that asked for CUDA says what to install, and never scores on the CPU instead."""
    with pytest.raises(ConfigInvalid, match="would run elsewhere than on CUDAExecutionProvider"):
        OnnxModel(identity("float", ["n", 2]), gpu=True)


@pytest.mark.usefixtures("cuda")
def test_a_gpu_scores_as_the_cpu_does() -> None:
    """Both providers give the same outputs but for rounding, also beyond a CPU's slice."""
    model = (Path(__file__).parents[2] / "models/fraud/1/model.onnx").read_bytes()
    rows = np.random.default_rng(0).normal(size=(RUN_ROWS + 7, 29)).astype(np.float32)
    here, there = (OnnxModel(model, gpu=gpu).run({"features": rows}) for gpu in (False, True))
    np.testing.assert_allclose(here["probability"], there["probability"], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("cuda")
def test_texts_go_through_a_gpu_session() -> None:
    """Texts go in and come out of a CUDA session as they do of one on the CPU."""
    words = np.array([["a"], ["b"]], object)
    (made,) = OnnxModel(identity("string", ["n", 1]), gpu=True).run({"x": words}).values()
    assert made.tolist() == words.tolist()
