"""Slots: feeders are kept in turns, replaced when they die or hang, and end when fenced."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipeline.batch import Partition
from pipeline.control import (
    Assignment,
    Layout,
    Orders,
    PartitionReport,
    ReplicaRef,
    Report,
    Timing,
    WaitingOn,
)
from pipeline.errors import (
    AnotherRunTookOver,
    ClusterUnfit,
    Fenced,
    OutcomeUnknown,
    Retriable,
    TooManyDeadLetters,
)
from pipeline.slot import FIRST_PAUSE_SECONDS, State
from pipeline.slots import (
    FIRST_SPARE_SECONDS,
    HANG_FACTOR,
    HANG_SECONDS,
    LONGEST_PAUSE_SECONDS,
    SETTLED_SECONDS,
    SPARE_SECONDS,
    START_SECONDS,
    TAKE_OVER_SECONDS,
    TURNS_AHEAD,
    UNMEASURED_HANG_SECONDS,
    Slots,
    Work,
)
from pipeline.starts import START_FAILURES
from pipeline.testing import ManualClock, MemoryActors

LAYOUT = Layout(1, 2, 2, "id", True)
ORDERS = Orders(0.25)
LOCAL_ORDERS = Orders(0.25, (ReplicaRef(0, None),))
REPORT = Report(
    slot=0,
    epoch=1,
    partitions=(),
    records_in=0,
    records_out=0,
    dead={},
    in_flight={},
    timings=(),
    lost=(),
    needs_isolation=False,
    waiting_on=WaitingOn.RECORDS,
    uncommitted_rows=0,
    commits=0,
    last_commit_seconds=None,
    committed_at=None,
    drained=False,
    memory_bytes=0,
)


class Script:
    """What the feeders of a test do; shared by all of them."""

    def __init__(self) -> None:
        self.assignments: list[Assignment] = []
        self.claims: list[Exception | None] = []
        self.turn: Callable[[int, Orders], Report] = lambda slot, _: replace(REPORT, slot=slot)
        self.closed = 0


class Feeder:
    def __init__(self, script: Script, assignment: Assignment) -> None:
        self.script = script
        self.slot = assignment.slot
        script.assignments.append(assignment)
        error = script.claims.pop(0) if script.claims else None
        if error is not None:
            raise error

    def turn(self, orders: Orders) -> Report:
        return self.script.turn(self.slot, orders)

    def close(self) -> None:
        self.script.closed += 1


class Desk:
    def __init__(self, slots: int = 1, *, local: bool = False) -> None:
        self.clock = ManualClock()
        self.actors = MemoryActors()
        self.script = Script()
        self.stored: str | Exception = LAYOUT.run
        self.orders = LOCAL_ORDERS if local else ORDERS
        work = Work(
            layout=LAYOUT,
            topic_partitions=5,
            build=Feeder,
            args=(self.script,),
            cpus=0.5,
            max_batch_size=100,
            suspect_rows=64,
            runs=self.runs,
            spares=("feeder", "replica"),
            warm=dict,
        )
        owned = [(Partition("in", n),) for n in range(slots)]
        self.slots = Slots(self.actors, self.clock, work, owned)
        self.reports: list[Report] = []

    def runs(self, _: tuple[Partition, ...]) -> set[str]:
        if isinstance(self.stored, Exception):
            raise self.stored
        return {self.stored}

    def step(self, seconds: float = 0.0, orders: Orders | None = None) -> None:
        self.slots.step(lambda _: orders or self.orders)
        for reply in self.actors.replies(0.0):
            if reply.tag[0] != "closed":
                report = self.slots.reply(reply)
                self.reports += [] if report is None else [report]
        self.clock.advance(seconds)

    def handle(self) -> Any:
        return self.slots.slots[0].handle

    @property
    def state(self) -> State:
        return self.slots.slots[0].state


def failing(error: Exception) -> Callable[[int, Orders], Report]:
    def turn(_slot: int, _orders: Orders) -> Report:
        raise error

    return turn


def test_processes_are_kept_spare_once_the_feeders_have_been_up_for_a_while() -> None:
    """One by one: what starts quickly later must not hold up a start; after a death it comes soon."""
    desk = Desk()
    for _ in range(3):
        desk.step()
    assert desk.reports
    for _ in range(int(FIRST_SPARE_SECONDS)):
        assert not desk.actors.spares
        desk.step(1.0)
    desk.step()
    assert desk.actors.spares == {"feeder"}
    desk.step(SPARE_SECONDS)
    desk.step()
    assert desk.actors.spares == {"feeder", "replica"}
    desk.actors.spares.clear()
    desk.actors.die(desk.handle())
    desk.step(FIRST_PAUSE_SECONDS)
    for _ in range(3):
        desk.step()
    assert (desk.state, desk.slots.successors) == (State.RUNNING, 1)
    assert not desk.actors.spares
    desk.step(SPARE_SECONDS)
    desk.step()
    assert desk.actors.spares == {"feeder"}, "what is needed again comes sooner"


def test_each_slot_gets_its_assignment_and_then_turns() -> None:
    """A feeder starts once, and turns are kept queued ahead of it, never more than two."""
    desk = Desk(2)
    desk.step()
    assert [a.slot for a in desk.script.assignments] == [0, 1]
    assert [a.partitions for a in desk.script.assignments] == [
        (Partition("in", 0),),
        (Partition("in", 1),),
    ]
    assert {(a.layout, a.topic_partitions) for a in desk.script.assignments} == {(LAYOUT, 5)}
    assert [cpus for _, cpus in desk.actors.starts] == [0.5, 0.5]
    for _ in range(4):
        desk.step()
        assert all(0 <= slot.turns <= TURNS_AHEAD for slot in desk.slots.slots)
    assert {report.slot for report in desk.reports} == {0, 1}
    assert desk.slots.reports == desk.reports[-2:]


def test_turns_last_no_time_until_the_first_report() -> None:
    """So its claim is known before it has scored anything; the orders are the driver's else."""
    desk = Desk()
    asked: list[Orders] = []

    def turn(slot: int, orders: Orders) -> Report:
        asked.append(orders)
        return replace(REPORT, slot=slot)

    desk.script.turn = turn
    ordered = replace(ORDERS, replicas=(ReplicaRef(3, "handle"),), drain=True)
    for _ in range(5):
        desk.step(orders=ordered)
    first = [orders.seconds for orders in asked[:TURNS_AHEAD]]
    assert first == [0.0] * TURNS_AHEAD
    assert {orders.seconds for orders in asked[TURNS_AHEAD:]} == {ORDERS.seconds}
    assert {(orders.replicas, orders.drain) for orders in asked} == {(ordered.replicas, True)}


