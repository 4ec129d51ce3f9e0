"""JSON to columns: one bad record is one reject, and its neighbours go on."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.decode import json_decoder
from pipeline.errors import ConfigInvalid
from pipeline.json_flat import COMPILED, is_flat
from pipeline.model import Choice, FieldSpec, IdSpec, InputSpec, Tensor
from pipeline.ragged import Ragged
from pipeline.recipe import Decoded, Needs
from pipeline.schema import pass_through_fields
from pipeline.vocabulary import Vocabulary

FLOAT = Tensor("float", (None, 2))


def named(*fields: FieldSpec, kind: str = "float", **rest: Any) -> Needs:
    tensor = Tensor(kind, (None, len(fields)))
    return Needs(((InputSpec("x", fields, stacked=True), tensor),), **rest)


def single(field: FieldSpec, tensor: Tensor, **rest: Any) -> Needs:
    return Needs(((InputSpec("x", (field,), stacked=False), tensor),), **rest)


AB = named(FieldSpec("a"), FieldSpec("b"))
VECTOR = single(FieldSpec("v"), FLOAT)


def decode(needs: Needs, *values: bytes | None) -> Decoded:
    """Decode in both ways, which must answer alike, to the letter of each reject."""
    column = pa.array(values, pa.binary())
    decoded = json_decoder(needs, compiled=COMPILED)(column)
    twin = json_decoder(needs, compiled=False)(column)
    assert decoded.rejects == twin.rejects
    assert decoded.accepted.tolist() == twin.accepted.tolist()
    events: Any = decoded.events
    others: Any = twin.events
    assert events.columns == others.columns
    assert events.feeds.keys() == others.feeds.keys()
    for name, feed in events.feeds.items():
        assert (feed.dtype, feed.shape) == (others.feeds[name].dtype, others.feeds[name].shape)
        np.testing.assert_array_equal(feed, others.feeds[name])
    assert events.ids.keys() == others.ids.keys()
    for name, lists in events.ids.items():
        assert as_lists(lists) == as_lists(others.ids[name])
    assert (decoded.event_time is None) == (twin.event_time is None)
    if decoded.event_time is not None and twin.event_time is not None:
        assert decoded.event_time.tolist() == twin.event_time.tolist()
    return decoded


def as_lists(ragged: Ragged) -> list[list[int] | None]:
    """Row by row, None where there is no list."""
    bounds = ragged.offsets.tolist()
    lists = [ragged.values[a:b].tolist() for a, b in itertools.pairwise(bounds)]
    absent = ragged.absent
    return lists if absent is None else [None if absent[i] else x for i, x in enumerate(lists)]


def test_the_compiled_part_was_built() -> None:
    """Where a compiler is, the tests of this module hold both ways of reading together."""
    if not COMPILED:
        pytest.skip("pipeline/_scan.cpp was not built: `pip install` found no C++17 compiler")


def reasons(decoded: Decoded) -> list[tuple[int, str, str]]:
    assert all(reject.stage == "decode" for reject in decoded.rejects)
    return [(reject.row, reject.exception, reject.message) for reject in decoded.rejects]


BAD_ANYWHERE = [
    (None, "Tombstone"),
    (b"", "MalformedJSON"),
    (b'{"a": 1, "b": 2, "v": [1, 2]', "MalformedJSON"),
    (b'{"a": 1, "b": 2, "v": [1, 2]} x', "MalformedJSON"),
    (b'{"a": NaN, "b": 2, "v": [NaN, 2]}', "MalformedJSON"),
    (b'{"a": 1, "b": 2, "v": [1, 2], "c": "\xff"}', "InvalidUTF8"),
    (b"[1, 2]", "NotAnObject"),
    (b"7", "NotAnObject"),
    (b"[" * 1000 + b"]" * 1000, "TooDeep"),
    (b'{"a": 1, "b": 2, "v": [1, 2], "c": ' + b"[" * 1000 + b"]" * 1000 + b"}", "TooDeep"),
    (
        b'{"a": 1, "b": 2, "v": [1, 2], "c": ' + b'{"c":' * 100_000 + b"1" + b"}" * 100_001,
        "TooDeep",
    ),
    (b'{"c": "a newline\n in a string"}', "MalformedJSON"),
]
BAD_NUMBERS = [
    ("1e39", "InvalidField"),
    ("1e400", None),
    ("true", "InvalidField"),
    ('"1"', "InvalidField"),
    ("null", None),
    ("[1]", "InvalidField"),
    ("{}", "InvalidField"),
    ("1" + "0" * 400, None),
]


@pytest.mark.parametrize("needs", [AB, VECTOR], ids=["named", "vector"])
@pytest.mark.parametrize(("value", "exception"), BAD_ANYWHERE)
def test_bad_record_is_one_reject(needs: Needs, value: bytes | None, exception: str) -> None:
    """Whatever is wrong with a record, it alone is rejected and says why."""
    good = b'{"a": 1, "b": 2.5, "v": [1, 2.5]}'
    decoded = decode(needs, good, value, good)
    assert [(row, name) for row, name, _ in reasons(decoded)] == [(1, exception)]
    assert decoded.accepted.tolist() == [0, 2]
    assert decoded.events.feeds["x"].tolist() == [[1, 2.5], [1, 2.5]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("number", "exception"), BAD_NUMBERS)
@pytest.mark.parametrize("template", ['{"a": 1, "b": %s}', '{"v": [1, %s]}'])
def test_bad_number_is_one_reject(template: str, number: str, exception: str | None) -> None:
    """What is no number of the input's type is rejected, as a field and inside an array."""
    needs = VECTOR if "v" in template else AB
    good = b'{"a": 3, "b": 4, "v": [3, 4]}'
    decoded = decode(needs, (template % number).encode(), good)
    ((row, name, message),) = reasons(decoded)
    assert row == 0
    assert decoded.events.feeds["x"].tolist() == [[3, 4]]  # type: ignore[attr-defined]
    if exception is not None:
        assert name == exception
        assert ("'v'" if "v" in template else "'b'") in message


