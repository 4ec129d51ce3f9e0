"""A job's topics: their names, the limits it needs, and whether they fit the layout it has."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.batch import Partition
from pipeline.config import Config
from pipeline.control import Layout
from pipeline.errors import Mistake
from pipeline.layout import WAY_OUT

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
    def all(self) -> tuple[Partition, ...]:
        """Its partitions."""
        return tuple(Partition(self.name, number) for number in range(self.partitions))

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


def unfit_layout(config: Config, layout: Layout, found: Mapping[str, Topic]) -> Iterator[Mistake]:
    """Where settings and topics do not fit the layout that the job is to run in."""
    source = found[config.input.topic]
    output, journal = found.get(config.output.topic), found.get(config.journal.topic)
    if layout.topic_id != source.id:
        problem = f"was deleted and made again since group {config.group} committed its offsets"
        yield Mistake("input.topic", source.name, problem, WAY_OUT)
    if source.partitions < layout.slots:
        problem = f"are more than the {source.partitions} partitions of {source.name}"
        yield Mistake("slots", layout.slots, problem, f"Set it to {source.partitions} or less")
    if source.partitions > MOST_PARTITIONS * layout.slots:
        problem = f"would own more than {MOST_PARTITIONS} partitions each"
        least = -(-source.partitions // MOST_PARTITIONS)
        yield Mistake("slots", layout.slots, problem, f"Set slots to {least} or more")
    if layout.ordered and output is not None and output.partitions != source.partitions:
        problem = (
            "has another number of partitions than the input, though the job began with equal "
            "numbers and so keeps the order of each partition"
        )
        way_out = "Give both topics equally many partitions"
        yield Mistake("output.topic", output.name, problem, way_out)
    if journal is not None and journal.partitions < layout.slots:
        problem = (
            f"has {journal.partitions} partitions, and the job has {layout.slots} slots, "
            "one for each"
        )
        way_out = "`headrace create-topics CONFIG` adds those that are missing"
        yield Mistake("journal.topic", journal.name, problem, way_out)
