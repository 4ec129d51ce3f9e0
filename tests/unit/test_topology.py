"""The topics of a job: each way in which they do not fit is one mistake with a way out."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.control import Layout
from pipeline.errors import Mistake
from pipeline.settings import parse
from pipeline.topology import (
    DEFAULT_MESSAGE_BYTES,
    MOST_PARTITIONS,
    OUTPUT_BYTES,
    Topic,
    missing,
    names,
    too_small,
    unfit_layout,
)

LAYOUT = Layout(generation=1, slots=2, partitions=4, topic_id="fraud.events", ordered=True)


def config(**fields: object) -> Config:
    least = {"job": "fraud", "model": "models/fraud", "kafka": {"bootstrap.servers": "h:1"}}
    return parse({**least, **fields}, Path("/"), {})


CONFIG = config()


def topic(name: str, partitions: int = 4, limit: int | None = None) -> Topic:
    """A topic whose id is its name."""
    settings = {} if limit is None else {"max.message.bytes": str(limit)}
    return Topic(name, name, partitions, settings)


def topics(**changed: Topic) -> dict[str, Topic]:
    """The four topics of the job, of four partitions each; `changed` by what they are for."""
    kept = {one: topic(f"fraud.{one}") for one in ("events", "predictions", "dead", "journal")}
    return {one.name: one for one in {**kept, **changed}.values()}


def without(*absent: str) -> dict[str, Topic]:
    return {name: one for name, one in topics().items() if name not in absent}


def told(mistakes: list[Mistake]) -> list[tuple[str, object]]:
    return [(one.setting, one.value) for one in mistakes]


def test_each_topic_has_its_setting() -> None:
    """Names come from the job's, or from what the config says."""
    assert names(CONFIG) == {
        "input.topic": "fraud.events",
        "output.topic": "fraud.predictions",
        "dead_letters.topic": "fraud.dead",
        "journal.topic": "fraud.journal",
    }
    assert names(config(output={"topic": "scores"}))["output.topic"] == "scores"


def test_a_topics_limit_is_its_own_or_the_brokers() -> None:
    """In bytes of the largest record."""
    assert topic("in").limit == DEFAULT_MESSAGE_BYTES
    assert topic("in", limit=5000).limit == 5000


def test_topics_that_are_there_are_no_mistake() -> None:
    """A job whose topics fit has none at all."""
    assert list(missing(CONFIG, topics())) == []
    assert list(too_small(CONFIG, topics())) == []
    assert list(unfit_layout(CONFIG, LAYOUT, topics())) == []


def test_every_missing_topic_is_named_with_its_setting() -> None:
    """All at once, with the command that makes them."""
    found = list(missing(CONFIG, without("fraud.dead", "fraud.events")))
    assert told(found) == [("input.topic", "fraud.events"), ("dead_letters.topic", "fraud.dead")]
    assert all("headrace create-topics" in str(one) for one in found)
    assert len(list(missing(CONFIG, {}))) == 4


@pytest.mark.parametrize(
    ("kind", "setting"), [("predictions", "output.topic"), ("journal", "journal.topic")]
)
def test_a_topic_that_cannot_take_what_a_run_writes_is_named(kind: str, setting: str) -> None:
    """Else a run would stop in the middle, at its first large commit."""
    least = topic(f"fraud.{kind}", limit=OUTPUT_BYTES)
    less = topic(f"fraud.{kind}", limit=OUTPUT_BYTES - 1)
    assert list(too_small(CONFIG, topics(**{kind: least}))) == []
    (found,) = too_small(CONFIG, topics(**{kind: less}))
    assert (found.setting, found.value) == (setting, f"fraud.{kind}")
    assert f"{OUTPUT_BYTES - 1:,} bytes" in str(found)
    assert "max.message.bytes" in str(found)


def test_limits_of_input_and_of_missing_topics_are_not_judged_here() -> None:
    """What a run only reads may be small; what is not there is another mistake."""
    small = topic("fraud.events", limit=1000)
    assert list(too_small(CONFIG, topics(events=small))) == []
    assert list(too_small(CONFIG, {})) == []


@pytest.mark.parametrize(
    ("settings", "stored", "changed", "setting", "value", "text"),
    [
        (
            {},
            {"topic_id": "other"},
            {},
            "input.topic",
            "fraud.events",
            "was deleted and made again since group fraud committed its offsets",
        ),
        (
            {},
            {"slots": 5, "ordered": False},
            {"journal": 5},
            "slots",
            5,
            "are more than the 4 partitions of fraud.events. Set it to 4 or less",
        ),
        (
            {},
            {"slots": 1, "ordered": False},
            {"events": 2 * MOST_PARTITIONS + 1},
            "slots",
            1,
            f"would own more than {MOST_PARTITIONS} partitions each. Set slots to 3 or more",
        ),
        (
            {},
            {},
            {"predictions": 5},
            "output.topic",
            "fraud.predictions",
            "has another number of partitions than the input",
        ),
        (
            {},
            {},
            {"events": 5},
            "output.topic",
            "fraud.predictions",
            "has another number of partitions than the input",
        ),
        (
            {},
            {"slots": 4},
            {"journal": 3},
            "journal.topic",
            "fraud.journal",
            "has 3 partitions, and the job has 4 slots, one for each. `headrace create-topics CONFIG` adds",
        ),
    ],
)
def test_what_does_not_fit_the_layout_is_one_mistake(
    settings: dict[str, object],
    stored: dict[str, object],
    changed: dict[str, int],
    setting: str,
    value: object,
    text: str,
) -> None:
    """It names the setting, its value, what is wrong, and the way out."""
    found = topics(**{one: topic(f"fraud.{one}", count) for one, count in changed.items()})
    layout = replace(LAYOUT, **stored)  # type: ignore[arg-type]
    (mistake,) = unfit_layout(config(**settings), layout, found)
    assert (mistake.setting, mistake.value) == (setting, value)
    assert text in str(mistake)


@pytest.mark.parametrize(
    ("settings", "stored", "changed"),
    [
        ({"slots": 2}, {}, {}),
        ({}, {"slots": 4}, {}),
        ({}, {"slots": 1, "ordered": False}, {"events": MOST_PARTITIONS}),
        ({}, {"ordered": False}, {"predictions": 7}),
        ({}, {}, {"journal": 2}),
        ({}, {}, {"events": 6, "predictions": 6}),
    ],
)
def test_what_fits_by_a_hair_is_no_mistake(
    settings: dict[str, object], stored: dict[str, object], changed: dict[str, int]
) -> None:
    """The stored number of slots, the most partitions, unequal counts by key, and growth."""
    found = topics(**{one: topic(f"fraud.{one}", count) for one, count in changed.items()})
    layout = replace(LAYOUT, **stored)  # type: ignore[arg-type]
    assert list(unfit_layout(config(**settings), layout, found)) == []


def test_mistakes_of_a_layout_come_together() -> None:
    """One start tells all there is to mend."""
    found = topics(predictions=topic("fraud.predictions", 3), journal=topic("fraud.journal", 1))
    mistakes = list(unfit_layout(CONFIG, replace(LAYOUT, topic_id="old"), found))
    assert [one.setting for one in mistakes] == [
        "input.topic",
        "output.topic",
        "journal.topic",
    ]


def test_topics_to_be_made_are_not_judged() -> None:
    """A check before `create-topics` tells what is wrong with those that are there."""
    found = without("fraud.predictions", "fraud.journal")
    assert list(unfit_layout(CONFIG, LAYOUT, found)) == []