def test_the_first_turn_of_a_successor_lasts_no_time_either() -> None:
    """Its claim is told at once too."""
    desk = Desk()
    desk.step()
    desk.step()
    desk.step()
    desk.script.turn = failing(Retriable("broker"))
    desk.step(FIRST_PAUSE_SECONDS)
    seconds: list[float] = []

    def turn(slot: int, orders: Orders) -> Report:
        seconds.append(orders.seconds)
        return replace(REPORT, slot=slot)

    desk.script.turn = turn
    desk.step()
    desk.step()
    assert seconds == [0.0]


@pytest.mark.parametrize("error", [Retriable("broker"), OutcomeUnknown("late"), RuntimeError("x")])
def test_a_feeder_that_fails_is_succeeded_after_a_pause(error: Exception) -> None:
    """Its actor is killed, and a successor claims the slot when the pause is over."""
    desk = Desk()
    desk.step()
    desk.script.turn = failing(error)
    desk.step()
    assert desk.state is State.WAITING
    assert desk.actors.alive() == []
    desk.step(FIRST_PAUSE_SECONDS)
    assert len(desk.script.assignments) == 1
    desk.script.turn = lambda slot, _: replace(REPORT, slot=slot)
    desk.step()
    desk.step()
    assert (desk.state, desk.slots.successors) == (State.RUNNING, 1)


def test_pauses_grow_up_to_a_limit_and_shrink_again() -> None:
    """A broker that stays away is not asked without end; one that came back is."""
    desk = Desk()
    desk.script.claims = [Retriable("down")] * 12
    pauses = []
    for _ in range(12):
        desk.clock.advance(LONGEST_PAUSE_SECONDS)
        desk.step()
        pauses.append(desk.slots.slots[0].due - desk.clock.monotonic())
    expected = [min(FIRST_PAUSE_SECONDS * 2**n, LONGEST_PAUSE_SECONDS) for n in range(12)]
    assert pauses == pytest.approx(expected)
    desk.clock.advance(LONGEST_PAUSE_SECONDS)
    desk.step()
    desk.clock.advance(SETTLED_SECONDS + 1)
    desk.script.turn = failing(Retriable("down"))
    desk.step()
    assert desk.slots.slots[0].due - desk.clock.monotonic() == pytest.approx(FIRST_PAUSE_SECONDS)


