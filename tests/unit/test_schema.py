"""The job's schema: types written in the config, collisions found before the start."""

import pyarrow as pa
import pytest

from pipeline.errors import ConfigInvalid
from pipeline.model import FieldSpec, InputSpec, ModelSpec, OutputSpec, Signature, Tensor, Threshold
from pipeline.schema import job_schema, output_fields, pass_through_fields


def test_types_nest_as_they_are_written() -> None:
    """Scalars, objects and lists become Arrow's types."""
    types = {"id": "int64", "geo": {"country": "string", "lat": "float64"}, "tags": ["string"]}
    assert pass_through_fields(types) == (
        pa.field("id", pa.int64()),
        pa.field("geo", pa.struct([("country", pa.string()), ("lat", pa.float64())])),
        pa.field("tags", pa.list_(pa.string())),
    )


def test_unknown_types_are_all_reported() -> None:
    """Each type that is not known is a mistake with its place."""
    types = {"a": "decimal", "b": {"c": "text"}, "d": [], "e": ["string", "bool"], "f": 3}
    with pytest.raises(ConfigInvalid) as caught:
        pass_through_fields(types)
    assert [mistake.setting for mistake in caught.value.mistakes] == [
        "input.pass_through.a",
        "input.pass_through.b.c",
        "input.pass_through.d",
        "input.pass_through.e",
        "input.pass_through.f",
    ]


def test_outputs_are_typed_by_the_signature() -> None:
    """Scalars, vectors, picked values, labels and maps get their Arrow types."""
    spec = ModelSpec(
        name="m",
        version="1",
        sha256="",
        inputs=(InputSpec("x", (FieldSpec("a"),), stacked=False),),
        outputs=(
            OutputSpec("p", "score"),
            OutputSpec("v", "vector"),
            OutputSpec("v", "second", 1),
            OutputSpec("l", "label"),
            OutputSpec("m", "map"),
            OutputSpec("m", "yes", "yes"),
        ),
        threshold=Threshold("score", 0.5, "flagged"),
    )
    outputs = {
        "p": Tensor("float", (None, 1)),
        "v": Tensor("double", (None, 3)),
        "l": Tensor("string", (None,)),
        "m": Tensor("sequence(map(string,float))", ()),
    }
    assert output_fields(spec, Signature({}, outputs)) == (
        pa.field("score", pa.float32()),
        pa.field("vector", pa.list_(pa.float64())),
        pa.field("second", pa.float64()),
        pa.field("label", pa.string()),
        pa.field("map", pa.map_(pa.string(), pa.float32())),
        pa.field("yes", pa.float32()),
        pa.field("flagged", pa.bool_()),
    )


def test_schema_says_all_that_the_archiver_needs() -> None:
    """Standard columns come first; format and compression are in the metadata."""
    schema = job_schema([pa.field("score", pa.float32())], "zstd")
    assert schema.names == [
        "topic", "partition", "offset", "key", "event_time", "scored_at",
        "model_name", "model_version", "score",
    ]  # fmt: skip
    assert schema.metadata == {b"headrace.format": b"1", b"headrace.compression": b"zstd"}


@pytest.mark.parametrize("names", [["offset"], ["a", "a"], ["source"], ["model"]])
def test_names_that_collide_are_mistakes(names: list[str]) -> None:
    """A column may not take the name of another one, nor of what each prediction has."""
    with pytest.raises(ConfigInvalid, match=names[0]):
        job_schema([pa.field(name, pa.int64()) for name in names])
