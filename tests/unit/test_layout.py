"""The layout: what the metadata of offsets says, and every start that it forbids."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch import Partition
from pipeline.control import Assignment, Layout
from pipeline.errors import AnotherRunTookOver, ClusterUnfit
from pipeline.layout import (
    Stored,
    decode,
    encode,
    plan_claim,
    refuse_other_run,
    runs,
    stored_layout,
    to_layout,
)

LAYOUT = Layout(generation=1, slots=2, partitions=4, topic_id="id", ordered=True)
PARTITIONS = tuple(Partition("in", n) for n in (0, 2))


def stored(offset: int = 5, layout: Layout = LAYOUT, epoch: int = 3) -> Stored:
    return Stored(offset, encode(layout, epoch, 7))


def assignment(
    layout: Layout = LAYOUT, partitions: tuple[Partition, ...] = PARTITIONS
) -> Assignment:
    return Assignment(0, layout, partitions, topic_partitions=layout.partitions)


def changed(**fields: object) -> Layout:
    values = {name: getattr(LAYOUT, name) for name in Layout.__slots__}
    return Layout(**{**values, **fields})  # type: ignore[arg-type]


@given(
    st.builds(
        Layout,
        generation=st.integers(1, 10**6),
        slots=st.integers(1, 9999),
        partitions=st.integers(1, 10**5),
        topic_id=st.text(max_size=40),
        ordered=st.booleans(),
    ),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
)
def test_metadata_reads_back(layout: Layout, epoch: int, sequence: int) -> None:
    """What stands beside an offset gives the layout, the epoch and the sequence back."""
    found = decode(PARTITIONS[0], Stored(0, encode(layout, epoch, sequence)), "g")
    assert to_layout(found) == layout
    assert (found.epoch, found.seq) == (epoch, sequence)


@given(st.integers(1, 12), st.integers(0, 40))
def test_each_partition_has_one_owner(slots: int, partitions: int) -> None:
    """Whatever their numbers, every partition belongs to exactly one slot, p mod slots."""
    layout = Layout(1, slots, partitions, "id", True)
    owned = [p for slot in range(slots) for p in layout.owned("in", slot, partitions)]
    assert sorted(p.number for p in owned) == list(range(partitions))
    assert all(
        p.number % slots == slot
        for slot in range(slots)
        for p in layout.owned("in", slot, partitions)
    )


def test_a_claim_takes_the_positions_one_epoch_later() -> None:
    """The new epoch is above the highest one that is stored."""
    plan = plan_claim(
        assignment(), {PARTITIONS[0]: stored(5, epoch=3), PARTITIONS[1]: stored(9, epoch=4)}, "g"
    )
    assert plan.positions == {PARTITIONS[0]: 5, PARTITIONS[1]: 9}
    assert (plan.fresh, plan.epoch) == ((), 5)


def test_a_new_partition_starts_fresh() -> None:
    """A number that is not below the stored count was added since."""
    added = (*PARTITIONS, Partition("in", 4))
    claim = Assignment(0, LAYOUT, added, topic_partitions=6)
    plan = plan_claim(claim, {p: stored() for p in PARTITIONS}, "g")
    assert plan.fresh == (Partition("in", 4),)
    assert claim.present_layout == changed(partitions=6)


def test_a_partition_is_new_to_a_slot_that_has_not_claimed_since() -> None:
    """Another slot has stored the larger count already; this one's own offsets do not know it."""
    added = (*PARTITIONS, Partition("in", 4))
    claim = Assignment(0, changed(partitions=6), added, topic_partitions=6)
    assert plan_claim(claim, {p: stored() for p in PARTITIONS}, "g").fresh == added[2:]


def test_a_partition_that_was_claimed_once_is_never_new_again() -> None:
    """Once the slot's offsets tell of it a missing one is an error, whatever the run began with."""
    grown = changed(partitions=6)
    for known in (grown, LAYOUT):
        claim = Assignment(0, known, (*PARTITIONS, Partition("in", 4)), topic_partitions=6)
        with pytest.raises(ClusterUnfit, match="no committed offset for in/4, though it had one"):
            plan_claim(claim, {p: stored(layout=grown) for p in PARTITIONS}, "g")