def test_a_feeder_that_has_committed_fails_anew_and_is_succeeded_soon() -> None:
    """However often its slot failed before: the stream moves, so waiting would only hold it up."""
    desk = Desk()
    desk.script.claims = [Retriable("down")] * 6
    for _ in range(7):
        desk.step(LONGEST_PAUSE_SECONDS)
    desk.script.turn = lambda slot, _: replace(REPORT, slot=slot, commits=1)
    desk.step()
    desk.step()
    desk.script.turn = failing(Retriable("down"))
    desk.step()
    assert desk.slots.slots[0].due - desk.clock.monotonic() == pytest.approx(FIRST_PAUSE_SECONDS)


def fenced() -> Desk:
    """A desk whose feeder, of epoch 1, was fenced."""
    desk = Desk()
    desk.step()
    desk.step()
    desk.script.turn = failing(Fenced("epoch 1 is fenced by 2"))
    desk.step()
    assert desk.state is State.WAITING
    desk.script.turn = lambda slot, _: replace(REPORT, slot=slot)
    return desk


def test_a_take_over_by_another_run_ends_this_one() -> None:
    """The offsets are another run's by now: the slot has no successor here."""
    desk = fenced()
    desk.stored = "another"
    desk.clock.advance(TAKE_OVER_SECONDS)
    with pytest.raises(AnotherRunTookOver, match="took over slot 0"):
        desk.step()
    assert len(desk.script.assignments) == 1


def test_a_fence_of_the_broker_itself_has_a_successor() -> None:
    """A transaction that timed out fences too; the offsets are ours, and so this run goes on."""
    desk = fenced()
    desk.clock.advance(TAKE_OVER_SECONDS - 0.1)
    desk.step()
    assert len(desk.script.assignments) == 1
    desk.clock.advance(0.1)
    desk.step()
    assert len(desk.script.assignments) == 2


def test_a_fenced_slot_waits_for_a_broker_that_does_not_answer() -> None:
    """Without an answer about the owner nothing is started and nothing given up."""
    desk = fenced()
    desk.stored = Retriable("no broker")
    desk.clock.advance(TAKE_OVER_SECONDS)
    desk.step()
    assert desk.state is State.WAITING
    desk.stored = LAYOUT.run
    desk.clock.advance(LONGEST_PAUSE_SECONDS)
    desk.step()
    assert len(desk.script.assignments) == 2


def test_a_successor_that_is_fenced_in_its_first_commit_is_no_take_over() -> None:
    """Its own claim has moved the epoch on; the offsets are still this run's."""
    desk = fenced()
    desk.clock.advance(TAKE_OVER_SECONDS)

    def turn(slot: int, orders: Orders) -> Report:
        if orders.seconds > 0.0:
            raise Fenced("the broker timed its transaction out")
        return replace(REPORT, slot=slot, epoch=2)

    desk.script.turn = turn
    desk.step()
    while desk.state is not State.WAITING:
        desk.step()
    desk.clock.advance(TAKE_OVER_SECONDS)
    desk.step()
    assert len(desk.script.assignments) == 3


def test_the_fence_of_a_feeder_that_was_replaced_is_ours() -> None:
    """A late reply of a predecessor is nobody's business."""
    desk = Desk()
    desk.step()
    desk.step()
    desk.actors.hang(desk.handle())
    desk.step(UNMEASURED_HANG_SECONDS + 1)
    desk.step(FIRST_PAUSE_SECONDS)
    desk.step()
    from pipeline.ports import Reply

    assert desk.slots.reply(Reply(("turn", 0, 1), None, Fenced("by its successor"))) is None
    assert desk.state in {State.STARTING, State.RUNNING}


@pytest.mark.parametrize("error", [ClusterUnfit("gone"), TooManyDeadLetters("bad")])
def test_what_no_successor_mends_is_raised_and_ends_the_slot(error: Exception) -> None:
    """The driver ends the run with it; the slot holds up no drain and has no successor."""
    desk = Desk(2)
    desk.step()
    desk.script.turn = lambda slot, orders: (
        failing(error)(slot, orders) if slot == 0 else replace(REPORT, slot=slot, drained=True)
    )
    with pytest.raises(type(error)):
        desk.step()
    assert desk.state is State.FAILED
    # Its queued turn says that it failed before; nobody is asked again, however long it takes.
    desk.script.turn = lambda slot, orders: (
        failing(Retriable("this feeder failed in an earlier turn"))(slot, orders)
        if slot == 0
        else replace(REPORT, slot=slot, drained=True)
    )
    for _ in range(4):
        desk.step(START_SECONDS)
    assert desk.state is State.FAILED
    assert (desk.slots.drained, desk.slots.successors) == (True, 0)
    assert len(desk.script.assignments) == 2


