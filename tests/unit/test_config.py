"""The fields of a config and what their metadata says of them."""

import dataclasses
import pickle

import pytest

from pipeline import settings, shapes
from pipeline.config import Config, Input, Secret
from pipeline.decode import DECODERS

LEAVES = [
    (field, hint)
    for section in (
        Config,
        *(hint for _, hint in settings.settings_of(Config) if settings.is_section(hint)),
    )
    for field, hint in settings.settings_of(section)
    if not settings.is_section(hint)
]


@pytest.mark.parametrize(("field", "hint"), LEAVES, ids=lambda value: getattr(value, "name", ""))
def test_every_setting_says_what_it_means_and_its_default_is_legal(field, hint):
    """Each field has a help text, and a default that its own checks accept."""
    assert field.metadata["help"]
    assert field.metadata.get("shape", "job") in shapes.CHECKS
    if field.default is not dataclasses.MISSING and field.default is not None:
        kind, _ = settings.kind_of_hint(hint)
        assert shapes.typed(field.default, kind) == field.default
        shapes.check_range(field.default, field.metadata)


def test_the_formats_are_those_that_have_a_decoder():
    """`input.format` takes each name in the table of decoders and no other."""
    choices = Input.__dataclass_fields__["format"].metadata["choices"]
    assert set(choices) == set(DECODERS)


def test_the_job_stands_first():
    """The job's name is read before what is derived from it."""
    assert dataclasses.fields(Config)[0].name == "job"


def test_a_secret_is_a_text_that_no_repr_shows():
    """A secret hides in every repr, also after it travelled, and clients get its text."""
    secret = pickle.loads(pickle.dumps(Secret("hunter2")))
    assert secret == "hunter2"
    assert "hunter2" not in repr({"sasl.password": secret})
