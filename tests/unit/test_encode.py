"""Predictions as JSON: both ways of writing mean the same to any reader."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.encode import COMPILED, prediction_encoder

FIELDS = (
    pa.field("id", pa.int64()),
    pa.field("small", pa.int8()),
    pa.field("score", pa.float32()),
    pa.field("exact", pa.float64()),
    pa.field("flagged", pa.bool_()),
    pa.field("a näme", pa.string()),
    pa.field("items", pa.list_(pa.int64())),
    pa.field("scores", pa.list_(pa.float32())),
)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROWS = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.integers(-128, 127),
    st.none() | FLOATS,
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.booleans(),
    st.none() | st.text(),
    st.none() | st.lists(st.none() | st.integers(-9, 9), max_size=3),
    st.none() | st.lists(FLOATS, max_size=3),
)


def batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    """Make rows of a job, as the middle of a longer batch."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    arrays = [pa.array([7, *range(len(rows))], pa.int32()), pa.array([8, *range(len(rows))])]
    arrays += [pa.array([None, *c], f.type) for c, f in zip(columns, FIELDS, strict=True)]
    names = ["partition", "offset", *(field.name for field in FIELDS)]
    return pa.RecordBatch.from_arrays(arrays, names=names).slice(1)


@pytest.mark.parametrize("compiled", [True, False])
@given(rows=st.lists(ROWS, min_size=1, max_size=4))
def test_a_prediction_reads_back_as_its_row(compiled: bool, rows: list[tuple[Any, ...]]) -> None:
    """Each prediction is one JSON object that names its record and holds its row's values."""
    if compiled and not COMPILED:
        pytest.skip("pipeline/_encode.cpp was not built: `pip install` found no C++17 compiler")
    written = prediction_encoder(FIELDS, "fraud", "3", compiled)(batch(rows)).to_pylist()
    assert len(written) == len(rows)
    for number, (text, row) in enumerate(zip(written, rows, strict=True)):
        source, *values, name, version = json.loads(text).values()
        assert (source, name, version) == ([number, number], "fraud", "3")
        assert list(json.loads(text)) == ["source", *(f.name for f in FIELDS), "model",
                                          "model_version"]  # fmt: skip
        for field, value, wanted in zip(FIELDS, values, row, strict=True):
            if pa.types.is_floating(field.type) and wanted is not None:
                # A reader tells a float from an integer by its point.
                assert isinstance(value, float)
            if field.name in {"score", "scores"} and wanted is not None:
                assert np.array_equal(np.float32(value), np.float32(wanted))
            else:
                assert value == wanted


def test_floats_have_the_fewest_digits_of_their_width() -> None:
    """A float32 of 0.1 is written 0.1, not as the double that it is nearest to."""
    for compiled in {COMPILED, False}:
        encode = prediction_encoder(FIELDS[2:3], "fraud", "3", compiled)
        rows = pa.RecordBatch.from_arrays(
            [pa.array([0], pa.int32()), pa.array([1]), pa.array([0.1], pa.float32())],
            names=["partition", "offset", "score"],
        )
        assert b'"score":0.1,' in encode(rows)[0].as_py()


def test_columns_that_only_python_writes_are_written() -> None:
    """Maps and objects are JSON objects, whether anything is compiled or not."""
    fields = (
        pa.field("by_label", pa.map_(pa.string(), pa.float32())),
        pa.field("geo", pa.struct({"country": pa.string()})),
    )
    rows = pa.RecordBatch.from_arrays(
        [
            pa.array([0, 0], pa.int32()),
            pa.array([1, 2]),
            pa.array([[("a", 0.5)], None], fields[0].type),
            pa.array([{"country": "NL"}, None], fields[1].type),
        ],
        names=["partition", "offset", "by_label", "geo"],
    )
    first, second = map(json.loads, prediction_encoder(fields, "m", "1")(rows).to_pylist())
    assert (first["by_label"], first["geo"]) == ({"a": 0.5}, {"country": "NL"})
    assert (second["by_label"], second["geo"]) == (None, None)


def test_no_rows_make_no_predictions() -> None:
    """An empty batch is written as an empty array."""
    rows = batch([(1, 1, 1.0, 1.0, True, "", [], [])]).slice(1)
    for compiled in {COMPILED, False}:
        assert len(prediction_encoder(FIELDS, "m", "1", compiled)(rows)) == 0
