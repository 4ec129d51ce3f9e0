"""Dispatch: what dies is sent again, what kills is isolated, and innocent records are scored."""

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batch import Batch, Scored
from pipeline.control import ReplicaRef
from pipeline.dispatch import IN_FLIGHT_PER_REPLICA, UNMEASURED_DEADLINE_SECONDS, Dispatch
from pipeline.ports import Answer
from pipeline.testing import SCHEMA, ManualClock, MemoryReplicas, batch_of, score

EMPTY = pa.RecordBatch.from_pylist([], schema=SCHEMA)


class Desk:
    """A dispatch, its replicas, and a driver that replaces what is lost at each turn."""

    def __init__(self, replicas: MemoryReplicas, fleet: int = 2, seconds_per_row: float = 0.0):
        self.clock = ManualClock()
        self.replicas = replicas
        self.next_id = 1000
        self.dispatch = Dispatch(replicas, EMPTY, self.new_id, seconds_per_row)
        self.fleet = [ReplicaRef(n, None) for n in range(fleet)]
        self.spare = 100
        self.isolation: ReplicaRef | None = None
        self.scored: list[Scored] = []
        self.batches: dict[int, Batch] = {}
        self.lost: list[tuple[int, str]] = []
        self.turn_orders()

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id

    def turn_orders(self) -> None:
        self.dispatch.orders(self.fleet, self.isolation)

    def submit(self, batch: Batch, suspected: bool = False) -> None:
        self.batches[batch.id] = batch
        self.dispatch.submit(batch, suspected)

    def step(self) -> None:
        self.dispatch.send(self.clock.monotonic())
        assert max(self.dispatch.in_flight().values(), default=0) <= IN_FLIGHT_PER_REPLICA
        scored, splits = self.dispatch.collect(0.0, self.clock.monotonic)
        for split in splits:
            del self.batches[split.batch.id]
            self.batches.update({part.id: part for part in split.parts})
        self.scored += scored
        self.replace()

    def replace(self) -> None:
        """What a driver does between two turns."""
        lost = {number for number, _ in self.dispatch.lost}
        self.lost += self.dispatch.lost
        self.dispatch.lost.clear()
        self.fleet = [self.fresh() if ref.id in lost else ref for ref in self.fleet]
        if self.isolation is None or self.isolation.id in lost:
            self.isolation = self.fresh() if self.dispatch.needs_isolation else None
        self.turn_orders()

    def fresh(self) -> ReplicaRef:
        self.spare += 1
        return ReplicaRef(self.spare, None)

    def finish(self) -> None:
        for _ in range(500):
            if self.dispatch.idle:
                return
            self.step()
            self.clock.advance(1.0)
        pytest.fail("the batches did not come to an end")

    def outcome(self) -> tuple[list[int], list[int]]:
        """Offsets that were scored, and those that became dead letters."""
        accepted, dead = [], []
        for one in self.scored:
            offsets = self.batches[one.batch_id].offsets.to_pylist()
            accepted += [offsets[i] for i in one.accepted.tolist()]
            dead += [offsets[reject.row] for reject in one.rejects]
        return sorted(accepted), sorted(dead)


def rows_of(batch_id: int, first: int, count: int, killers: set[int]) -> Batch:
    rows = [(0, n, b"kill" if n in killers else b"v") for n in range(first, first + count)]
    return batch_of(batch_id, "in", rows)


def holds_killer(batch: Batch) -> bool:
    return b"kill" in batch.values.to_pylist()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.data())