def test_a_claim_that_no_successor_mends_ends_the_slot_too() -> None:
    """Offsets that do not fit stay so: it is not tried again."""
    desk = Desk()
    desk.script.claims = [ClusterUnfit("no committed offset")]
    with pytest.raises(ClusterUnfit):
        desk.step()
    desk.step(START_SECONDS)
    desk.step()
    assert (desk.state, desk.slots.drained) == (State.FAILED, True)
    assert len(desk.script.assignments) == 1


def test_a_feeder_that_never_starts_ends_the_run() -> None:
    """A node may go away once or twice; what dies at each start does so for a reason."""
    desk = Desk()
    desk.script.claims = [RuntimeError("no module named fraud")] * START_FAILURES
    for _ in range(START_FAILURES - 1):
        desk.step(LONGEST_PAUSE_SECONDS)
        assert desk.state is State.WAITING
    with pytest.raises(ClusterUnfit, match="slot 0 does not start: RuntimeError: no module named"):
        desk.step()
    assert (desk.state, desk.slots.drained) == (State.FAILED, True)


def test_a_broker_that_is_away_is_waited_for() -> None:
    """A claim that failed with an error of ours is no lost start."""
    desk = Desk()
    desk.script.claims = [Retriable("no broker")] * (3 * START_FAILURES)
    for _ in range(3 * START_FAILURES):
        desk.step(LONGEST_PAUSE_SECONDS)
    desk.step()
    desk.step()
    assert desk.state is State.RUNNING


def test_one_start_forgives_those_that_were_lost() -> None:
    """Lost starts count in a row only: a run of days meets some."""
    desk = Desk()
    desk.script.claims = [RuntimeError("node lost")] * (START_FAILURES - 1)
    for _ in range(START_FAILURES + 1):
        desk.step(LONGEST_PAUSE_SECONDS)
    assert desk.reports
    desk.script.turn = failing(Retriable("broker"))
    desk.step(LONGEST_PAUSE_SECONDS)
    desk.script.claims = [RuntimeError("node lost")]
    desk.step()
    assert desk.state is State.WAITING


@pytest.mark.parametrize(
    ("local", "allowed"), [(False, HANG_SECONDS), (True, UNMEASURED_HANG_SECONDS)]
)
def test_a_hung_feeder_is_replaced(local: bool, allowed: float) -> None:
    """One that answers no turn in time is killed; scoring in it may take longer."""
    desk = Desk(local=local)
    desk.step()
    desk.step()
    desk.actors.hang(desk.handle())
    desk.step(allowed)
    desk.step()
    assert desk.state is State.RUNNING
    desk.clock.advance(0.1)
    desk.step()
    assert desk.state is State.WAITING
    desk.clock.advance(FIRST_PAUSE_SECONDS)
    desk.step()
    assert desk.script.assignments[-1].suspect_rows == (64 if local else 0)


@pytest.mark.parametrize(
    ("batches", "allowed"),
    [([(5, 0.1), (10, 0.1)], HANG_SECONDS), ([(5, 0.1), (50, 1.0)], HANG_FACTOR * 2.0)],
    ids=["dear small batches", "a slow model"],
)
def test_a_local_feeder_has_the_time_of_a_full_batch(
    batches: list[tuple[int, float]], allowed: float
) -> None:
    """As the batches so far foretell it: what each costs whatever it holds is counted once."""
    timings = tuple(Timing(0, rows, seconds, seconds) for rows, seconds in batches)
    desk = Desk(local=True)
    desk.script.turn = lambda slot, _: replace(REPORT, slot=slot, timings=timings)
    desk.step()
    desk.step()
    desk.actors.hang(desk.handle())
    desk.step(allowed)
    desk.step()
    assert desk.state is State.RUNNING
    desk.clock.advance(0.1)
    desk.step()
    assert desk.state is State.WAITING


