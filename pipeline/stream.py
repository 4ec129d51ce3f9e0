"""The input of a run and the layout that it runs in, as the broker tells of them."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from pipeline import topology
from pipeline.batch import Partition
from pipeline.config import Config
from pipeline.control import Layout
from pipeline.errors import ClusterUnfit, ConfigInvalid, HeadraceError, Mistake, OffsetsHeld
from pipeline.handover import aim
from pipeline.layout import WAY_OUT, stored_layout
from pipeline.topology import Topic

log = logging.getLogger("headrace")


def open_layout(config: Config, journal_topic: Topic) -> Any:
    """What opens the job's layout, or sets its offsets anew, as its delivery asks."""
    from pipeline.edges.kafka.claims import FencedLayout
    from pipeline.edges.kafka.unfenced import UnfencedLayout

    kind = FencedLayout if config.delivery == "exactly_once" else UnfencedLayout
    return kind(config.kafka, config.group, journal_topic)


@contextmanager
def naming_holders(config: Config) -> Iterator[None]:
    """Tell whose transaction holds the group's offsets, where they can't be read for that."""
    try:
        yield
    except OffsetsHeld as problem:
        from pipeline.edges.kafka_python import KafkaReader

        try:
            with closing(KafkaReader(config.kafka)) as reader:
                holders = reader.holders(config.group)
        except HeadraceError as unknown:
            holders = f"whose is not known ({unknown}); `kafka-transactions.sh find-hanging` tells"
        raise OffsetsHeld(f"{problem}: {holders}. End its owner, or abort it") from problem


def opened(config: Config, admin: Any, topics: Mapping[str, Topic], cores: int) -> Layout:
    """The job's layout, opened for this run; at a first start one slot for each core.

    Raises ConfigInvalid and ClusterUnfit where topics and offsets do not fit, before anything is
    fenced or written; Fenced, Retriable.
    """
    source, journal = topics[config.input.topic], topics[config.journal.topic]
    ordered = source.partitions == topics[config.output.topic].partitions
    slots = config.slots or max(1, min(source.partitions, cores))
    fresh = Layout(1, slots, source.partitions, source.id, ordered)
    known = stored_layout(admin.committed(config.group, source.name), config.group)
    wanted = fresh if known is None else aim(known, config.slots, source.partitions)
    refuse(list(topology.unfit_layout(config, wanted, topics)), ConfigInvalid)
    if known is None:
        _refuse_expired(config, admin, journal)
    with closing(open_layout(config, journal)) as claims, naming_holders(config):
        layout: Layout = claims.open(source, fresh, config.slots, config.input.start)
    if known is not None and known.slots != layout.slots:
        now = (layout.generation, layout.slots, known.slots)
        log.info("layout %d begins: %d slots take over from %d", *now)
    return layout


class Input:
    """The partitions of the input that the run scores; each question comes from one thread."""

    def __init__(self, config: Config, admin: Any, layout: Layout, topic: Topic) -> None:
        self._config = config
        self._admin = admin
        self._layout = layout
        self._topic = topic
        self._warned = ""

    def ends(self) -> dict[Partition, int]:
        """The last stable offset of each."""
        ends: dict[Partition, int] = self._admin.ends(self._topic.all)
        return ends

    def look(self) -> tuple[Partition, ...]:
        """Take in partitions that were added, once the other topics fit them as well.

        Raises ClusterUnfit where the topic was made anew: its records are others.
        """
        found = self._admin.topics(topology.names(self._config).values())
        # A broker that has just started may not know all of them.
        source = found.get(self._topic.name)
        if source is None or source == self._topic:
            return self._topic.all
        mistakes = list(topology.unfit_layout(self._config, self._layout, found))
        if source.id != self._topic.id:
            raise unfit(mistakes)
        if not mistakes:
            self._topic = source
        elif (text := "; ".join(map(str, mistakes))) != self._warned:
            self._warned = text
            log.warning("new partitions of %s are not scored yet: %s", source.name, text)
        return self._topic.all


def _refuse_expired(config: Config, admin: Any, journal_topic: Topic) -> None:
    """Raise ClusterUnfit where the job has written before, and its offsets are gone."""
    if any(admin.ends(journal_topic.all).values()):
        raise ClusterUnfit(
            f"group {config.group} has no offsets, though {journal_topic.name} shows that the job "
            "has run: they expired (7 days after a stopped job's last commit, by default), were "
            "deleted, or the input topic was and they with it. A start from anywhere would lose "
            f"records or score them twice. {WAY_OUT}"
        )


def unfit(mistakes: Sequence[Mistake]) -> ClusterUnfit:
    """What the operator must mend, as one error."""
    return ClusterUnfit("\n".join(str(mistake) for mistake in mistakes))


def refuse(mistakes: Sequence[Mistake], error: Callable[[Sequence[Mistake]], Exception]) -> None:
    """Raise the mistakes as an error, if there are any."""
    if mistakes:
        raise error(mistakes)