def test_one_killing_record_ends_as_the_only_dead_letter(count: int, data: st.DataObject) -> None:
    """Of n records at any place: it is a dead letter, every other one is scored, once."""
    killer = data.draw(st.integers(0, count - 1))
    desk = Desk(MemoryReplicas(score, kills=holds_killer))
    desk.submit(rows_of(1, 0, count, {killer}))
    desk.submit(rows_of(2, count, 5, set()))
    desk.finish()
    accepted, dead = desk.outcome()
    assert dead == [killer]
    assert accepted == [n for n in range(count + 5) if n != killer]


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(0, 19), max_size=4), st.booleans())
def test_several_killers_all_end_as_dead_letters(killers: set[int], hang: bool) -> None:
    """Whether they kill or hang, none takes an innocent neighbour with it."""
    special = {"hangs" if hang else "kills": holds_killer}
    desk = Desk(MemoryReplicas(score, **special), fleet=3)
    for number in range(4):
        desk.submit(rows_of(number, 5 * number, 5, killers))
    desk.finish()
    accepted, dead = desk.outcome()
    assert dead == sorted(killers)
    assert accepted == sorted(set(range(20)) - killers)


def test_a_dead_letter_of_a_replica_says_so() -> None:
    """Its stage is `replica`, and it carries how the replica died."""
    desk = Desk(MemoryReplicas(score, kills=holds_killer))
    desk.submit(rows_of(1, 0, 1, {0}))
    desk.finish()
    (reject,) = desk.scored[0].rejects
    assert (reject.row, reject.stage, reject.exception) == (0, "replica", "ReplicaDied")
    assert "died: killed" in reject.message


def test_a_batch_whose_replica_died_once_is_sent_again_whole() -> None:
    """The first death is nobody's fault: another replica gets the same batch."""
    desk = Desk(MemoryReplicas(score))
    desk.submit(rows_of(1, 0, 8, set()))
    desk.dispatch.send(0.0)
    (first,) = desk.dispatch.in_flight()
    desk.replicas.die(first)
    desk.finish()
    assert [batch.rows for _, batch in desk.replicas.sent] == [8, 8]
    assert desk.outcome() == (list(range(8)), [])
    assert desk.lost == [(first, "died: killed")]


def test_a_batch_that_died_twice_goes_in_halves_to_isolation() -> None:
    """The second death makes it suspected; its halves go to isolation one at a time."""
    desk = Desk(MemoryReplicas(score, kills=holds_killer))
    desk.submit(rows_of(1, 0, 8, {6}))
    desk.finish()
    fleet = [(ref, batch.rows) for ref, batch in desk.replicas.sent][:2]
    assert [rows for _, rows in fleet] == [8, 8]
    assert [batch.rows for _, batch in desk.replicas.sent][2:5] == [4, 4, 2]
    assert desk.outcome() == ([0, 1, 2, 3, 4, 5, 7], [6])


def test_only_deaths_in_isolation_condemn_a_record() -> None:
    """A record that was near two deaths in the fleet and one in isolation is tried alone again."""
    desk = Desk(MemoryReplicas(score), fleet=1)
    desk.submit(rows_of(1, 0, 1, set()))
    for _ in range(3):
        desk.dispatch.send(0.0)
        (holder,) = desk.dispatch.in_flight()
        desk.replicas.die(holder)
        desk.step()
    desk.finish()
    assert desk.outcome() == ([0], [])


def test_suspected_batches_wait_for_isolation() -> None:
    """A predecessor's suspects never reach the fleet that other feeders share."""
    desk = Desk(MemoryReplicas(score), fleet=2)
    desk.submit(rows_of(1, 0, 4, set()), suspected=True)
    desk.dispatch.send(0.0)
    assert desk.replicas.sent == []
    assert desk.dispatch.needs_isolation
    assert not desk.dispatch.idle
    desk.finish()
    assert [ref > 100 for ref, _ in desk.replicas.sent] == [True]
    assert not desk.dispatch.needs_isolation


def test_no_replica_holds_more_than_two_batches() -> None:
    """Further batches wait, and `room` says so."""
    desk = Desk(MemoryReplicas(score, hangs=lambda _: True), fleet=2)
    for number in range(7):
        assert desk.dispatch.room == (number < 4)
        desk.submit(rows_of(number, number, 1, set()))
        desk.dispatch.send(0.0)
    assert desk.dispatch.in_flight() == {0: 2, 1: 2}
    assert len(desk.replicas.sent) == 4