@pytest.mark.parametrize("array", ["[1]", "[1, 2, 3]", "[]", "[[1, 2]]", "[[1, 2], []]", "{}", "1"])
def test_array_of_another_shape_is_rejected(array: str) -> None:
    """An array too short, too long or nested never reaches the model."""
    decoded = decode(VECTOR, f'{{"v": {array}}}'.encode(), b'{"v": [1, 2]}')
    assert [name for _, name, _ in reasons(decoded)] == ["InvalidField"]
    assert decoded.accepted.tolist() == [1]


def test_array_takes_integers_and_other_arrays_beside_it() -> None:
    """Integers in an array are numbers; an array that nobody asked for changes nothing."""
    decoded = decode(VECTOR, b'{"tags": [[1], ["x"]], "v": [1, -2]}', b'{"v": [0.5, 3]}')
    assert decoded.events.feeds["x"].tolist() == [[1, -2], [0.5, 3]]  # type: ignore[attr-defined]
    assert not decoded.rejects


@pytest.mark.parametrize(
    ("kind", "number", "good"),
    [
        ("int32", "2147483648", True),
        ("int64", "9223372036854775808", True),
        ("int64", "1.5", True),
        ("int64", "true", True),
        ("double", "1e400", True),
        ("bool", "1", False),
        ("string", "1", False),
    ],
)
def test_other_kinds_are_held_to_their_type(kind: str, number: str, good: bool) -> None:
    """Integers, doubles, bools and strings out of type or range are rejected."""
    fine: Any = {"bool": True, "string": "é"}.get(kind, 7)
    needs = single(FieldSpec("a"), Tensor(kind, (None,)))
    decoded = decode(needs, f'{{"a": {number}}}'.encode(), json.dumps({"a": fine}).encode())
    assert decoded.accepted.tolist() == [1]
    feed = decoded.events.feeds["x"]  # type: ignore[attr-defined]
    assert feed.shape == (1,)
    assert feed[0] == fine
    assert good or len(decoded.rejects) == 1


def test_missing_field_is_named() -> None:
    """The message says which field is missing and who says that it is needed."""
    assert reasons(decode(AB, b'{"a": 1}')) == [
        (0, "MissingField", "field 'b' is missing; model.yaml says it is required")
    ]