def test_a_partition_that_a_first_start_did_not_commit_is_lost() -> None:
    """A topic that grows later makes no partition new that the layout counts already."""
    claim = Assignment(0, LAYOUT, (*PARTITIONS, Partition("in", 4)), topic_partitions=6)
    with pytest.raises(ClusterUnfit, match="no committed offset for in/2, though it had one"):
        plan_claim(claim, {PARTITIONS[0]: stored()}, "g")


def test_a_slot_without_old_partitions_may_get_new_ones() -> None:
    """With more slots than partitions, a slot that had none owns those that are added."""
    before = Layout(1, 8, 4, "id", True)
    added = Assignment(4, before, (Partition("in", 4),), topic_partitions=8)
    assert before.owned("in", 4, 4) == ()
    assert plan_claim(added, {}, "g").fresh == (Partition("in", 4),)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({PARTITIONS[0]: stored()}, "group g has no committed offset for in/2, though it had one"),
        ({}, "group g has no committed offset for in/0, in/2"),
        (
            {p: stored(layout=changed(topic_id="other")) for p in PARTITIONS},
            "topic in was deleted and made again since group g committed (id other, now id)",
        ),
        (
            {p: stored(layout=changed(slots=3)) for p in PARTITIONS},
            "in/0 belongs to layout 1 with 3 slots, this run has layout 1 with 2",
        ),
        (
            {p: stored(layout=changed(generation=0)) for p in PARTITIONS},
            "in/0 belongs to layout 0 with 2 slots, this run has layout 1 with 2: a feeder of",
        ),
        (
            {p: Stored(5, "") for p in PARTITIONS},
            "the committed offset 5 of in/0 carries no layout ('')",
        ),
        (
            {p: Stored(5, '{"v":1}') for p in PARTITIONS},
            "the committed offset 5 of in/0 carries no layout",
        ),
        (
            {p: Stored(5, stored().metadata.replace('"v":1', '"v":2')) for p in PARTITIONS},
            "in/0 has layout format 2, this is 1. Run the version of headrace that wrote it",
        ),
    ],
)
def test_what_does_not_fit_is_refused(held: dict[Partition, Stored], message: str) -> None:
    """Each refusal names what was found, what was expected and the way out."""
    with pytest.raises(ClusterUnfit, match=re.escape(message)) as refused:
        plan_claim(assignment(), held, "g")
    assert "headrace" in str(refused.value)


def test_a_feeder_that_reads_a_newer_layout_leaves_it_the_stream() -> None:
    """It was assigned its slot before a hand-over: its run ends as one that was fenced."""
    held = {p: stored(layout=changed(generation=2, slots=3)) for p in PARTITIONS}
    with pytest.raises(AnotherRunTookOver, match="layout 2 with 3 slots"):
        plan_claim(assignment(), held, "g")


def test_the_stored_layout_is_the_newest() -> None:
    """None where the group has no offsets; of several the highest generation and count."""
    assert stored_layout({}, "g") is None
    grown = changed(partitions=6)
    held = {PARTITIONS[0]: stored(), PARTITIONS[1]: stored(layout=grown)}
    assert stored_layout(held, "g") == grown


def test_a_run_that_was_opened_before_another_one_claims_nothing() -> None:
    """Whoever opened the job last owns it; until then the offsets name the one before."""
    ours = changed(run="ours")
    held = {p: stored(layout=ours) for p in PARTITIONS}
    refuse_other_run(assignment(ours), held, "g")
    held[PARTITIONS[0]] = stored(layout=changed(run="another"))
    with pytest.raises(AnotherRunTookOver, match="another run of the job has opened slot"):
        refuse_other_run(assignment(ours), held, "g")
    assert runs(held, "g") == {"ours", "another"}
