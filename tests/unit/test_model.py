"""The model folder: every mistake at once, and agreement with the model's signature."""

import hashlib
import math
import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from pipeline.config import Ranking
from pipeline.errors import ConfigInvalid
from pipeline.model import Choice, FieldSpec, ModelSpec, Signature, Tensor
from pipeline.model_folder import load_files, resolve
from pipeline.signature import check_signature

ROOT = Path(__file__).resolve().parents[2]
MODEL = b"not opened here"
SHA256 = hashlib.sha256(MODEL).hexdigest()
GOOD = f"""
sha256: {SHA256}
extra_fields: reject
inputs:
  features:
    fields: [Time, {{name: V2, missing: nan}}, {{name: Amount, missing: 0.0, invalid: 1}}]
  user: {{field: user_id}}
  context: {{field: "geo.position", missing: [0.0, 0.0], null: reject}}
outputs:
  probability: {{column: score}}
  probabilities: {{column: fraud, pick: 1}}
threshold: {{column: score, at_least: 0.5, name: flagged}}
metrics: {{auc: 0.98}}
"""


def folder(root: Path, text: str) -> Path:
    made = root / "fraud" / "3"
    made.mkdir(parents=True)
    (made / "model.onnx").write_bytes(MODEL)
    (made / "model.yaml").write_text(text)
    return made


def test_resolve_takes_the_highest_number(tmp_path: Path) -> None:
    """Version 10 is newer than version 9, and a folder that is no number is no version."""
    for version in ("9", "10", "draft"):
        (tmp_path / "fraud" / version).mkdir(parents=True)
    assert resolve(tmp_path / "fraud") == tmp_path / "fraud" / "10"


def test_resolve_takes_a_version_as_it_is(tmp_path: Path) -> None:
    """A folder with a model.yaml is the version that was meant."""
    made = folder(tmp_path, GOOD)
    assert resolve(made) == made


def test_resolve_names_what_is_no_model(tmp_path: Path) -> None:
    """A path without versions is a mistake that names it."""
    with pytest.raises(ConfigInvalid, match="nowhere"):
        resolve(tmp_path / "nowhere")


def test_load_reads_a_good_folder(tmp_path: Path) -> None:
    """What model.yaml says arrives in the spec, null falling back to missing."""
    files = load_files(folder(tmp_path, GOOD))
    spec = files.spec
    assert (files.name, files.version, files.model) == ("fraud", "3", MODEL)
    assert (spec.name, spec.version, spec.extra_fields) == ("fraud", "3", "reject")
    features, user, context = spec.inputs
    assert features.stacked
    assert features.fields[0] == FieldSpec("Time")
    assert math.isnan(features.fields[1].null)
    assert features.fields[2].null == 0.0
    assert features.fields[2].invalid == 1
    assert not user.stacked
    assert context.fields[0].missing == [0.0, 0.0]
    assert context.fields[0].null is Choice.REJECT
    assert spec.outputs[1].pick == 1
    assert spec.threshold is not None
    assert spec.threshold.name == "flagged"


def test_load_reports_every_mistake_at_once(tmp_path: Path) -> None:
    """All that is wrong is listed, each with its place in the file."""
    text = """
sha256: abc
extra_fields: maybe
colour: red
inputs:
  features: {fields: [Time, 3, {name: V2, missin: nan}, {name: a..b}], missing: 0}
  both: {field: a, fields: [b]}
  single: {field: a, unless: 3}
outputs:
  probability: {columns: score}
  label: {column: label, pick: [1]}
threshold: {column: other, at_least: high, name: flagged}
"""
    with pytest.raises(ConfigInvalid) as caught:
        load_files(folder(tmp_path, text))
    settings = {mistake.setting.split("model.yaml: ")[1] for mistake in caught.value.mistakes}
    assert settings == {
        "sha256",
        "extra_fields",
        "colour",
        "inputs.features.fields[1]",
        "inputs.features.fields[2].missin",
        "inputs.features.fields[3]",
        "inputs.features.missing",
        "inputs.both",
        "inputs.single.unless",
        "outputs.probability.columns",
        "outputs.probability.column",
        "outputs.label.pick",
        "threshold.column",
        "threshold.at_least",
    }
    assert len(caught.value.mistakes) == len(settings)
    assert caught.value.mistakes[0].setting.endswith("fraud/3/model.yaml: colour")


@pytest.mark.parametrize("text", ["", "[1]", "inputs: [1]", "a: b: c", "1: 2", "inputs: {a: }"])
def test_load_refuses_what_is_no_description(tmp_path: Path, text: str) -> None:
    """Whatever YAML holds, the answer is a list of mistakes."""
    with pytest.raises(ConfigInvalid):
        load_files(folder(tmp_path, text))


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("outputs: {other: {column: b}}", "outputs stands there twice"),
        ("metrics: !!python/object:x.y {}", "tags are not supported"),
    ],
)
def test_load_reads_yaml_strictly(tmp_path: Path, extra: str, expected: str) -> None:
    """A key that stands twice or a tag is a mistake with its line, never one silent value."""
    with pytest.raises(ConfigInvalid, match=expected):
        load_files(folder(tmp_path, GOOD.replace("metrics: {auc: 0.98}\n", "") + extra))