def test_choices_stand_in_for_what_is_wrong() -> None:
    """`missing`, `null` and `invalid` each put their own value in place."""
    field = FieldSpec("a", missing=math.nan, null=2, invalid=3.0)
    needs = named(field, FieldSpec("b"), pass_through=pass_through_fields({"a": "float64"}))
    decoded = decode(needs, b'{"b": 1}', b'{"a": null, "b": 1}', b'{"a": 0.5, "b": 1}')
    np.testing.assert_array_equal(
        decoded.events.feeds["x"],  # type: ignore[attr-defined]
        np.array([[math.nan, 1], [2, 1], [0.5, 1]], np.float32),
    )
    assert decoded.events.columns["a"] == [None, None, 0.5]  # type: ignore[attr-defined]
    decoded = decode(named(field), b'{"a": "x"}', b'{"a": 1e39}')
    assert decoded.events.feeds["x"].tolist() == [[3], [3]]  # type: ignore[attr-defined]


def test_choice_reject_for_null_only() -> None:
    """A field may be absent and yet not null."""
    needs = named(FieldSpec("a", missing=0.0, null=Choice.REJECT))
    decoded = decode(needs, b"{}", b'{"a": null}')
    assert decoded.accepted.tolist() == [0]
    assert reasons(decoded)[0][:2] == (1, "NullField")


def test_default_of_a_vector() -> None:
    """A whole array has a default, as a list or as NaN throughout."""
    needs = single(FieldSpec("v", missing=[1.0, 2.0], null=math.nan), FLOAT)
    decoded = decode(needs, b"{}", b'{"v": null}', b'{"v": [5, 6]}')
    np.testing.assert_array_equal(
        decoded.events.feeds["x"],  # type: ignore[attr-defined]
        [[1, 2], [math.nan, math.nan], [5, 6]],
    )


