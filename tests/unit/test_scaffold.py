"""`headrace init`."""

import json
import re
from pathlib import Path

import pytest

from pipeline import settings
from pipeline.errors import ConfigInvalid
from pipeline.model import Signature, Tensor
from pipeline.model_folder import load_files
from pipeline.scaffold import RESERVED, init
from pipeline.schema import STANDARD, job_schema, output_fields
from pipeline.signature import check_signature

FRAUD = Signature(
    inputs={"features": Tensor("float", (None, 30))},
    outputs={"score": Tensor("float", (None, 1))},
)
MIXED = Signature(
    inputs={
        "user": Tensor("int64", (None,)),
        "input.1": Tensor("double", (None, 1, 4)),
        "input_1": Tensor("string", (None, 1)),
        "on": Tensor("bool", (None, 2)),
        "::": Tensor("int32", (None,)),
    },
    outputs={
        "key": Tensor("int64", (None,)),
        "output.label": Tensor("string", (None,)),
        "output_probability": Tensor("sequence(map(int64,float))", ()),
        "half": Tensor("float16", (None, 2)),
    },
)


@pytest.fixture
def model(tmp_path):
    """A file that stands for a model; its signature is an argument."""
    path = tmp_path / "My model (v2).onnx"
    path.write_bytes(b"model")
    return path


def mistakes(*arguments, **names):
    """The mistakes of a call that fails."""
    with pytest.raises(ConfigInvalid) as caught:
        init(*arguments, **names)
    return caught.value.mistakes


@pytest.mark.parametrize("signature", [FRAUD, MIXED], ids=["fraud", "mixed"])
def test_what_is_written_is_free_of_mistakes(tmp_path, model, signature):
    """The model folder and the config are accepted as they are."""
    made = init(model, signature, tmp_path, "fraud")
    assert [path.relative_to(tmp_path).as_posix() for path in made.written] == [
        "models/fraud/1/model.onnx",
        "models/fraud/1/model.yaml",
        "configs/fraud.yaml",
    ]
    files = load_files(tmp_path / "models/fraud/1")
    assert files.model == b"model"
    assert not check_signature(files.spec, signature)
    config = settings.load(tmp_path / "configs/fraud.yaml", {})
    assert (config.job, config.model.name) == ("fraud", "fraud")
    assert config.input.pass_through == {}


def test_the_event_holds_one_value_for_each_input(tmp_path, model):
    """Vectors are arrays, scalars plain, and each field has a name of its own without a dot."""
    made = init(model, MIXED, tmp_path, "mixed")
    assert json.loads(made.event) == {
        "user": 0,
        "input_1": [0.0] * 4,
        "input_1_1": "text",
        "on": [False, False],
        "value": 0,
    }


def test_columns_avoid_the_names_that_every_row_has(tmp_path, model):
    """An output called `key` gets another column; one of an unknown type gets none."""
    init(model, MIXED, tmp_path, "mixed")
    columns = {o.name: o.column for o in load_files(tmp_path / "models/mixed/1").spec.outputs}
    assert columns == {
        "key": "key_1",
        "output.label": "output_label",
        "output_probability": "output_probability",
    }
    assert not set(columns.values()) & set(RESERVED)


def test_the_job_is_named_after_the_file(tmp_path, model):
    """Characters that a name cannot hold become hyphens."""
    assert init(model, FRAUD, tmp_path).job == "My-model-v2"


@pytest.mark.parametrize("job", ["2024", "1e5", "true", "null", "0"])
def test_a_name_that_looks_like_a_number_stays_a_text(tmp_path, model, job):
    """The config that is written says what was asked for."""
    init(model, FRAUD, tmp_path, job)
    assert settings.load(tmp_path / f"configs/{job}.yaml", {}).job == job


@pytest.mark.parametrize("job", ["", "a.b", "../a", "a b"])
def test_an_illegal_name_is_a_mistake(tmp_path, model, job):
    """Nothing is written outside the folders for it."""
    (mistake,) = mistakes(model, FRAUD, tmp_path, job)
    assert mistake.setting == "--job"


def test_nothing_is_overwritten(tmp_path, model):
    """Each file that is there is named, and stays as it was."""
    made = init(model, FRAUD, tmp_path, "fraud")
    before = [path.read_bytes() for path in made.written]
    other = tmp_path / "other.onnx"
    other.write_bytes(b"other")
    found = mistakes(other, FRAUD, tmp_path, "fraud")
    assert {str(m.value) for m in found} == {str(path) for path in made.written}
    assert [path.read_bytes() for path in made.written] == before


def test_one_file_that_is_there_keeps_all_from_being_written(tmp_path, model):
    """A config alone is enough to refuse."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/fraud.yaml").write_text("mine")
    assert len(mistakes(model, FRAUD, tmp_path, "fraud")) == 1
    assert not (tmp_path / "models").exists()


def test_a_failure_while_writing_leaves_no_file(tmp_path, model):
    """Where the last file cannot be written, the first ones are taken away again."""
    (tmp_path / "configs").write_text("a file where a folder belongs")
    (mistake,) = mistakes(model, FRAUD, tmp_path, "fraud")
    assert "cannot be written" in mistake.problem
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("signature", "problem"),
    [
        (Signature({"x": Tensor("float", (1, 30))}, FRAUD.outputs), "no free batch axis"),
        (Signature({"x": Tensor("float16", (None, 3))}, FRAUD.outputs), "not supported"),
        (Signature(FRAUD.inputs, {"y": Tensor("float16", (None,))}), "gives nothing"),
    ],
)
def test_a_model_that_cannot_be_fed_is_a_mistake(tmp_path, model, signature, problem):
    """The mistake says what is wrong with the model, and nothing is written."""
    assert any(problem in m.problem for m in mistakes(model, signature, tmp_path, "fraud"))
    assert not (tmp_path / "models").exists()


def test_a_model_that_is_not_there_is_a_mistake(tmp_path):
    """The path is named."""
    (mistake,) = mistakes(Path("none.onnx"), FRAUD, tmp_path)
    assert mistake.value == "none.onnx"


@pytest.mark.parametrize("signature", [FRAUD, MIXED], ids=["fraud", "mixed"])
def test_columns_make_a_schema(tmp_path, model, signature):
    """The columns that are written collide with no other."""
    init(model, signature, tmp_path, "fraud")
    spec = load_files(tmp_path / "models/fraud/1").spec
    assert job_schema(output_fields(spec, signature)).names[: len(STANDARD)] == [
        column.name for column in STANDARD
    ]


def test_the_config_is_short(tmp_path, model):
    """A dozen lines with comments are all that must be read."""
    made = init(model, FRAUD, tmp_path, "fraud")
    lines = made.written[-1].read_text().splitlines()
    assert len(lines) <= 14
    assert sum(bool(re.search(r"(^|\s)#", line)) for line in lines) >= 3
