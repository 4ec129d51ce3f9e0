"""How a layout is handed over: by which old ids, in which steps, and what each step commits.

Each old slot's id commits its own partitions in one transaction: only so does a feeder that still
starts in the old layout fence this step, or is fenced by it and reads the new layout instead of its
own. A driver that dies between two steps leaves several generations behind; the next one finds by
each offset's metadata who owned it, and finishes. Nobody scores before all are handed over.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline import journal
from pipeline.batch import Partition
from pipeline.control import Assignment, Layout
from pipeline.layout import Plan, Stored, decode, plan_claim, to_layout


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction under the id of `slot`, a slot of the layout `before`.

    It commits what `plan` says with the new layout. Where the layout changes, the slot's journal
    partition gets a roll record with it, as nobody may roll there any more.
    """

    slot: int
    before: Layout
    plan: Plan


def changes(step: Step, target: Layout) -> bool:
    """Whether the step's partitions come from another layout."""
    return (step.before.generation, step.before.slots) != (target.generation, target.slots)


def boundary(step: Step, target: Layout, writer: str) -> tuple[int, bytes]:
    """The roll record that ends the slot's journal partition, with that partition's number."""
    positions = step.plan.positions
    (topic,) = {partition.topic for partition in positions}
    value = journal.roll(
        writer, step.plan.epoch, target.generation, journal.HANDOVER, topic, positions
    )
    return step.slot, value


def fenced_slots(stored: Mapping[Partition, Stored], group: str) -> int:
    """How many ids, from 0 on, may own a partition, over every layout that is stored."""
    return max((decode(p, item, group).slots for p, item in stored.items()), default=1)


def aim(newest: Layout, slots: int | None, partitions: int) -> Layout:
    """The layout to reach: the newest, or the one after it where `slots` asks for another number.

    So a start that asks for nothing, or for what an unfinished hand-over was to reach, finishes it.
    """
    present = replace(newest, partitions=partitions)
    if slots in {None, newest.slots}:
        return present
    return replace(present, generation=newest.generation + 1, slots=slots)


def steps(
    stored: Mapping[Partition, Stored], partitions: Sequence[Partition], group: str
) -> Iterator[Step]:
    """A step for each slot of each layout that is stored; together they cover `partitions`.

    Partitions without an offset belong to the oldest layout, since a slot that was handed over
    has committed all of its own. Raises ClusterUnfit where one was lost.
    """
    held: dict[tuple[int, int], dict[Partition, Stored]] = {}
    layouts: dict[tuple[int, int], Layout] = {}
    for partition in partitions:
        if partition not in stored:
            continue
        found = to_layout(decode(partition, stored[partition], group))
        key = (found.generation, found.slots)
        held.setdefault(key, {})[partition] = stored[partition]
        layouts[key] = max(layouts.get(key, found), found, key=lambda one: one.partitions)
    missing = [partition for partition in partitions if partition not in stored]
    for key in sorted(held):
        before, covered = layouts[key], [*held[key], *missing]
        missing = []
        for slot in range(before.slots):
            own = tuple(p for p in covered if p.number % before.slots == slot)
            if own:
                assignment = Assignment(slot, before, own, before.partitions)
                known = {p: held[key][p] for p in own if p in held[key]}
                yield Step(slot, before, plan_claim(assignment, known, group))