@pytest.mark.parametrize("default", [[1, 2], [1.0, 2.0]])
def test_default_of_a_vector_may_be_integers(default: list[float]) -> None:
    """A default written without decimal points is the same default, by both ways of reading."""
    needs = single(FieldSpec("v", missing=default), FLOAT)
    for beside in ("1", "[[1]]"):
        decoded = decode(needs, f'{{"c": {beside}}}'.encode(), b'{"v": [5, 6]}')
        assert decoded.events.feeds["x"].tolist() == [[1, 2], [5, 6]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("neighbour", [b'{"v": [1, 2]}', b'{"v": [1, 2], "c": [3]}', None, b""])
def test_float_beyond_float32_is_rejected_beside_any_neighbour(neighbour: bytes | None) -> None:
    """What would only round to the largest float32 is out of range, whoever stands beside it."""
    decoded = decode(VECTOR, b'{"v": [3.40282350e38, 2]}', neighbour)
    assert (0, "InvalidField") in [(row, name) for row, name, _ in reasons(decoded)]


def test_rejects_leave_the_other_kinds_in_place() -> None:
    """A record that is rejected moves no neighbour's value, whatever the kind of its columns."""
    inputs = (
        (InputSpec("n", (FieldSpec("n"),), stacked=False), Tensor("int64", (None,))),
        (InputSpec("w", (FieldSpec("o.w"),), stacked=False), Tensor("string", (None, 2))),
        (InputSpec("f", (FieldSpec("o.f"),), stacked=False), Tensor("double", (None,))),
    )
    passed = pass_through_fields({"o": {"b": "bool"}, "tags": ["string"]})
    good = [
        {"n": i, "o": {"w": ["a", str(i)], "f": i / 2, "b": True}, "tags": [str(i)], "ts": i}
        for i in range(3)
    ]
    values: list[bytes | None] = [json.dumps(event).encode() for event in good]
    values[1:1] = [None, b"{}", b"[" * 2000]
    decoded = decode(Needs(inputs, passed, event_time="ts"), *values)
    assert decoded.accepted.tolist() == [0, 4, 5]
    feeds, columns = decoded.events.feeds, decoded.events.columns  # type: ignore[attr-defined]
    assert feeds["n"].tolist() == [0, 1, 2]
    assert feeds["w"].tolist() == [["a", "0"], ["a", "1"], ["a", "2"]]
    assert feeds["f"].tolist() == [0, 0.5, 1]
    assert columns == {"o": [{"b": True}] * 3, "tags": [["0"], ["1"], ["2"]]}
    assert decoded.event_time is not None
    assert decoded.event_time.tolist() == [0, 1000, 2000]
    assert [name for _, name, _ in reasons(decoded)] == ["Tombstone", "MissingField", "TooDeep"]


def test_dotted_names_reach_into_objects() -> None:
    """Nested fields are found, missing ones are named, and the object itself may pass through."""
    passed = pass_through_fields({"geo": {"country": "string", "lat": "float64"}, "tags": ["int8"]})
    needs = named(FieldSpec("geo.lat"), FieldSpec("geo.at.x"), pass_through=passed)
    decoded = decode(
        needs,
        b'{"geo": {"lat": 1, "at": {"x": 2}, "country": "NL"}, "tags": [1, null]}',
        b'{"geo": {"lat": 1}}',
        b'{"geo": 3}',
        b'{"geo": {"lat": 4, "at": {"x": 5}}, "tags": [300]}',
    )
    assert decoded.events.feeds["x"].tolist() == [[1, 2]]  # type: ignore[attr-defined]
    columns = decoded.events.columns  # type: ignore[attr-defined]
    assert columns["geo"] == [{"country": "NL", "lat": 1.0}]
    assert columns["tags"] == [[1, None]]
    assert [message.split(" ")[1] for _, _, message in reasons(decoded)] == [
        "'geo.at.x'",
        "'geo.lat'",
        "'tags'",
    ]


def test_what_passes_through_may_be_absent_but_not_mistyped() -> None:
    """An absent field becomes null; one of another type rejects the record."""
    for needs in (named(FieldSpec("a")), VECTOR):
        asked = Needs(needs.inputs, pass_through_fields({"id": "int64", "card": "string"}))
        event = {"a": 1, "v": [1, 2]}
        values = [
            json.dumps({**event, **more}).encode()
            for more in ({"id": 1, "card": "x"}, {}, {"id": "1"}, {"id": True}, {"card": None})
        ]
        decoded = decode(asked, *values)
        assert decoded.accepted.tolist() == [0, 1, 4]
        assert decoded.events.columns == {"id": [1, None, None], "card": ["x", None, None]}  # type: ignore[attr-defined]
        assert {name for _, name, _ in reasons(decoded)} == {"InvalidField"}


def test_event_time_in_milliseconds_or_iso() -> None:
    """Times become µs; what is no time, or absent, rejects the record."""
    for needs in (named(FieldSpec("a")), VECTOR):
        asked = Needs(needs.inputs, event_time="ts")
        times = ["1000", '"1970-01-01T00:00:02Z"', '"1970-01-01T01:00:03+01:00"', "true", '"soon"',
                 "1e3", "99999999999999999999", "9999999999999999", None]  # fmt: skip
        values = [
            (f'{{"a": 1, "v": [1, 2], "ts": {time}}}' if time else '{"a": 1, "v": [1, 2]}').encode()
            for time in times
        ]
        decoded = decode(asked, *values)
        assert decoded.event_time is not None
        assert decoded.event_time.tolist() == [1_000_000, 2_000_000, 3_000_000]
        assert [row for row, _, _ in reasons(decoded)] == [3, 4, 5, 6, 7, 8]


def test_extra_fields_are_rejected_where_asked() -> None:
    """`extra_fields: reject` names the field that nobody asked for; the default ignores it."""
    value = b'{"a": 1, "b": 2, "c": 3}'
    assert decode(AB, value).accepted.tolist() == [0]
    strict = Needs(AB.inputs, extra_fields="reject")
    assert "'c'" in reasons(decode(strict, value))[0][2]
    assert decode(strict, b'{"a": 1, "b": 2}').accepted.tolist() == [0]


def test_array_fills_an_input_of_more_axes() -> None:
    """A flat array takes the shape of the input, [batch, 1, 4]."""
    decoded = decode(single(FieldSpec("v"), Tensor("float", (None, 1, 4))), b'{"v": [1, 2, 3, 4]}')
    assert decoded.events.feeds["x"].shape == (1, 1, 4)  # type: ignore[attr-defined]


def test_several_inputs_of_several_kinds() -> None:
    """Each input gets its own fields and type; one field may feed two inputs."""
    needs = Needs(
        (
            (InputSpec("x", (FieldSpec("a"), FieldSpec("b")), stacked=True), FLOAT),
            (InputSpec("user", (FieldSpec("u"),), stacked=False), Tensor("int64", (None, 1))),
            (InputSpec("words", (FieldSpec("w"),), stacked=False), Tensor("string", (None, 2))),
            (InputSpec("again", (FieldSpec("a"),), stacked=False), Tensor("double", (None,))),
        )
    )
    decoded = decode(needs, b'{"a": 1, "b": 2, "u": 3, "w": ["x", "y"]}')
    feeds = decoded.events.feeds  # type: ignore[attr-defined]
    assert {name: feed.tolist() for name, feed in feeds.items()} == {
        "x": [[1, 2]],
        "user": [[3]],
        "words": [["x", "y"]],
        "again": [1],
    }
    assert feeds["again"].dtype == np.float64


def test_types_that_exclude_each_other_are_mistakes() -> None:
    """A field asked for as a number and as a string is found before the start."""
    with pytest.raises(ConfigInvalid, match="exclude"):
        json_decoder(Needs(AB.inputs, pass_through_fields({"a": "string"})))


def test_empty_batch() -> None:
    """No values give no events, in the right shape."""
    for needs in (AB, VECTOR):
        decoded = decode(needs)
        assert decoded.events.feeds["x"].shape == (0, 2)  # type: ignore[attr-defined]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.sampled_from("abvct"), below),
    max_leaves=8,
)
FLOATS = st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2
)
EVENTS = st.builds(lambda v, i: {"a": v[0], "b": v[1], "v": v, "id": i}, FLOATS, st.integers(0, 9))