def test_load_refuses_what_is_no_utf8(tmp_path: Path) -> None:
    """A model.yaml in another encoding is named, with the way out."""
    made = folder(tmp_path, GOOD)
    (made / "model.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigInvalid, match="Save it as UTF-8"):
        load_files(made)


def test_yes_and_no_are_strings(tmp_path: Path) -> None:
    """A default means what YAML 1.2 says: `no` is a string, and a number may be written 1e3."""
    inputs = "x: {field: a, missing: no}, y: {field: b, missing: 1e3}"
    x, y = spec_of(tmp_path, inputs, "y: {column: s}").inputs
    assert (x.fields[0].missing, y.fields[0].missing) == ("no", 1000.0)


def test_load_names_a_missing_model(tmp_path: Path) -> None:
    """A model.yaml without its model.onnx is a mistake."""
    made = folder(tmp_path, GOOD)
    (made / "model.onnx").unlink()
    with pytest.raises(ConfigInvalid, match=r"model\.onnx"):
        load_files(made)


def spec_of(tmp_path: Path, inputs: str, outputs: str, rest: str = "") -> ModelSpec:
    text = f"sha256: {SHA256}\ninputs: {{{inputs}}}\noutputs: {{{outputs}}}\n{rest}"
    return load_files(folder(tmp_path, text)).spec


X = Tensor("float", (None, 2))
Y = Tensor("float", (None, 1))


def test_signature_that_agrees_has_no_mistakes(tmp_path: Path) -> None:
    """A model.yaml that fits its model is accepted."""
    spec = spec_of(
        tmp_path,
        "x: {fields: [a, b]}",
        "y: {column: s}",
        "threshold: {column: s, at_least: 1, name: f}",
    )
    assert check_signature(spec, Signature({"x": X}, {"y": Y})) == []


@pytest.mark.parametrize(
    ("inputs", "tensor", "expected"),
    [
        ("x: {fields: [a, b, c]}", X, "3 fields where the model takes 2"),
        ("x: {fields: [a, b]}", Tensor("float", (1, 2)), "no free batch axis"),
        ("x: {fields: [a, b]}", Tensor("float", ()), "no free batch axis"),
        ("x: {fields: [a, b]}", Tensor("float16", (None, 2)), "not supported"),
        ("x: {field: a}", Tensor("float", (None, None)), "width is unknown"),
        ("x: {field: a, missing: [0.0]}", X, "no list of 2"),
        ("x: {field: a, missing: [0.0, x]}", X, "does not fit"),
        ("x: {field: a, missing: nan}", Tensor("int64", (None,)), "does not fit"),
        ("x: {field: a, missing: 3000000000}", Tensor("int32", (None,)), "does not fit"),
        ("x: {field: a, missing: 1.0e+39}", Tensor("float", (None,)), "does not fit"),
        ("x: {field: a, invalid: 1}", Tensor("string", (None,)), "does not fit"),
        ("x: {field: a, missing: 1}", Tensor("bool", (None,)), "does not fit"),
        ("z: {field: a}", X, "no entry"),
    ],
)
def test_inputs_that_disagree_are_named(
    tmp_path: Path, inputs: str, tensor: Tensor, expected: str
) -> None:
    """Each way in which inputs disagree with the model is said in words."""
    spec = spec_of(tmp_path, inputs, "y: {column: s}")
    mistakes = check_signature(spec, Signature({"x": tensor}, {"y": Y}))
    assert expected in "\n".join(map(str, mistakes))


@pytest.mark.parametrize(
    ("outputs", "tensor", "expected"),
    [
        ("z: {column: s}", Y, "no output of the model"),
        ("y: {column: s, pick: 2}", X, "out of range"),
        ("y: {column: s, pick: -1}", X, "out of range"),
        ("y: {column: s, pick: a}", X, "no index"),
        ("y: {column: s, pick: 0}", Tensor("float", (None,)), "one value a record"),
        ("y: {column: s, pick: a}", Tensor("sequence(map(int64,float))", ()), "no key"),
        ("y: {column: s, pick: 1}", Tensor("sequence(map(string,float))", ()), "no key"),
        ("y: {column: s}", Tensor("optional(tensor(float))", ()), "not supported"),
    ],
)
def test_outputs_that_disagree_are_named(
    tmp_path: Path, outputs: str, tensor: Tensor, expected: str
) -> None:
    """Each way in which outputs disagree with the model is said in words."""
    spec = spec_of(tmp_path, "x: {fields: [a, b]}", outputs)
    mistakes = check_signature(spec, Signature({"x": X}, {"y": tensor}))
    assert expected in "\n".join(map(str, mistakes))


def test_threshold_of_a_vector_is_a_mistake(tmp_path: Path) -> None:
    """A threshold needs one number a record."""
    rest = "threshold: {column: s, at_least: 1, name: f}"
    spec = spec_of(tmp_path, "x: {fields: [a, b]}", "y: {column: s}", rest)
    (mistake,) = check_signature(spec, Signature({"x": X}, {"y": X}))
    assert mistake.setting.endswith("threshold.column")


def test_the_reference_shows_what_loads(tmp_path: Path) -> None:
    """Each model.yaml in docs/model-yaml.md is read without a mistake, sums of files aside."""
    text = (ROOT / "docs/model-yaml.md").read_text(encoding="utf-8")
    plain, ranking, rules = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    spec = load_files(folder(tmp_path / "a", _with_sum(plain, MODEL))).spec
    assert [one.name for one in spec.inputs] == ["features", "embedding"]
    made = folder(tmp_path / "b", f"sha256: {SHA256}\n" + _with_sum(ranking, b"7\n"))
    for name in ("items.txt", "users.txt"):
        (made / name).write_bytes(b"7\n")
    spec = load_files(made).spec
    assert spec.ranking is not None
    assert [one.form.value for one in spec.forms] == ["padded", "mask", "k"]
    assert set(yaml.safe_load(rules)["ranking"]) == {one.name for one in fields(Ranking)}


def _with_sum(text: str, content: bytes) -> str:
    return re.sub(r"sha256: \w+…", f"sha256: {hashlib.sha256(content).hexdigest()}", text)