@pytest.mark.parametrize("answered", [False, True])
def test_a_feeder_may_score_itself_until_it_has_answered_the_last_such_turn(answered: bool) -> None:
    """Remote replicas alone are ordered from some turn on; those queued before it count still."""
    desk = Desk(local=True)
    for _ in range(3):
        desk.step()
    desk.orders = replace(ORDERS, replicas=(ReplicaRef(3, "handle"),))
    if answered:
        desk.step()
    else:
        desk.slots.step(lambda _: LOCAL_ORDERS)
    desk.actors.hang(desk.handle())
    desk.step(HANG_SECONDS + 0.1)
    desk.step()
    assert desk.state is (State.WAITING if answered else State.RUNNING)
    desk.clock.advance(UNMEASURED_HANG_SECONDS)
    desk.step()
    assert desk.slots.suspected == (set() if answered else {0})


def test_a_start_that_hangs_is_replaced() -> None:
    """A claim has a minute."""
    desk = Desk()
    desk.slots.step(lambda _: ORDERS)
    desk.actors.hang(desk.handle())
    desk.clock.advance(START_SECONDS + 0.1)
    desk.step()
    assert desk.state is State.WAITING


def test_a_death_while_scoring_locally_makes_its_rows_suspect_once() -> None:
    """The successor isolates them; a successor of that one does not."""
    desk = Desk(local=True)
    desk.step()
    desk.script.turn = failing(RuntimeError("died"))
    desk.step()
    desk.script.claims = [Retriable("down")]
    for _ in range(3):
        desk.clock.advance(1.0)
        desk.step()
    rows = [assignment.suspect_rows for assignment in desk.script.assignments]
    assert rows[:2] == [0, 64]


def test_a_slot_is_suspected_from_the_death_to_the_next_commit() -> None:
    """So that its isolation replica starts beside the successor and not after it."""
    desk = Desk(local=True)
    desk.step()
    desk.step()
    assert desk.slots.suspected == set()
    desk.script.turn = failing(RuntimeError("died"))
    desk.step()
    assert desk.slots.suspected == {0}
    desk.script.turn = lambda slot, _: replace(REPORT, slot=slot)
    desk.step(FIRST_PAUSE_SECONDS)
    desk.step()
    assert desk.slots.suspected == {0}
    desk.script.turn = lambda slot, _: replace(REPORT, slot=slot, commits=1)
    desk.step()
    assert desk.slots.suspected == set()


def test_suspects_stay_suspect_until_a_feeder_has_claimed_them() -> None:
    """A successor whose claim failed has scored nothing: the next one isolates the rows still."""
    desk = Desk(local=True)
    desk.step()
    desk.script.turn = failing(RuntimeError("died"))
    desk.step()
    desk.script.turn = lambda slot, _: replace(REPORT, slot=slot)
    desk.script.claims = [Retriable("down")]
    for _ in range(3):
        desk.clock.advance(1.0)
        desk.step()
    rows = [assignment.suspect_rows for assignment in desk.script.assignments]
    assert rows == [0, 64, 64]


def test_a_successor_that_dies_in_its_claim_leaves_the_suspects_suspect() -> None:
    """It has scored nothing either."""
    desk = Desk(local=True)
    desk.step()
    desk.script.turn = failing(RuntimeError("died"))
    desk.step()
    desk.script.turn = lambda slot, _: replace(REPORT, slot=slot)
    desk.script.claims = [RuntimeError("its node went away")]
    for _ in range(3):
        desk.clock.advance(1.0)
        desk.step()
    rows = [assignment.suspect_rows for assignment in desk.script.assignments]
    assert rows == [0, 64, 64]


def test_totals_go_on_over_successors() -> None:
    """What predecessors counted is kept."""
    desk = Desk()
    desk.script.turn = lambda _s, _o: replace(
        REPORT, records_in=5, records_out=4, dead={"decode:Bad": 1}
    )
    desk.step()
    desk.step()
    desk.script.turn = failing(Retriable("down"))
    desk.step()
    desk.clock.advance(1.0)
    desk.script.turn = lambda _s, _o: replace(
        REPORT, records_in=2, records_out=1, dead={"decode:Bad": 1}
    )
    for _ in range(4):
        desk.step()
    assert desk.slots.slots[0].totals() == (7, 5, {"decode:Bad": 2})


def test_a_successor_knows_how_long_a_row_takes() -> None:
    """The slowest row seen lately travels with the assignment."""
    desk = Desk()
    desk.script.turn = lambda _s, _o: replace(REPORT, timings=(Timing(0, 100, 0.5, 0.6),))
    desk.step()
    desk.step()
    desk.script.turn = failing(Retriable("down"))
    desk.step()
    desk.step(1.0)
    desk.step()
    assert desk.script.assignments[-1].seconds_per_row == pytest.approx(0.005)