@given(
    st.lists(
        st.none() | st.binary(max_size=20) | (JSON | EVENTS).map(lambda x: json.dumps(x).encode())
    )
)
def test_each_row_is_accepted_or_rejected_as_if_alone(values: list[bytes | None]) -> None:
    """Rows are answered once each, and a record's answer does not depend on its neighbours."""
    for needs in (AB, VECTOR):
        asked = Needs(needs.inputs, pass_through_fields({"id": "int64"}))
        read = json_decoder(asked)
        together = decode(asked, *values)
        rows = [*together.accepted.tolist(), *(reject.row for reject in together.rejects)]
        assert sorted(rows) == list(range(len(values)))
        feed = iter(together.events.feeds["x"])  # type: ignore[attr-defined]
        column = pa.array(values, pa.binary())
        for row in range(len(values)):
            alone = read(column.slice(row, 1))
            assert len(alone.accepted) == (row in together.accepted)
            if len(alone.accepted):
                np.testing.assert_array_equal(alone.events.feeds["x"][0], next(feed))  # type: ignore[attr-defined]


def test_a_record_that_breaks_off_does_not_go_on_in_the_next_one() -> None:
    """Values stand side by side in one buffer, and each ends where it ends."""
    decoded = decode(AB, b'{"a": 1, "b": 2', b"3}", b'{"a": 1, "b": 2}', b'{"a": "', b'", "b": 3}')
    assert decoded.accepted.tolist() == [2]


@given(st.lists(EVENTS))
def test_good_events_arrive_exactly(events: list[dict[str, Any]]) -> None:
    """What a float32 can hold arrives unchanged, by both ways of reading."""
    values = [json.dumps(event).encode() for event in events]
    expected = np.array([event["v"] for event in events], np.float32).reshape(-1, 2)
    for needs in (AB, VECTOR):
        decoded = decode(needs, *values)
        assert not decoded.rejects
        np.testing.assert_array_equal(decoded.events.feeds["x"], expected)  # type: ignore[attr-defined]


DOUBLE = Needs(
    ((InputSpec("x", (FieldSpec("x"),), stacked=False), Tensor("double", (None,))),),
    pass_through_fields({"x": "float64", "n": "int64"}),
)