def test_an_overrun_deadline_counts_as_lost() -> None:
    """A hung replica is given up at its deadline, forgotten, and its batch goes to another."""
    desk = Desk(MemoryReplicas(score, hangs=lambda _: desk.spare == 100), fleet=1)
    desk.submit(rows_of(1, 0, 4, set()))
    desk.step()
    desk.clock.advance(UNMEASURED_DEADLINE_SECONDS - 0.1)
    desk.step()
    assert desk.lost == []
    desk.clock.advance(0.2)
    desk.step()
    assert desk.lost == [(0, "no answer within 30.1 s")]
    desk.finish()
    assert desk.outcome() == ([0, 1, 2, 3], [])


@pytest.mark.parametrize(("per_row", "deadline"), [(0.001, 2.0), (0.1, 8.0)])
def test_the_deadline_follows_the_measured_time(per_row: float, deadline: float) -> None:
    """Twenty times what its rows take, and never under two seconds."""
    desk = Desk(MemoryReplicas(score, hangs=lambda _: True), fleet=1, seconds_per_row=per_row)
    desk.submit(rows_of(1, 0, 4, set()))
    desk.dispatch.send(0.0)
    desk.clock.advance(deadline - 0.01)
    desk.dispatch.collect(0.0, desk.clock.monotonic)
    assert desk.dispatch.lost == []
    desk.clock.advance(0.02)
    desk.dispatch.collect(0.0, desk.clock.monotonic)
    assert [number for number, _ in desk.dispatch.lost] == [0]


def test_a_retired_replica_that_still_holds_a_batch_is_not_forgotten() -> None:
    """It gets nothing new, its answer counts, and its death or delay is still seen."""
    desk = Desk(MemoryReplicas(score), fleet=1)
    desk.submit(rows_of(1, 0, 2, set()))
    desk.dispatch.send(0.0)
    desk.fleet = []
    desk.turn_orders()
    assert desk.dispatch.in_flight() == {0: 1}
    assert not desk.dispatch.room
    desk.step()
    assert desk.outcome() == ([0, 1], [])
    hung = Desk(MemoryReplicas(score, hangs=lambda _: True), fleet=1)
    hung.submit(rows_of(1, 0, 2, set()))
    hung.dispatch.send(0.0)
    hung.dispatch.orders([], None)
    hung.clock.advance(UNMEASURED_DEADLINE_SECONDS)
    hung.dispatch.collect(0.0, hung.clock.monotonic)
    assert [number for number, _ in hung.dispatch.lost] == [0]


def test_a_lost_replica_is_never_used_again() -> None:
    """Orders made before the driver heard of the loss do not bring it back."""
    desk = Desk(MemoryReplicas(score), fleet=1)
    desk.submit(rows_of(1, 0, 2, set()))
    desk.dispatch.send(0.0)
    desk.replicas.die(0)
    desk.dispatch.collect(0.0, desk.clock.monotonic)
    desk.dispatch.orders([ReplicaRef(0, None)], ReplicaRef(0, None))
    desk.dispatch.send(0.0)
    assert [ref for ref, _ in desk.replicas.sent] == [0]


def test_each_answer_is_timed() -> None:
    """Rows, scoring time, and the time there and back."""
    desk = Desk(MemoryReplicas(score), fleet=1)
    desk.submit(rows_of(1, 0, 4, set()))
    desk.dispatch.send(0.0)
    desk.clock.advance(0.5)
    desk.dispatch.collect(0.0, desk.clock.monotonic)
    (timing,) = desk.dispatch.timings
    assert (timing.replica, timing.rows, timing.service_seconds) == (0, 4, 0.004)
    assert timing.round_trip_seconds == 0.5


class Paced(MemoryReplicas):
    """Replicas that tell of their own pace: replica 0 needs ten times as long as the others."""

    def collect(self, timeout: float) -> list[Answer]:
        answers = []
        for one in super().collect(timeout):
            assert one.scored is not None
            pace = 0.1 if one.replica == 0 else 0.01
            seconds = pace * one.scored.rows.num_rows
            answers.append(replace(one, scored=replace(one.scored, seconds=seconds)))
        return answers


