"""A hand-over: by old ids, whole or finished by the next start, and never a partition twice."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch import Partition
from pipeline.control import Layout
from pipeline.errors import ClusterUnfit
from pipeline.handover import Step, aim, fenced_slots, steps
from pipeline.layout import Stored, decode, encode, stored_layout, to_layout

LAYOUT = Layout(generation=1, slots=3, partitions=7, topic_id="id", ordered=True)


def partitions(count: int) -> list[Partition]:
    return [Partition("in", number) for number in range(count)]


def committed(layout: Layout, offset: int = 5, epoch: int = 3) -> Stored:
    return Stored(offset, encode(layout, epoch, 0))


def fresh(layout: Layout = LAYOUT) -> dict[Partition, Stored]:
    return {p: committed(layout, 10 + p.number) for p in partitions(layout.partitions)}


def apply(stored: dict[Partition, Stored], step: Step, target: Layout) -> None:
    """What the step's transaction commits; a new partition starts at offset 0."""
    positions = {**step.plan.positions, **dict.fromkeys(step.plan.fresh, 0)}
    metadata = encode(target, step.plan.epoch, 0)
    stored.update({p: Stored(at, metadata) for p, at in positions.items()})


def layouts_of(stored: dict[Partition, Stored]) -> set[Layout]:
    return {to_layout(decode(p, item, "g")) for p, item in stored.items()}


@pytest.mark.parametrize(
    ("slots", "expected"),
    [(None, LAYOUT), (3, LAYOUT), (2, replace(LAYOUT, generation=2, slots=2))],
)
def test_another_number_of_slots_is_the_next_generation(
    slots: int | None, expected: Layout
) -> None:
    """Asking for none, or for what there is, keeps the layout."""
    assert aim(LAYOUT, slots, 7) == expected
    assert aim(LAYOUT, slots, 9).partitions == 9


@given(st.integers(1, 6), st.integers(1, 6), st.integers(6, 12))
def test_each_old_slot_hands_over_its_own_partitions(old: int, new: int, count: int) -> None:
    """One step for each old id, its positions as they stood, one epoch later."""
    before = Layout(1, old, count, "id", True)
    stored = fresh(before)
    made = list(steps(stored, partitions(count), "g"))
    assert [step.slot for step in made] == list(range(old))
    for step in made:
        own = before.owned("in", step.slot, count)
        assert step.plan.positions == {p: 10 + p.number for p in own}
        assert (step.before, step.plan.epoch, step.plan.fresh) == (before, 4, ())
    assert fenced_slots(stored, "g") == old
    for step in made:
        apply(stored, step, aim(before, new, count))
    assert layouts_of(stored) == {aim(before, new, count)}


@given(st.data())
def test_a_start_finishes_what_a_dead_driver_began(data: st.DataObject) -> None:
    """Killed between any steps, any number of times, with any wish of the next start."""
    stored = fresh()
    count = LAYOUT.partitions
    epochs = dict.fromkeys(partitions(count), 3)
    newest = LAYOUT
    for _ in range(data.draw(st.integers(0, 3))):
        newest = stored_layout(stored, "g") or newest
        target = aim(newest, data.draw(st.sampled_from([None, 1, 2, 3, 5])), count)
        made = list(steps(stored, partitions(count), "g"))
        for step in made[: data.draw(st.integers(0, len(made)))]:
            apply(stored, step, target)
    ids = fenced_slots(stored, "g")
    target = aim(stored_layout(stored, "g") or newest, data.draw(st.sampled_from([None, 4])), count)
    owners: list[Partition] = []
    for step in list(steps(stored, partitions(count), "g")):
        assert step.slot < ids, "an id is used that was not fenced"
        assert step.plan.epoch > max(epochs[p] for p in step.plan.positions)
        owners += step.plan.positions
        apply(stored, step, target)
    assert sorted(owners) == partitions(count), "a partition was handed over twice, or not"
    assert layouts_of(stored) == {target}
    assert {p: item.offset for p, item in stored.items()} == {
        p: 10 + p.number for p in partitions(count)
    }


def test_new_partitions_go_with_the_oldest_layout() -> None:
    """A slot that was handed over has committed all of its own, so that none of them is missing."""
    stored = fresh()
    target = aim(LAYOUT, 2, 8)
    first, *_ = steps(stored, partitions(8), "g")
    apply(stored, first, target)
    added = Partition("in", 7)
    made = list(steps(stored, partitions(8), "g"))
    assert [(s.slot, s.before.generation, s.plan.fresh) for s in made] == [
        (1, 1, (added,)),
        (2, 1, ()),
        (0, 2, ()),
        (1, 2, ()),
    ]
    for step in made:
        apply(stored, step, target)
    assert stored[added].offset == 0


def test_a_partition_that_only_some_slots_have_met_is_new_to_its_own() -> None:
    """Slot 0 has claimed partition 9 of a topic that grew; slot 1 has not claimed since."""
    stored = fresh()
    grown = replace(LAYOUT, partitions=11)
    stored.update({p: committed(grown) for p in grown.owned("in", 0, 10)})
    made = {step.slot: step.plan.fresh for step in steps(stored, partitions(11), "g")}
    assert made == {0: (), 1: (Partition("in", 7), Partition("in", 10)), 2: (Partition("in", 8),)}


def test_a_lost_offset_is_never_handed_over_as_new() -> None:
    """It would be scored again from its log's start."""
    stored = fresh()
    del stored[Partition("in", 4)]
    with pytest.raises(ClusterUnfit, match="no committed offset for in/4, though it had one"):
        list(steps(stored, partitions(7), "g"))