NUMBER_TEXTS = (
    st.from_regex(r"-?(0|[1-9][0-9]{0,22})(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    | st.from_regex(r"-?[0-9]\.[0-9]{14,17}", fullmatch=True)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr)
)


@given(NUMBER_TEXTS)
def test_numbers_are_rounded_as_python_rounds_them(text: str) -> None:
    """Any number that JSON can write arrives as the double nearest to it."""
    decoded = decode(DOUBLE, f'{{"x":{text} }}'.encode())
    if math.isfinite(float(text)):
        assert decoded.events.feeds["x"].tolist() == [float(text)]  # type: ignore[attr-defined]
    else:
        assert len(decoded.rejects) == 1


@given(st.lists(NUMBER_TEXTS, min_size=2, max_size=40), st.sampled_from(["", " ", "  \n"]))
@example(["9.740865532228085", "-0.9728340843400927"], "")  # one division would round them twice
@example([f"{whole}.{12345678901234567890 % 10**places:0{places}}"
          for whole in ("0", "-7", "12") for places in range(1, 21)], " ")  # fmt: skip
def test_numbers_of_an_array_are_rounded_alike(texts: list[str], space: str) -> None:
    """An array of any length arrives number by number as each would alone, however it is spaced."""
    needs = single(FieldSpec("v"), Tensor("double", (None, len(texts))))
    array = f"[{space}{f'{space},{space}'.join(texts)}{space}]"
    decoded = decode(needs, f'{{"v":{array},"w":{array}}}'.encode())
    numbers = [float(text) for text in texts]
    if all(math.isfinite(number) for number in numbers):
        assert decoded.events.feeds["x"].tolist() == [numbers]  # type: ignore[attr-defined]
    else:
        assert len(decoded.rejects) == 1


@given(st.integers(-(2**65), 2**65) | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1]))
def test_integers_keep_every_digit(number: int) -> None:
    """An integer passes through as it is, or is refused where 64 bits cannot hold it."""
    decoded = decode(DOUBLE, f'{{"x":0,"n":{number}}}'.encode())
    if -(2**63) <= number < 2**63:
        assert decoded.events.columns["n"] == [number]  # type: ignore[attr-defined]
    else:
        assert len(decoded.rejects) == 1


TEXTS = Needs((), pass_through_fields({"s": "string", "ok": "bool", "small": "int8"}), "at")


@given(st.lists(st.dictionaries(
    st.sampled_from(["s", "ok", "small", "at", "other"]),
    st.none() | st.booleans() | st.text(max_size=6) | st.integers(-200, 200) | JSON,
), max_size=5), st.booleans())  # fmt: skip
def test_texts_arrive_whole_whatever_stands_beside_them(
    events: list[dict[str, Any]], ascii_only: bool
) -> None:
    """Strings, bools and small integers are read alike in both ways, escaped or as UTF-8."""
    values = [json.dumps(event, ensure_ascii=ascii_only).encode(errors="surrogatepass")
              for event in events]  # fmt: skip
    decoded = decode(TEXTS, *values)
    kept: Any = decoded.events
    assert kept.columns["s"] == [events[row].get("s") for row in decoded.accepted.tolist()]


@given(st.binary(max_size=12), st.integers(0, 40))
def test_broken_bytes_are_never_taken_for_more_than_they_are(noise: bytes, at: int) -> None:
    """Whatever bytes get into a record, both ways of reading accept or refuse it alike."""
    whole = b'{"v": [1, -2.5e1], "s": "text", "c": {"d": [true]}}'
    asked = Needs(VECTOR.inputs, pass_through_fields({"s": "string"}))
    decode(asked, whole[:at] + noise + whole[at:], whole, whole[:at], whole[:at] + noise)


@given(st.binary(max_size=4) | st.text("0123456789.,-e ]", max_size=4), st.integers(0, 86))
def test_broken_bytes_in_a_long_array_are_no_numbers(noise: str | bytes, at: int) -> None:
    """An array is read in blocks, and whatever gets into one is accepted or refused alike."""
    numbers = [0.5, -2.25, 7, 12.5, 0.123456789012, -0.0, 9.007199254740993, 3e-7, 0.1, 1.0]
    whole = json.dumps({"v": numbers}).encode()
    dirt = noise if isinstance(noise, bytes) else noise.encode()
    kind = Tensor("double", (None, len(numbers)))
    decode(single(FieldSpec("v"), kind), whole[:at] + dirt + whole[at:], whole, whole[:at] + dirt)


def test_a_field_named_twice_counts_as_it_stands_last() -> None:
    """Of two fields with one name the last one counts, as in every common JSON reader."""
    decoded = decode(VECTOR, b'{"v": [1, 2], "v": [3, 4]}')
    assert decoded.events.feeds["x"].tolist() == [[3, 4]]  # type: ignore[attr-defined]


# -- ids -----------------------------------------------------------------------------------------

