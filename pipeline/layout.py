"""The layout and epoch that stand in the metadata of every committed offset, and what they forbid.

Metadata is `{v, layout, slots, partitions, topic_id, ordered, epoch, seq}` in JSON. The rules here
are pure; the edge that claims a slot reads the offsets and asks them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from pipeline.batch import Partition
from pipeline.control import Assignment, Layout
from pipeline.errors import ClusterUnfit

VERSION = 1


class Metadata(msgspec.Struct, frozen=True):
    """What is stored beside each offset."""

    v: int
    layout: int
    slots: int
    partitions: int
    topic_id: str
    ordered: bool
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
            f"({stored.metadata!r}). Another client or Kafka's reset tool wrote it, or the broker "
            "does not keep metadata. Delete the group's offsets to start anew under another job "
            "name, or use a broker that keeps them"
        ) from problem
    if found.v != VERSION:
        raise ClusterUnfit(
            f"group {group}: {partition} has layout format {found.v}, this is {VERSION}. "
            "Run the version of headrace that wrote it"
        )
    return found


def to_layout(found: Metadata) -> Layout:
    """The layout that an offset's metadata names."""
    return Layout(found.layout, found.slots, found.partitions, found.topic_id, found.ordered)


def stored_layout(stored: Mapping[Partition, Stored], group: str) -> Layout | None:
    """The newest layout among the group's offsets, None where it has none."""
    found = [decode(partition, item, group) for partition, item in stored.items()]
    return to_layout(max(found, key=lambda m: (m.layout, m.partitions))) if found else None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a claim will commit: known positions, the partitions to start at their log's start."""

    positions: dict[Partition, int]
    fresh: tuple[Partition, ...]
    epoch: int


def plan_claim(assignment: Assignment, stored: Mapping[Partition, Stored], group: str) -> Plan:
    """Positions and epoch of a claim, from what the group holds.

    A partition number not below the stored count is new; a missing one below it is an error.
    Raises ClusterUnfit where the offsets belong to another layout or another topic.
    """
    layout = assignment.layout
    epoch = 0
    known = layout.partitions
    for partition, item in stored.items():
        found = decode(partition, item, group)
        if found.topic_id != layout.topic_id:
            raise ClusterUnfit(
                f"topic {partition.topic} was deleted and made again since group {group} committed "
                f"(id {found.topic_id}, now {layout.topic_id}): its offsets mean other records. "
                "Use another job name, or delete the group's offsets to start anew"
            )
        if (found.layout, found.slots) != (layout.generation, layout.slots):
            raise ClusterUnfit(
                f"group {group}: {partition} belongs to layout {found.layout} with {found.slots} "
                f"slots, this run has layout {layout.generation} with {layout.slots}. "
                "Another run of the job changed it: stop one of the two"
            )
        known = min(known, found.partitions)
        epoch = max(epoch, found.epoch)
    fresh = tuple(p for p in assignment.partitions if p not in stored)
    lost = [p for p in fresh if p.number < known]
    if lost:
        names = ", ".join(map(str, lost))
        raise ClusterUnfit(
            f"group {group} has no committed offset for {names}, though it had one: it expired "
            "(7 days after a stopped job's last commit, by default) or was deleted. Use another "
            "job name to start anew"
        )
    return Plan({p: item.offset for p, item in stored.items()}, fresh, epoch + 1)
