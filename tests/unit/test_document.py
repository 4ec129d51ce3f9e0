"""Strict YAML."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.document import expand, read, scalar
from pipeline.shapes import WrongError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("10:30", "10:30"),
        ("2026-01-31T08:00:00Z", "2026-01-31T08:00:00Z"),
        ("1e3", 1000.0),
        ("8_192", 8192),
        ("true", True),
        ("~", None),
        (".5", 0.5),
        ("'5'", "5"),
    ],
)
def test_plain_scalars_are_resolved_as_yaml_1_2_does(text, value):
    """Only numbers, true, false and null are other than texts."""
    document, mistakes = read(f"a: {text}", "job.yaml")
    assert document == {"a": value}
    assert type(document["a"]) is type(value)
    assert not mistakes


def test_a_key_that_stands_twice_is_a_mistake():
    """Both lines of a duplicate are not silently one."""
    _, mistakes = read("a: 1\nb: {c: 1, c: 2}\na: 2\n", "job.yaml")
    assert {(str(m.value), m.problem) for m in mistakes} == {
        ("line 2", "c stands there twice"),
        ("line 3", "a stands there twice"),
    }


@pytest.mark.parametrize(
    "text",
    [
        "a: *hunter2",
        "a: &x 1\nb: *x",
        "a: !hunter2 b",
        "a: !!python/name:os.system x",
        "a: [",
        "a: b: hunter2",
        "a: 'hunter2",
        '"\\hunter2"',
        "a: @hunter2",
        "a: 1\n---\nhunter2: 1",
        "[[1]]: 2",
        "a: \x00",
        "[" * 5000,
        "a: " + "9" * 5000,
    ],
)
def test_what_is_no_strict_yaml_is_one_mistake_without_the_text(text):
    """A broken file is a mistake that names a place and holds nothing that may be a secret."""
    document, (mistake,) = read(text, "job.yaml")
    assert document is None
    assert mistake.setting == "job.yaml"
    assert "hunter2" not in str(mistake)


@given(st.text())
def test_any_text_is_read_or_a_mistake(text):
    """No text raises."""
    read(text, "job.yaml")


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`#?,\n \t01", max_size=40))
def test_any_punctuation_is_read_or_a_mistake(text):
    """No mixture of YAML's own characters raises."""
    read(text, "job.yaml")


def test_scalar_resolves_numbers_and_leaves_the_rest():
    """What the environment held becomes a number where it is one."""
    assert scalar("9108") == 9108
    assert scalar("true") is True
    assert math.isnan(scalar(".nan"))
    assert scalar("[1") == "[1"
    assert scalar("[1]") == "[1]"


def test_expand_fills_in_names_and_defaults():
    """A default counts where the name is unset or empty, as in a shell."""
    environ = {"A": "1", "EMPTY": ""}
    assert expand("${A}/${B:-x:-y}/${EMPTY:-z}/${EMPTY}$A", environ) == "1/x:-y/z/$A"


def test_expand_names_every_unset_variable():
    """Both unset names are in the one message."""
    with pytest.raises(WrongError) as caught:
        expand("${ONE}${A}${TWO}", {"A": ""})
    assert "ONE, TWO" in caught.value.problem


@pytest.mark.parametrize("text", ["${", "${}", "${A", "${1A}", "${A-b}", "${A }"])
def test_expand_refuses_what_is_no_reference(text):
    """A reference that is not closed or names nothing is a mistake."""
    with pytest.raises(WrongError, match="without a name"):
        expand(text, {"A": "1"})