NUMBERS = Vocabulary("items", pa.array([30, -5, 2**63 - 1, -(2**63), 0], pa.int64()))
WORDS = Vocabulary("users", pa.array(["ann", "zoë"], pa.string()), first=1)
LISTED: Any = {"many": True, "unknown": "drop", "empty": "keep"}
VISIT = Needs(
    (),
    pass_through_fields({"user": "string", "item": "int64"}),
    ids=(
        IdSpec("history", FieldSpec("history"), NUMBERS, **LISTED),
        IdSpec("lately", FieldSpec("lately", missing=[], null=[]), NUMBERS, **LISTED),
        IdSpec("before", FieldSpec("before", missing=[30], null=[]), NUMBERS, **LISTED),
        IdSpec("candidates", FieldSpec("candidates"), NUMBERS, optional=True, **LISTED),
        IdSpec("user", FieldSpec("user", missing="ann"), WORDS, unknown=0),
        IdSpec("item", FieldSpec("item", missing=30, null=0), NUMBERS, unknown=4),
    ),
)


def visit(**fields: Any) -> bytes:
    return json.dumps({"history": [30], "user": "zoë"} | fields, ensure_ascii=False).encode()


def ids(decoded: Decoded, name: str) -> list[list[int] | None]:
    found: Any = decoded.events
    return as_lists(found.ids[name])


def test_ids_are_read_as_columns_where_something_was_compiled() -> None:
    """Integers alone or in arrays and single strings are flat; arrays of strings are not."""
    assert is_flat(VISIT)
    assert not is_flat(Needs((), ids=(IdSpec("u", FieldSpec("u"), WORDS, many=True),)))
    assert not is_flat(Needs((), ids=(IdSpec("u", FieldSpec("o.u"), NUMBERS),)))


def test_arrays_of_ids_keep_their_length_and_order() -> None:
    """Any number of ids, of any size, with any space between, beside rows that are refused."""
    decoded = decode(
        VISIT,
        visit(history=[0, 30, 0, -5]),
        visit(history=[]),
        b'{"history": [1, "x"], "user": "ann"}',
        b'{"user": "ann", "history" : [ 9223372036854775807 ,\n-9223372036854775808,-0 ] }',
        visit(history=[77, 30]),
        b"[",
    )
    assert ids(decoded, "history") == [[4, 0, 4, 1], [], [2, 3, 4], [0]]
    assert ids(decoded, "user") == [[2], [2], [1], [2]]
    assert [row for row, _, _ in reasons(decoded)] == [2, 5]


def test_what_stands_in_for_ids_is_what_model_yaml_says() -> None:
    """An absent list is empty, another list, or none at all; an absent id is the one chosen."""
    nulls = dict.fromkeys(("lately", "before", "candidates", "item"))
    decoded = decode(VISIT, visit(), visit(**nulls), visit(candidates=[30, None]), b'{"user": 1}')
    assert ids(decoded, "lately") == [[], [], []]
    assert ids(decoded, "before") == [[0], [], [0]]
    assert ids(decoded, "candidates") == [None, None, [0]]
    assert ids(decoded, "item") == [[0], [4], [0]]
    assert [row for row, _, _ in reasons(decoded)] == [3]


ID = st.integers() | st.sampled_from([30, -5, 0, 2**63 - 1, 2**63, -(2**63)])


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                name: st.lists(ID, max_size=4) | st.lists(ID | JSON, max_size=3) | JSON
                for name in ("history", "lately", "before", "candidates")
            }
            | {"user": st.text(max_size=3) | JSON, "item": ID | JSON},
        ).map(lambda event: json.dumps(event).encode())
        | st.binary(max_size=8),
        max_size=5,
    )
)
def test_ids_are_read_alike_in_both_ways(values: list[bytes]) -> None:
    """Whatever stands in the place of ids, both ways of reading accept or refuse it alike."""
    decode(VISIT, *values, visit(), *values)


@given(st.binary(max_size=12), st.integers(0, 30))
def test_broken_bytes_in_an_array_of_ids_are_no_ids(noise: bytes, at: int) -> None:
    """An array cut short or with anything between its ids is read alike in both ways."""
    whole = b'{"user":"ann","history":[30, -5]}'
    decode(VISIT, whole[:at] + noise + whole[at:], whole, whole[:at], whole[:at] + noise)
