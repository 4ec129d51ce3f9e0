"""A job's topics: their names, the limits it needs, and whether they fit the layout it has."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.control import Layout
from pipeline.errors import Mistake

# What a dead letter's headers and key may add to its value.
DEAD_LETTER_OVERHEAD = 64 << 10
DEFAULT_MESSAGE_BYTES = 1_048_588
# The largest journal chunk, with room for what wraps it.
OUTPUT_BYTES = 1_000_000
# The archive keeps a slot's offsets in the metadata of its progress, of which a broker takes 4 KB.
MOST_PARTITIONS = 200


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the broker describes it; `settings` are its effective ones."""

    name: str
    id: str
    partitions: int
    settings: Mapping[str, str]

    @property
    def limit(self) -> int:
        """The largest record that it takes, in bytes."""
        return int(self.settings.get("max.message.bytes", DEFAULT_MESSAGE_BYTES))


def names(config: Config) -> dict[str, str]:
    """The job's topics by the setting that names each."""
    return {
        "input.topic": config.input.topic,
        "output.topic": config.output.topic,
        "dead_letters.topic": config.dead_letters.topic,
        "journal.topic": config.journal.topic,
    }


def missing(config: Config, found: Mapping[str, Topic]) -> Iterator[Mistake]:
    """The topics that the broker does not have."""
    for setting, name in names(config).items():
        if name not in found:
            way_out = "`headrace create-topics CONFIG` makes those that are missing"
            yield Mistake(setting, name, "the broker has no such topic", way_out)


def too_small(config: Config, found: Mapping[str, Topic]) -> Iterator[Mistake]:
    """The topics that could not take what a run writes, so that it would stop in the middle."""
    for setting in ("output.topic", "journal.topic"):
        topic = found.get(names(config)[setting])
        if topic is not None and topic.limit < OUTPUT_BYTES:
            problem = (
                f"takes records of {topic.limit:,} bytes at most, and a run needs {OUTPUT_BYTES:,}"
            )
            yield Mistake(setting, topic.name, problem, "Raise its max.message.bytes")


def unfit_layout(config: Config, stored: Layout, found: Mapping[str, Topic]) -> Iterator[Mistake]:
    """Where settings and topics do not fit the layout that the job has, or would begin with."""
    source = found[config.input.topic]
    output, journal = found.get(config.output.topic), found.get(config.journal.topic)
    if stored.topic_id != source.id:
        way_out = "Use another job name, or delete the group's offsets to start anew"
        problem = f"was deleted and made again since group {config.group} committed its offsets"
        yield Mistake("input.topic", source.name, problem, way_out)
    if config.slots not in {None, stored.slots}:
        problem = f"the job was started with {stored.slots} slots, which its offsets are kept by"
        yield Mistake("slots", config.slots, problem, f"Leave it out, or set it to {stored.slots}")
    if source.partitions < stored.slots:
        problem = f"are more than the {source.partitions} partitions of {source.name}"
        yield Mistake("slots", stored.slots, problem, f"Set it to {source.partitions} or less")
    if source.partitions > MOST_PARTITIONS * stored.slots:
        problem = f"would own more than {MOST_PARTITIONS} partitions each"
        least = -(-source.partitions // MOST_PARTITIONS)
        yield Mistake("slots", stored.slots, problem, f"Start the job with {least} or more")
    if stored.ordered and output is not None and output.partitions != source.partitions:
        problem = (
            "has another number of partitions than the input, though the job began with equal "
            "numbers and so keeps the order of each partition"
        )
        way_out = "Give both topics equally many partitions"
        yield Mistake("output.topic", output.name, problem, way_out)
    if journal is not None and journal.partitions < stored.slots:
        problem = (
            f"has {journal.partitions} partitions, and the job has {stored.slots} slots, "
            "one for each"
        )
        way_out = f"Add partitions up to {stored.slots}"
        yield Mistake("journal.topic", journal.name, problem, way_out)