def test_batches_go_where_they_are_done_first() -> None:
    """Once both are timed, the slow one of a mixed fleet gets no more than the fast one leaves."""
    replicas = Paced(score)
    desk = Desk(replicas)
    for number in range(2):
        desk.submit(rows_of(number, 10 * number, 10, set()))
    desk.step()
    assert {replica for replica, _ in replicas.sent} == {0, 1}
    for number in range(2, 22):
        desk.submit(rows_of(number, 10 * number, 10, set()))
        desk.dispatch.send(desk.clock.monotonic())
        desk.step()
    later = [replica for replica, _ in replicas.sent[2:]]
    assert later == [1] * 20
    desk.finish()
    assert len(desk.outcome()[0]) == 220


def mixed_desk(first_hanging: int) -> Desk:
    """A replica on the CPU beside one with a GPU, whose time was inherited; late batches hang."""
    replicas = Paced(score, hangs=lambda batch: batch.id >= first_hanging)
    desk = Desk(replicas, seconds_per_row=0.01)
    desk.fleet = [ReplicaRef(0, None), ReplicaRef(1, None, gpu=True)]
    desk.turn_orders()
    return desk


def test_the_first_batch_on_another_kind_has_the_time_of_one_never_timed() -> None:
    """What was inherited may be a GPU's time, by which a replica on the CPU would seem hung."""
    desk = mixed_desk(first_hanging=0)
    desk.submit(rows_of(0, 0, 100, set()))
    desk.dispatch.send(0.0)
    assert desk.dispatch.in_flight() == {0: 1}
    desk.clock.advance(UNMEASURED_DEADLINE_SECONDS - 0.1)
    desk.step()
    assert desk.lost == []


def test_deadlines_of_a_mixed_fleet_follow_each_kinds_own_time() -> None:
    """However many answers of a GPU come between, a replica on the CPU has twenty times its own."""
    desk = mixed_desk(first_hanging=60)
    for number in range(60):
        desk.submit(rows_of(number, 100 * number, 100, set()))
        desk.dispatch.send(0.0)
        desk.step()
    for number in range(60, 63):
        desk.submit(rows_of(number, 100 * number, 100, set()))
    desk.dispatch.send(0.0)
    assert desk.dispatch.in_flight() == {1: 2, 0: 1}
    desk.clock.advance(199.0)
    desk.dispatch.collect(0.0, desk.clock.monotonic)
    assert [number for number, _ in desk.dispatch.lost] == [1]
    desk.clock.advance(2.0)
    desk.dispatch.collect(0.0, desk.clock.monotonic)
    assert [number for number, _ in desk.dispatch.lost] == [1, 0]


def test_the_slow_one_helps_where_the_fast_one_is_full() -> None:
    """A fleet is not kept waiting for its fastest replica: what has room is used."""
    replicas = Paced(score)
    desk = Desk(replicas)
    for number in range(2):
        desk.submit(rows_of(number, 10 * number, 10, set()))
    desk.step()
    for number in range(2, 6):
        desk.submit(rows_of(number, 10 * number, 10, set()))
    desk.dispatch.send(desk.clock.monotonic())
    assert [replica for replica, _ in replicas.sent[2:]] == [1, 1, 0, 0]


def test_a_replica_in_this_process_gets_its_batch_after_the_others() -> None:
    """It keeps the loop while it scores, and they should have theirs by then."""
    replicas = MemoryReplicas(score)
    desk = Desk(replicas)
    desk.fleet = [ReplicaRef(0, None), ReplicaRef(1, "an actor"), ReplicaRef(2, "an actor")]
    desk.turn_orders()
    for number in range(3):
        desk.submit(batch_of(number, "in", [(0, number, b"x")]))
    desk.dispatch.send(0.0)
    assert [replica for replica, _ in replicas.sent] == [1, 2, 0]
