"""`headrace create-topics`: the topics of a job, made as `headrace check` wants them."""

from collections.abc import Iterator

from pipeline.config import Config
from pipeline.errors import ClusterUnfit
from pipeline.topology import DEAD_LETTER_OVERHEAD, DEFAULT_MESSAGE_BYTES, names

JOURNAL_SECONDS = 7 * 24 * 3600


def create_topics(config: Config, partitions: int) -> Iterator[str]:
    """Make those topics of the job that are missing; yields a line for each of the four.

    A journal with fewer partitions than the input, and so than there may be slots, gets more. An
    input topic that is there already says how many partitions predictions and journal get.
    Raises ClusterUnfit where the broker refuses, Retriable without a broker.
    """
    from pipeline.edges.kafka.admin import KafkaAdmin

    admin = KafkaAdmin(config.kafka)
    found = admin.topics(names(config).values())
    source = found.get(config.input.topic)
    count = partitions if source is None else source.partitions
    # The largest input must fit into the dead-letter topic with the headers that say why.
    largest = (DEFAULT_MESSAGE_BYTES if source is None else source.limit) + (DEAD_LETTER_OVERHEAD)
    made: dict[str, tuple[int, dict[str, str]]] = {
        config.input.topic: (count, {}),
        config.output.topic: (count, {}),
        config.dead_letters.topic: (1, {"max.message.bytes": str(largest)}),
        config.journal.topic: (
            count,
            {
                "cleanup.policy": "delete",
                "retention.ms": str(JOURNAL_SECONDS * 1000),
                "retention.bytes": "-1",
            },
        ),
    }
    for topic, (number, settings) in made.items():
        there = found.get(topic)
        # A slot has a partition of the journal, and the topic that grew may have more slots.
        grows = topic == config.journal.topic and there is not None and there.partitions < number
        if there is not None and not grows:
            yield f"{topic} is there already, with {_partitions(there.partitions)}"
            continue
        try:
            if there is None:
                admin.create(topic, number, settings)
            else:
                admin.grow(topic, number)
        except ClusterUnfit as problem:
            raise ClusterUnfit(f"{problem}. Ask the broker's operator for {topic}") from problem
        yield f"{topic} {'grown to' if there is not None else 'made with'} {_partitions(number)}"


def _partitions(number: int) -> str:
    return "1 partition" if number == 1 else f"{number} partitions"