def test_a_drained_feeder_is_closed_once_and_gets_no_more_turns() -> None:
    """Turns that were queued already change nothing."""
    desk = Desk()
    desk.step()
    desk.script.turn = lambda _s, _o: replace(REPORT, drained=True)
    for _ in range(6):
        desk.step()
    assert desk.slots.drained
    assert desk.script.closed == 1
    assert len(desk.reports) <= TURNS_AHEAD


def test_closing_ends_every_feeder() -> None:
    """No actor is left behind."""
    desk = Desk(2)
    desk.step()
    desk.slots.close()
    assert desk.actors.alive() == []


def drains(slot: int, orders: Orders) -> Report:
    return replace(REPORT, slot=slot, records_in=3, drained=orders.drain)


def test_new_partitions_go_to_a_successor_once_the_feeder_has_drained() -> None:
    """Its slot alone is asked to drain; the successor claims at once, with the others as before."""
    desk = Desk(2)
    desk.script.turn = drains
    for _ in range(3):
        desk.step()
    desk.slots.grow([Partition("in", n) for n in range(3)])
    for _ in range(4):
        desk.step()
    made = [(a.slot, a.partitions, a.topic_partitions) for a in desk.script.assignments]
    assert made[2:] == [(0, (Partition("in", 0), Partition("in", 2)), 3)]
    assert [slot.state for slot in desk.slots.slots] == [State.RUNNING, State.RUNNING]
    assert desk.slots.slots[0].totals()[0] == 6
    assert desk.slots.successors == 0
    desk.slots.grow([Partition("in", n) for n in range(3)])
    for _ in range(4):
        desk.step()
    assert len(desk.script.assignments) == 3, "what a slot has is not new to it"


def test_a_run_that_ends_takes_no_new_partitions_in() -> None:
    """A slot that drains for both reasons is drained for good."""
    desk = Desk()
    desk.script.turn = drains
    for _ in range(3):
        desk.step()
    desk.slots.grow([Partition("in", n) for n in range(2)])
    for _ in range(4):
        desk.step(orders=replace(ORDERS, drain=True))
    assert (desk.state, len(desk.script.assignments)) == (State.DRAINED, 1)


def test_a_feeder_that_dies_meanwhile_is_succeeded_with_the_new_partitions() -> None:
    """Whichever way it ends, its successor has them."""
    desk = Desk()
    for _ in range(2):
        desk.step()
    desk.slots.grow([Partition("in", n) for n in range(2)])
    desk.script.turn = failing(RuntimeError("died"))
    for _ in range(3):
        desk.step(1.0)
    assert desk.script.assignments[-1].partitions == (Partition("in", 0), Partition("in", 1))


def test_a_take_over_says_who_died_and_from_where_it_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The process that ended and why; then its successor's, how long it took, and the offsets."""
    caplog.set_level("INFO")
    desk = Desk()
    desk.step()
    desk.script.turn = failing(RuntimeError("died"))
    desk.step()
    assert "feeder of slot 0 (process" in caplog.text
    assert "died" in caplog.text
    at = PartitionReport(Partition("in", 0), 42, 42, 42, 42, None)
    desk.script.turn = lambda _s, _o: replace(REPORT, epoch=7, partitions=(at,))
    for _ in range(3):
        desk.step(1.0)
    taken = [text for text in caplog.messages if "taken over" in text]
    assert len(taken) == 1
    assert "slot 0 is taken over after 2.0 s" in taken[0]
    assert "epoch 7: in/0 from 42" in taken[0]


@pytest.mark.parametrize(("start", "errors"), [(42, 0), (50, 0), (41, 1)])
def test_commits_that_the_cluster_has_lost_are_told(
    caplog: pytest.LogCaptureFixture, start: int, errors: int
) -> None:
    """A successor that begins below what its predecessor knew to be committed: an error says so."""
    desk = Desk()

    def at(first: int, committed: int) -> Callable[[int, Orders], Report]:
        place = PartitionReport(Partition("in", 0), first, committed, committed, committed, None)
        return lambda _s, _o: replace(REPORT, partitions=(place,))

    desk.script.turn = at(40, 42)
    for _ in range(3):
        desk.step()
    desk.script.turn = failing(RuntimeError("died"))
    for _ in range(2):
        desk.step()
    desk.script.turn = at(start, start)
    for _ in range(3):
        desk.step(1.0)
    assert desk.slots.successors == 1
    told = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert len(told) == errors
    assert all("in/0 from 41, where 42 was known" in text for text in told)
