"""Rows of files and generators as records."""

import json
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import records
from pipeline.errors import ConfigInvalid

UUID = uuid.UUID(int=7)


def generated():
    yield {"id": 1, "amount": 2.5, "by": UUID}
    yield {"id": None, "amount": 3, "by": "x"}


def wrong():
    yield 7


def written(tmp_path, table):
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    return str(path)


def rows(source, **options):
    return [json.loads(value) for _, value in records.read(source, **options)]


def test_parquet_rows_become_json_objects(tmp_path):
    """Every column goes out under its name, also nested, null and oddly named ones."""
    moment = 1_700_000_000_123_456_789
    table = pa.table(
        {
            "my id": [1, 2],
            "text": ['a"b', None],
            "x": pa.array([float("nan"), 1.5]),
            "list": pa.array([[0.1, None], None], pa.list_(pa.float32())),
            "geo": pa.array([{"lat": 0.1}, {"lat": 2}], pa.struct([("lat", pa.float32())])),
            "at": pa.array([moment, None], pa.timestamp("ns", "UTC")),
            "on": [True, False],
        }
    )
    assert rows(written(tmp_path, table)) == [
        {
            "my id": 1,
            "text": 'a"b',
            "x": None,
            "list": [0.1, None],
            "geo": {"lat": 0.1},
            "at": "2023-11-14T22:13:20.123456Z",
            "on": True,
        },
        {
            "my id": 2,
            "text": None,
            "x": 1.5,
            "list": None,
            "geo": {"lat": 2.0},
            "at": None,
            "on": False,
        },
    ]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_float32_goes_out_as_its_shortest_text(tmp_path_factory, values):
    """The text reads back as the same float32, and is no longer than numpy's shortest."""
    table = pa.table({"x": pa.array(values, pa.float32())})
    path = written(tmp_path_factory.mktemp("rows"), table)
    for (_, encoded), value in zip(records.read(path), values, strict=True):
        found = json.loads(encoded)["x"]
        assert np.float32(found) == np.float32(value)
        assert found == float(str(np.float32(value)))


def test_keys_and_dropped_fields(tmp_path):
    """A key is its field's text, and a dropped field may still be the key."""
    path = written(tmp_path, pa.table({"id": ["a", None], "n": [1, 2], "label": [0, 1]}))
    assert list(records.read(path, "id", ["label", "id"])) == [
        (b"a", b'{"n":1}'),
        (None, b'{"n":2}'),
    ]
    assert [key for key, _ in records.read(path, "n")] == [b"1", b"2"]


def test_ndjson_lines_go_out_as_they_are(tmp_path):
    """Without a field to drop no byte of a line changes."""
    path = tmp_path / "rows.ndjson"
    path.write_bytes(b'{"id": "a", "x": 1.0}\n\n {"id": 7, "x": 1e2}\n')
    lines = [b'{"id": "a", "x": 1.0}', b'{"id": 7, "x": 1e2}']
    assert list(records.read(str(path))) == [(None, line) for line in lines]
    assert list(records.read(str(path), "id")) == list(zip([b"a", b"7"], lines, strict=True))
    assert list(records.read(str(path), drop=["id"])) == [
        (None, b'{"x":1.0}'),
        (None, b'{"x":100.0}'),
    ]


def test_a_generator_gives_dicts():
    """What a function yields is encoded, with texts for what JSON has no type for."""
    found = list(records.read(f"generator:{__name__}:generated", "id", ["amount"]))
    assert found == [(b"1", f'{{"id":1,"by":"{UUID}"}}'.encode()), (None, b'{"id":null,"by":"x"}')]


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("rows.csv", {}, "is of no known kind"),
        ("none.parquet", {}, "cannot be read"),
        ("none.ndjson", {}, "cannot be read"),
        ("bad.ndjson", {"key": "id"}, "line 2 of"),
        ("list.ndjson", {"key": "id"}, "is no object: [1]"),
        ("rows.parquet", {"key": "user"}, "is no column"),
        ("generator:none:rows", {}, "can't be imported"),
        ("generator:", {}, "can't be imported"),
        (f"generator:{__name__}:UUID", {}, "gives a UUID"),
        (f"generator:{__name__}:wrong", {}, "is no object: 7"),
    ],
)
def test_what_cannot_be_read_is_a_mistake(tmp_path, monkeypatch, source, options, said):
    """A source that is missing or wrong is named, with what is wrong about it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.ndjson").write_text("{}\n{\n")
    (tmp_path / "list.ndjson").write_text("[1]\n")
    written(tmp_path, pa.table({"id": [1]}))
    with pytest.raises(ConfigInvalid) as caught:
        list(records.read(source, **options))
    (mistake,) = caught.value.mistakes
    assert said in str(mistake)
