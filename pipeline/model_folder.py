"""The model folder: finds a version, reads its model.yaml and its model.

Models lie as Triton and TensorFlow Serving lay them out: `{name}/{version}/model.onnx` with
`model.yaml` beside it, and the vocabularies that it names.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import document
from pipeline.errors import ConfigInvalid, Mistake
from pipeline.model import InputSpec, ModelFiles, ModelSpec, OutputSpec, Threshold
from pipeline.model_ids import read_form, read_ids, read_ranking, read_vocabularies
from pipeline.model_reader import Reader


def resolve(path: Path) -> Path:
    """The version's folder: `path` itself if it holds a model.yaml, else its highest number.

    Raises ConfigInvalid where there is neither.
    """
    if (path / "model.yaml").is_file():
        return path
    children = path.iterdir() if path.is_dir() else ()
    versions = [child for child in children if child.is_dir() and child.name.isdecimal()]
    if not versions:
        problem = "holds no model.yaml and no version" if path.is_dir() else "is no folder"
        way_out = "Name a folder like models/fraud with a version like models/fraud/1 in it"
        raise ConfigInvalid([Mistake("model", str(path), problem, way_out)])
    return max(versions, key=lambda child: int(child.name))


def load_files(folder: Path) -> ModelFiles:
    """Read a version's folder, its model included; raises ConfigInvalid with every mistake."""
    text = _bytes(folder / "model.yaml", "Write what the model takes and gives")
    model = _bytes(folder / "model.onnx", "Put the model beside its model.yaml")
    where = str(folder / "model.yaml")
    try:
        content, mistakes = document.read(text.decode(), where)
    except UnicodeDecodeError as failure:
        problem = f"is no UTF-8: {failure.reason}"
        raise ConfigInvalid([Mistake(where, None, problem, "Save it as UTF-8")]) from failure
    if mistakes:
        raise ConfigInvalid(mistakes)
    folder = folder.resolve()
    reader = Reader(where)
    spec = _spec(reader, content, folder, hashlib.sha256(model).hexdigest())
    if reader.mistakes:
        raise ConfigInvalid(reader.mistakes)
    return ModelFiles(spec, model, spec.name, spec.version)


def _bytes(path: Path, way_out: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        problem = f"cannot be read: {failure.strerror}"
        raise ConfigInvalid([Mistake(str(path), None, problem, way_out)]) from failure


def _spec(reader: Reader, content: object, folder: Path, digest: str) -> ModelSpec:
    known = ("sha256", "extra_fields", "vocabularies", "ids", "inputs", "outputs", "ranking",
             "threshold", "metrics")  # fmt: skip
    top = reader.mapping("", content, known)
    if top.get("sha256") != digest:
        problem = f"differs from the model.onnx beside it, which has {digest}"
        way_out = "Write the model's own sha256, or put back the model that was meant"
        reader.wrong("sha256", top.get("sha256"), problem, way_out)
    extra = top.get("extra_fields", "ignore")
    if extra not in ("ignore", "reject"):
        reader.wrong("extra_fields", extra, "is not known", "Write ignore or reject")
    inputs = reader.mapping("inputs", top.get("inputs"), None)
    if inputs == {} and isinstance(top.get("inputs"), dict):
        reader.wrong("inputs", {}, "names no input", "Name the model's inputs")
    ranks = "ranking" in top
    outputs = reader.mapping("outputs", top.get("outputs", {} if ranks else None), None)
    if outputs == {} and isinstance(top.get("outputs"), dict):
        reader.wrong("outputs", {}, "names no output", "Name the outputs to keep")
    reader.mapping("metrics", top.get("metrics", {}), None)
    columns = tuple(_output(reader, key, value) for key, value in outputs.items())
    vocabularies = read_vocabularies(reader, top.get("vocabularies", {}), folder)
    ids = read_ids(reader, top.get("ids", {}), vocabularies)
    named = {one.name: one for one in ids}
    formed = {k: v for k, v in inputs.items() if isinstance(v, dict) and "form" in v}
    forms = [read_form(reader, key, value, named) for key, value in formed.items()]
    return ModelSpec(
        name=folder.parent.name,
        version=folder.name,
        sha256=digest,
        inputs=tuple(_input(reader, k, v) for k, v in inputs.items() if k not in formed),
        outputs=columns,
        threshold=_threshold(reader, top.get("threshold"), columns),
        extra_fields=str(extra),
        ids=ids,
        forms=tuple(one for one in forms if one is not None),
        ranking=read_ranking(reader, top.get("ranking"), vocabularies, named) if ranks else None,
    )


def _input(reader: Reader, name: str, value: object) -> InputSpec:
    path = f"inputs.{name}"
    keys = ("fields", "field", "missing", "null", "invalid")
    below = reader.mapping(path, value, keys)
    if isinstance(value, dict) and ("fields" in below) == ("field" in below):
        way_out = "Write `fields:` with a list, or `field:` with one name"
        reader.wrong(path, value, "needs either fields or field", way_out)
        return InputSpec(name, (), stacked=True)
    if "fields" not in below:
        choices = {key: below[key] for key in keys[2:] if key in below}
        one = reader.field(path, {**choices, "name": below["field"]}) if below else None
        return InputSpec(name, () if one is None else (one,), stacked=False)
    for key in keys[2:]:
        if key in below:
            way_out = "Write it beside the field's name: {name: V2, missing: nan}"
            reader.wrong(f"{path}.{key}", below[key], "goes with a single field", way_out)
    listed = below["fields"]
    if not isinstance(listed, list) or not listed:
        reader.wrong(f"{path}.fields", listed, "lists no fields", "Write [Time, V1, V2]")
        return InputSpec(name, (), stacked=True)
    fields = tuple(
        reader.field(f"{path}.fields[{i}]", item if isinstance(item, dict) else {"name": item})
        for i, item in enumerate(listed)
    )
    return InputSpec(name, fields, stacked=True)


def _output(reader: Reader, name: str, value: object) -> OutputSpec:
    path = f"outputs.{name}"
    below = reader.mapping(path, value, ("column", "pick"))
    column = reader.text(f"{path}.column", below.get("column"), "score") if below else ""
    pick = below.get("pick")
    if pick is not None and (isinstance(pick, bool) or not isinstance(pick, int | str)):
        reader.wrong(f"{path}.pick", pick, "is no index and no key", "Write a number or a label")
    return OutputSpec(name, column, pick)


def _threshold(reader: Reader, value: object, outputs: Sequence[OutputSpec]) -> Threshold | None:
    if value is None:
        return None
    below = reader.mapping("threshold", value, ("column", "at_least", "name"))
    column = reader.text("threshold.column", below.get("column"), "score")
    name = reader.text("threshold.name", below.get("name"), "flagged")
    columns = [output.column for output in outputs]
    if column and column not in columns:
        way_out = f"Name one of {', '.join(columns)}"
        reader.wrong("threshold.column", column, "is no output's column", way_out)
    at_least: Any = below.get("at_least")
    number = isinstance(at_least, int | float) and not isinstance(at_least, bool)
    # Python compares integers of any size, and NaN is never within.
    if number and abs(at_least) <= sys.float_info.max:
        return Threshold(column, float(at_least), name)
    reader.wrong("threshold.at_least", at_least, "is no finite number", "Write 0.5")
    return None
