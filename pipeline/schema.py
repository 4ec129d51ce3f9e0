"""The Parquet columns of a job: one schema, written from its settings, never inferred."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigInvalid, Mistake
from pipeline.model import ModelSpec, Signature

FORMAT_VERSION = "1"
TYPES = {
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}
TIME = pa.timestamp("us", tz="UTC")
_NAME = pa.dictionary(pa.int32(), pa.string())
STANDARD = (
    pa.field("topic", _NAME, nullable=False),
    pa.field("partition", pa.int32(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("key", pa.binary()),
    pa.field("event_time", TIME),
    pa.field("scored_at", TIME, nullable=False),
    pa.field("model_name", _NAME, nullable=False),
    pa.field("model_version", _NAME, nullable=False),
)
# The columns of a model that ranks.
ITEMS, SCORES = "items", "scores"
_OUTPUT_TYPES = {
    "float": pa.float32(),
    "double": pa.float64(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}


def pass_through_fields(
    types: Mapping[str, Any], setting: str = "input.pass_through"
) -> tuple[pa.Field, ...]:
    """Arrow fields of `{id: int64, geo: {country: string}, tags: [string]}`, all nullable.

    Raises ConfigInvalid with every type that is not known.
    """
    mistakes: list[Mistake] = []
    fields = _fields(types, setting, mistakes)
    if mistakes:
        raise ConfigInvalid(mistakes)
    return fields


def _fields(
    types: Mapping[str, Any], setting: str, mistakes: list[Mistake]
) -> tuple[pa.Field, ...]:
    fields = []
    for name, wanted in types.items():
        if not isinstance(name, str) or not name:
            mistakes.append(Mistake(setting, name, "is no field name", "Put the name in quotes"))
            continue
        fields.append(pa.field(name, _type(wanted, f"{setting}.{name}", mistakes)))
    return tuple(fields)


def _type(wanted: object, setting: str, mistakes: list[Mistake]) -> pa.DataType:
    if isinstance(wanted, str) and wanted in TYPES:
        return TYPES[wanted]
    if isinstance(wanted, Mapping) and wanted:
        return pa.struct(list(_fields(wanted, setting, mistakes)))
    if isinstance(wanted, list) and len(wanted) == 1 and isinstance(wanted[0], str):
        return pa.list_(_type(wanted[0], f"{setting}[0]", mistakes))
    way_out = (
        f"Write one of {', '.join(TYPES)}, a list of one of them like [string], "
        "or a mapping of fields"
    )
    mistakes.append(Mistake(setting, wanted, "is no type", way_out))
    return pa.null()


def output_fields(spec: ModelSpec, signature: Signature) -> tuple[pa.Field, ...]:
    """The columns of the model's outputs, ranking and threshold, as the signature types them.

    One value a record is a scalar, several are a list (an output of more axes is flattened), a
    sequence of maps is a map, or a scalar where `pick` names the key.
    """
    fields = []
    for output in spec.outputs:
        tensor = signature.outputs[output.name]
        if tensor.keys is not None:
            value = _OUTPUT_TYPES[tensor.kind.rstrip(")").split(",")[1]]
            kind = value if output.pick is not None else pa.map_(_OUTPUT_TYPES[tensor.keys], value)
        else:
            value = _OUTPUT_TYPES[tensor.kind]
            one = tensor.width == 1 or output.pick is not None
            kind = value if one else pa.list_(value)
        fields.append(pa.field(output.column, kind))
    if spec.ranking is not None:
        scored = _OUTPUT_TYPES[signature.outputs[spec.ranking.scores].kind]
        fields.append(pa.field(ITEMS, pa.list_(spec.ranking.vocabulary.ids.type)))
        fields.append(pa.field(SCORES, pa.list_(scored)))
    if spec.threshold is not None:
        fields.append(pa.field(spec.threshold.name, pa.bool_()))
    return tuple(fields)


def job_schema(fields: Sequence[pa.Field], compression: str = "zstd") -> pa.Schema:
    """The standard columns and the job's own (a recipe's `fields`), in this order.

    Its metadata says all that the archiver must know. Raises ConfigInvalid where names collide.
    """
    columns = [*STANDARD, *fields]
    counts = Counter(column.name for column in columns)
    # The prediction names these too, beside the job's own columns.
    reserved = {"source", "model"} & counts.keys()
    mistakes = [
        Mistake("columns", name, "names more than one column", "Give one of them another name")
        for name, count in counts.items()
        if count > 1
    ] + [
        Mistake("columns", name, "is a name that each prediction has already", "Choose another")
        for name in sorted(reserved)
    ]
    if mistakes:
        raise ConfigInvalid(mistakes)
    metadata = {"headrace.format": FORMAT_VERSION, "headrace.compression": compression}
    return pa.schema(columns, metadata=metadata)
