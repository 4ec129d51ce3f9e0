"""`headrace init`: a model folder and a config for an ONNX model that was never seen before."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline import document, shapes
from pipeline.errors import ConfigInvalid, Mistake
from pipeline.model import (
    FLOATS,
    INTEGERS,
    KINDS,
    FieldSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    Signature,
    Tensor,
)
from pipeline.schema import STANDARD
from pipeline.signature import check_signature

# The names that every row and every prediction has already.
RESERVED = (*(column.name for column in STANDARD), "source", "model")

_MODEL_YAML = """\
# What the model takes from an event, and the columns it gives.
# A field that is absent makes the record a dead letter; `missing: 0.0` beside it gives a default.
# Features that come as fields of their own are listed: `fields: [Time, Amount]`.
"""

_CONFIG_YAML = """\
# Scores the records of {job}.events. What is left out has a default: `headrace explain`.
job: {written}
model: models/{job}    # its newest version
kafka:
  bootstrap.servers: ${{KAFKA_BOOTSTRAP_SERVERS:-127.0.0.1:9092}}
input:
  topic: {job}.events
  pass_through: {{}}    # event fields to keep beside the prediction, such as {{id: int64}}
output:
  topic: {job}.predictions
  parquet: ./out    # files appear in ./out/{job}/
replicas: 2
"""


@dataclass(frozen=True, slots=True)
class Scaffold:
    """What `init` wrote, and one event as a JSON line that the model accepts."""

    job: str
    written: tuple[Path, ...]
    event: str


def init(model: Path, signature: Signature, directory: Path, job: str | None = None) -> Scaffold:
    """Write `models/{job}/1/` and `configs/{job}.yaml` below `directory`.

    The job is named after the model's file where no name is given. Raises `ConfigInvalid`, and
    leaves no file behind, where the name is not legal, the model cannot be fed, or one of the
    files is there already: nothing is ever overwritten.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", model.stem).strip("-_") if job is None else job
    try:
        shapes.job(name)
    except shapes.WrongError as wrong:
        raise ConfigInvalid([Mistake("--job", name, wrong.problem, wrong.way_out)]) from None
    try:
        content = model.read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise ConfigInvalid([Mistake("model", str(model), problem, "Name an ONNX file")]) from None
    spec = _spec(name, hashlib.sha256(content).hexdigest(), signature)
    files = {
        directory / "models" / name / "1" / "model.onnx": content,
        directory / "models" / name / "1" / "model.yaml": _model_yaml(spec).encode(),
        directory / "configs" / f"{name}.yaml": _config_yaml(name).encode(),
    }
    way_out = "Nothing is overwritten: choose another --job, or move it away"
    mistakes = check_signature(spec, signature, str(model)) + [
        Mistake("file", str(path), "is there already", way_out)
        for path in files
        if os.path.lexists(path)
    ]
    if not spec.outputs:
        problem = f"gives nothing that can be a column, only {sorted(signature.outputs)}"
        mistakes.append(Mistake("model", str(model), problem, "Export it with tensors as outputs"))
    if mistakes:
        raise ConfigInvalid(mistakes)
    _write(files)
    event = {one.fields[0].path: _example(signature.inputs[one.name]) for one in spec.inputs}
    return Scaffold(name, tuple(files), json.dumps(event))


def _spec(name: str, digest: str, signature: Signature) -> ModelSpec:
    fields = _names(signature.inputs, ())
    kept = [key for key, tensor in signature.outputs.items() if tensor.keys or tensor.kind in KINDS]
    columns = _names(kept, RESERVED)
    return ModelSpec(
        name=name,
        version="1",
        sha256=digest,
        inputs=tuple(
            InputSpec(key, (FieldSpec(field),), stacked=False) for key, field in fields.items()
        ),
        outputs=tuple(OutputSpec(key, column) for key, column in columns.items()),
    )


def _names(originals: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Give each name its own plain one: a dot would reach into a nested object."""
    used = set(taken)
    names = {}
    for original in originals:
        plain = re.sub(r"[^A-Za-z0-9_]+", "_", original).strip("_") or "value"
        candidates = (plain, *(f"{plain}_{i}" for i in range(1, len(used) + 2)))
        names[original] = next(candidate for candidate in candidates if candidate not in used)
        used.add(names[original])
    return names


def _model_yaml(spec: ModelSpec) -> str:
    content = {
        "sha256": spec.sha256,
        "inputs": {one.name: {"field": one.fields[0].path} for one in spec.inputs},
        "outputs": {one.name: {"column": one.column} for one in spec.outputs},
    }
    return _MODEL_YAML + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _config_yaml(job: str) -> str:
    # A name such as 2024 or 1e5 would be read as a number.
    written = job if document.scalar(job) == job else f'"{job}"'
    return _CONFIG_YAML.format(job=job, written=written)


def _example(tensor: Tensor) -> Any:
    zero = 0.0 if tensor.kind in FLOATS else 0 if tensor.kind in INTEGERS else None
    value: Any = zero if zero is not None else False if tensor.kind == "bool" else "text"
    return value if tensor.width in (None, 1) else [value] * (tensor.width or 1)


def _write(files: Mapping[Path, bytes]) -> None:
    written: list[Path] = []
    for path, content in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                written.append(path)
                file.write(content)
        except OSError as error:
            for earlier in written:
                earlier.unlink()
            problem = f"cannot be written: {error.strerror}"
            way_out = "Choose another --directory, or make room there"
            raise ConfigInvalid([Mistake("file", str(path), problem, way_out)]) from None
