"""`headrace explain`."""

from pipeline import kafka_keys, settings
from pipeline.config import Config
from pipeline.explain import explain


def dotted(section, prefix=""):
    """Every leaf's dotted name with its field."""
    for field, hint in settings.settings_of(section):
        if settings.is_section(hint):
            yield from dotted(hint, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field


def test_every_setting_appears_with_its_meaning():
    """Each field of each section is explained, in words that are its own."""
    lines = explain().splitlines()
    words = " ".join(explain().split())
    for name, field in dotted(Config):
        assert any(line.startswith(f"  {name} (") for line in lines) or name == "kafka", name
        assert field.metadata["help"] in words, name


def test_every_section_has_a_heading():
    """Settings are grouped by section."""
    headings = [line.split(":")[0] for line in explain().splitlines() if line[:1].isalpha()]
    sections = [f.name for f, hint in settings.settings_of(Config) if settings.is_section(hint)]
    assert {"the job", "kafka", *sections} <= set(headings)


def test_defaults_and_ranges_are_shown():
    """Defaults, derived names, choices, ranges and what is required can be read off."""
    text = explain()
    assert "  job (text; required)" in text
    assert "  input.topic (text; derived: {job}.events)" in text
    assert "  delivery (exactly_once | at_least_once; default exactly_once)" in text
    assert "  slots (whole number from 1 to 9999 or null; default null)" in text
    assert "  output.shared (true or false; default false)" in text
    assert "  dead_letters.max_dead_ratio (number above 0 to 1; default 0.1)" in text
    assert "  replicas.cpus (number from 0 to 1024; default 1.0)" in text


def test_each_refused_kafka_key_appears_with_its_reason():
    """The keys that the protocol owns are listed."""
    words = " ".join(explain().split())
    for key, owned in kafka_keys.OWNED.items():
        assert f"{key}: {owned.reason}" in words


def test_no_line_is_wider_than_a_terminal():
    """Every line fits in 100 columns."""
    assert max(map(len, explain().splitlines())) <= 100
