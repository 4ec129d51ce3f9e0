"""What a prediction says and what its row says are equal where they mean the same."""

import datetime
import math
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.contents import differences, digests, of_predictions, of_table, own_fields
from pipeline.encode import COMPILED, prediction_encoder
from pipeline.schema import job_schema

UTC = datetime.UTC
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def table(fields: list[pa.Field], columns: dict[str, Any], size: int) -> pa.Table:
    schema = job_schema(fields)
    standard: dict[str, Any] = {
        "topic": ["in"] * size,
        "partition": [0] * size,
        "offset": list(range(size)),
        "key": [b"k"] * size,
        "event_time": [None] * size,
        "scored_at": [datetime.datetime.fromtimestamp(0, UTC)] * size,
        "model_name": ["m"] * size,
        "model_version": ["1"] * size,
    }
    values = standard | columns
    return pa.table([pa.array(values[one.name], one.type) for one in schema], schema=schema)


def said(rows: pa.Table, *, compiled: bool = False) -> list[dict[str, Any]]:
    """What a topic holds of the rows: written as a replica does, and read back."""
    (batch,) = rows.to_batches()
    encode = prediction_encoder(own_fields(rows.schema), "m", "1", compiled)
    return [msgspec.json.decode(text) for text in encode(batch).to_pylist()]


@settings(deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=20), st.booleans())
def test_a_short_decimal_is_its_float(values: list[float], compiled: bool) -> None:
    """Whatever digits the encoder writes for 32 bits, the row's value comes back."""
    rows = table([pa.field("score", pa.float32())], {"score": values}, len(values))
    made = said(rows, compiled=compiled and COMPILED)
    found = of_predictions(range(len(values)), [b"k"] * len(values), made, rows.schema)
    assert found == of_table(rows)
    assert digests(found).tolist() == digests(of_table(rows)).tolist()


@settings(deadline=None)
@given(st.floats(-(2.0**100), 2.0**100, width=32))
def test_the_next_float_is_another_one(value: float) -> None:
    """One bit of difference is a difference, and is named."""
    other = float(np.nextafter(np.float32(value), np.float32(math.inf)))
    fields = [pa.field("score", pa.float32())]
    rows, others = table(fields, {"score": [value]}, 1), table(fields, {"score": [other]}, 1)
    (found,) = of_predictions([0], [b"k"], said(others), rows.schema)
    assert found is not None
    (row,) = of_table(rows)
    assert digests([found]).tolist() != digests([row]).tolist()
    (text,) = differences(rows.schema, row, found)
    assert text.startswith("score ")


KINDS = [
    (pa.int64(), [1, None, -(1 << 60)]),
    (pa.bool_(), [True, False, None]),
    (pa.string(), ["é", "", None]),
    (pa.list_(pa.float32()), [[0.1, 2.0], [], None]),
    (
        pa.struct([("a", pa.int32()), ("b", pa.string())]),
        [{"a": 1, "b": "x"}, {"a": None, "b": None}, None],
    ),
    (pa.map_(pa.int64(), pa.float32()), [{1: 0.5}, {}, None]),
    (pa.map_(pa.string(), pa.float64()), [{"a": 0.1}, {"b": 1.0, "a": 2.0}, None]),
    (pa.timestamp("us", "UTC"), [datetime.datetime(2026, 1, 1, tzinfo=UTC), None]),
    (pa.binary(), [b"\x00\xff", b"", None]),
]


@pytest.mark.parametrize(
    ("kind", "values"), KINDS, ids=lambda one: str(one) if isinstance(one, pa.DataType) else ""
)
def test_each_type_comes_back_from_json(kind: pa.DataType, values: list[Any]) -> None:
    """Every type that a column may have is equal to what its prediction says."""
    if pa.types.is_map(kind):
        values = [None if one is None else list(one.items()) for one in values]
    rows = table([pa.field("x", kind)], {"x": values}, len(values))
    found = of_predictions(range(len(values)), [b"k"] * len(values), said(rows), rows.schema)
    assert found == of_table(rows)


@pytest.mark.parametrize(
    "prediction",
    [
        {"source": [0, 0], "model": "m", "model_version": "1"},
        {"source": [0, 0], "score": "high", "model": "m", "model_version": "1"},
        {"source": [0, 0], "score": True, "other": 1, "model": "m", "model_version": "1"},
        {"source": [0, 0], "score": [0.5], "model": "m", "model_version": "1"},
    ],
)
def test_a_prediction_of_another_form_is_no_row(prediction: dict[str, Any]) -> None:
    """A column that lacks, is of another type, or is not asked for makes it none; neighbours stay."""
    schema = job_schema([pa.field("score", pa.float32())])
    good = {"source": [0, 1], "score": 0.5, "model": "m", "model_version": "1"}
    found = of_predictions([0, 1], [None, None], [prediction, good], schema)
    assert found == [None, (1, None, "m", "1", 0.5)]
