"""The layout and epoch that stand in the metadata of every committed offset, and what they forbid.

Metadata is `{v, layout, slots, partitions, topic_id, ordered, run, epoch, seq}` in JSON. The rules
here are pure; the edge that claims a slot reads the offsets and asks them.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from pipeline.batch import Partition
from pipeline.control import Assignment, Layout
from pipeline.errors import AnotherRunTookOver, ClusterUnfit

VERSION = 1
# Ends the messages of offsets that no run may go on from.
WAY_OUT = (
    "`headrace offsets CONFIG --to earliest`, or `latest`, or an ISO 8601 time, says where to go on"
)
# Group offsets expire after days without a commit; an hour keeps far away from that.
KEEP_ALIVE_SECONDS = 3600.0


class Metadata(msgspec.Struct, frozen=True):
    """What is stored beside each offset."""

    v: int
    layout: int
    slots: int
    partitions: int
    topic_id: str
    ordered: bool
    run: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Stored:
    """One committed offset as the group holds it."""

    offset: int
    metadata: str


def encode(layout: Layout, epoch: int, sequence: int) -> str:
    """The metadata of one committed offset."""
    return msgspec.json.encode(
        Metadata(
            v=VERSION,
            layout=layout.generation,
            slots=layout.slots,
            partitions=layout.partitions,
            topic_id=layout.topic_id,
            ordered=layout.ordered,
            run=layout.run,
            epoch=epoch,
            seq=sequence,
        )
    ).decode()


def decode(partition: Partition, stored: Stored, group: str) -> Metadata:
    """Read the metadata of one offset. Raises ClusterUnfit where it is not ours."""
    try:
        found = msgspec.json.decode(stored.metadata, type=Metadata)
    except msgspec.DecodeError as problem:
        raise ClusterUnfit(
            f"group {group}: the committed offset {stored.offset} of {partition} carries no layout "
            f"({stored.metadata!r}): another client or Kafka's reset tool wrote it, or the broker "
            "does not keep metadata. `headrace offsets CONFIG --to skip-gap` goes on at the "
            f"offsets that were set so; {WAY_OUT} instead"
        ) from problem
    if found.v != VERSION:
        raise ClusterUnfit(
            f"group {group}: {partition} has layout format {found.v}, this is {VERSION}. "
            "Run the version of headrace that wrote it"
        )
    return found


def legible(stored: Mapping[Partition, Stored], group: str) -> dict[Partition, Stored]:
    """The offsets whose metadata is ours."""
    found = {}
    for partition, item in stored.items():
        with contextlib.suppress(ClusterUnfit):
            decode(partition, item, group)
            found[partition] = item
    return found


def to_layout(found: Metadata) -> Layout:
    """The layout that an offset's metadata names."""
    return Layout(
        found.layout, found.slots, found.partitions, found.topic_id, found.ordered, found.run
    )


def stored_layout(stored: Mapping[Partition, Stored], group: str) -> Layout | None:
    """The newest layout among the group's offsets, None where it has none."""
    found = [decode(partition, item, group) for partition, item in stored.items()]
    return to_layout(max(found, key=lambda m: (m.layout, m.partitions))) if found else None


def runs(stored: Mapping[Partition, Stored], group: str) -> set[str]:
    """The runs that have opened the job for these offsets last: one, or more while one opens it."""
    return {decode(partition, item, group).run for partition, item in stored.items()}


def refuse_other_run(
    assignment: Assignment, stored: Mapping[Partition, Stored], group: str
) -> None:
    """Raise AnotherRunTookOver where another run has opened the job since this one did.

    Two that start at once would else take one slot each from the other, and both would end.
    """
    if runs(stored, group) - {assignment.layout.run}:
        raise AnotherRunTookOver(
            f"group {group}: another run of the job has opened slot {assignment.slot} since this "
            "one did; this one ends and leaves it the stream"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What a claim will commit: known positions, the partitions to start at their log's start."""

    positions: dict[Partition, int]
    fresh: tuple[Partition, ...]
    epoch: int


def plan_claim(assignment: Assignment, stored: Mapping[Partition, Stored], group: str) -> Plan:
    """Positions and epoch of a claim, from what the group holds.

    A partition number not below the stored count is new; a missing one below it is an error.
    Raises AnotherRunTookOver where the offsets belong to a newer layout, ClusterUnfit where they
    belong to an older one or to another topic.
    """
    layout = assignment.layout
    epoch = 0
    counts = []
    for partition, item in stored.items():
        found = decode(partition, item, group)
        if found.topic_id != layout.topic_id:
            raise ClusterUnfit(
                f"topic {partition.topic} was deleted and made again since group {group} committed "
                f"(id {found.topic_id}, now {layout.topic_id}): its offsets mean other records. "
                f"{WAY_OUT}"
            )
        if (found.layout, found.slots) != (layout.generation, layout.slots):
            text = (
                f"group {group}: {partition} belongs to layout {found.layout} with {found.slots} "
                f"slots, this run has layout {layout.generation} with {layout.slots}"
            )
            if found.layout > layout.generation:
                raise AnotherRunTookOver(f"{text}: another run of the job changed it")
            raise ClusterUnfit(
                f"{text}: a feeder of the older one, which nothing fences, has committed since. "
                f"End it, and start again; {WAY_OUT} instead"
            )
        counts.append(found.partitions)
        epoch = max(epoch, found.epoch)
    # Its own offsets know what the slot has claimed: the layout may be older or newer than that.
    known = min(counts, default=layout.partitions)
    fresh = tuple(p for p in assignment.partitions if p not in stored)
    lost = [p for p in fresh if p.number < known]
    if lost:
        names = ", ".join(map(str, lost))
        raise ClusterUnfit(
            f"group {group} has no committed offset for {names}, though it had one: it expired "
            f"(7 days after a stopped job's last commit, by default) or was deleted. {WAY_OUT}"
        )
    return Plan({p: item.offset for p, item in stored.items()}, fresh, epoch + 1)
