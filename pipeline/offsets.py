"""`headrace offsets`: where a job goes on, said anew, after a loss or to score records again.

It is a run of its own kind: it fences a running job, which ends, and begins a new generation of
the layout, in which the offsets do not continue those before.
"""

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pipeline import layout as layouts
from pipeline import topology
from pipeline.batch import Partition
from pipeline.config import Config
from pipeline.control import Layout
from pipeline.errors import AnotherRunTookOver, ClusterUnfit, ConfigInvalid, Fenced, Mistake
from pipeline.reset import SKIP_GAP, Move, skip_gap
from pipeline.stream import open_layout
from pipeline.topology import Topic


@dataclass(frozen=True, slots=True)
class Reset:
    """What `headrace offsets` would do, or has done.

    `unarchived` are journal partitions of which rows were removed before they were in Parquet:
    how far the archive stood, and where the log begins now.
    """

    moves: tuple[Move, ...]
    slots: int
    unarchived: Mapping[Partition, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Job:
    """The job's topics, and the layout that it goes on in but for its generation."""

    config: Config
    admin: Any
    source: Topic
    outputs: tuple[Topic, ...]
    journal: Topic
    layout: Layout


def look(config: Config, to: str) -> Reset:
    """What setting the offsets to `to` would do now; changes nothing.

    `to` is earliest, latest, an ISO 8601 time, or skip-gap, which keeps offsets that are in their
    log's range. Raises ConfigInvalid where that means nothing here, ClusterUnfit, Retriable.
    """
    job = _job(config)
    stored = job.admin.committed(config.group, job.source.name)
    before = _before(job, stored)
    positions = _positions(job, to, before, stored)
    with closing(_journal(job)) as reader:
        return Reset(_moves(before, positions), job.layout.slots, _unarchived(job, reader))


def apply(config: Config, to: str) -> Reset:
    """Do it behind the job's fences.

    Raises AnotherRunTookOver where another run started meanwhile, and what `look` raises. Nothing
    has changed then; after another error the same command again does what is left.
    """
    job = _job(config)

    def decide(stored: Mapping[Partition, layouts.Stored]) -> dict[Partition, int]:
        return _positions(job, to, _before(job, stored), stored)

    with closing(open_layout(config, job.journal)) as claims:
        try:
            stored, positions = claims.reset(job.source, job.layout, job.outputs, decide)
        except Fenced as problem:
            raise AnotherRunTookOver(f"another run of job {config.job} took over") from problem
    with closing(_journal(job)) as reader:
        unarchived = _unarchived(job, reader)
        if unarchived:
            reader.save({p.number: (low, "") for p, (_, low) in unarchived.items()})
    return Reset(_moves(_before(job, stored), positions), job.layout.slots, unarchived)


def _job(config: Config) -> _Job:
    from pipeline.edges.kafka.admin import KafkaAdmin

    admin = KafkaAdmin(config.kafka)
    topics = admin.topics(topology.names(config).values())
    if mistakes := list(topology.missing(config, topics)):
        raise ClusterUnfit("\n".join(map(str, mistakes)))
    source, output = topics[config.input.topic], topics[config.output.topic]
    stored = layouts.legible(admin.committed(config.group, source.name), config.group)
    newest = layouts.stored_layout(stored, config.group)
    default = max(1, min(source.partitions, os.cpu_count() or 1))
    kept = newest.slots if newest is not None and newest.slots <= source.partitions else default
    layout = Layout(
        0 if newest is None else newest.generation,
        config.slots or kept,
        source.partitions,
        source.id,
        source.partitions == output.partitions,
    )
    if mistakes := list(topology.unfit_layout(config, layout, topics)):
        raise ConfigInvalid(mistakes)
    dead, journal = topics[config.dead_letters.topic], topics[config.journal.topic]
    return _Job(config, admin, source, (output, dead), journal, layout)


def _before(job: _Job, stored: Mapping[Partition, layouts.Stored]) -> dict[Partition, int]:
    """Offsets that stand, but for those of a topic that was deleted and made again."""
    known = layouts.legible(stored, job.config.group)
    other = {
        partition
        for partition, item in known.items()
        if layouts.decode(partition, item, job.config.group).topic_id != job.source.id
    }
    return {p: item.offset for p, item in stored.items() if p not in other}


def _positions(
    job: _Job, to: str, before: Mapping[Partition, int], stored: Mapping[Partition, layouts.Stored]
) -> dict[Partition, int]:
    if to != SKIP_GAP:
        return dict(job.admin.starting_points(job.source, to))
    known = layouts.legible(stored, job.config.group)
    newest = layouts.stored_layout(known, job.config.group)
    counted = job.source.partitions if newest is None else newest.partitions
    lost = [p for p in job.source.all if p not in before and p.number < counted]
    if lost:
        problem = f"keeps offsets, and there are none for {', '.join(map(str, lost))}"
        raise ConfigInvalid([Mistake("--to", to, problem, layouts.WAY_OUT)])
    starts = job.admin.starting_points(job.source, "earliest")
    return skip_gap(before, starts, job.admin.ends(job.source.all, stable=False))


def _moves(before: Mapping[Partition, int], positions: Mapping[Partition, int]) -> tuple[Move, ...]:
    return tuple(Move(p, before.get(p), at) for p, at in sorted(positions.items()))


def _journal(job: _Job) -> Any:
    from pipeline.edges.kafka.journal import KafkaJournal

    config, topic = job.config, job.journal
    return KafkaJournal(config.kafka, config.archive_group, topic.name, topic.partitions)


def _unarchived(job: _Job, reader: Any) -> dict[Partition, tuple[int, int]]:
    return {
        Partition(job.journal.name, number): (at.offset, at.low)
        for number, at in reader.standing().items()
        if at.lost
    }
