"""The fleet: replicas start, serve, retire and are replaced."""

import pytest

from pipeline.control import ReplicaRef
from pipeline.errors import ClusterUnfit, ConfigInvalid, Mistake
from pipeline.fleet import (
    RETIRING_SECONDS,
    STARTING_SECONDS,
    Fleet,
    Kind,
    Readiness,
    State,
)
from pipeline.ports import ActorDied
from pipeline.starts import LOST_STARTS, START_FAILURES
from pipeline.testing import ManualClock, MemoryActors


class Replica:
    """What a replica's actor holds."""


def build(works: object) -> Replica:
    if isinstance(works, Exception):
        raise works
    return Replica()


class Desk:
    def __init__(self, works: object = True, cpus: float = 2.0) -> None:
        self.actors = MemoryActors()
        self.clock = ManualClock()
        kind = Kind(build, cpus)
        self.fleet = Fleet(self.actors, self.clock, (works,), kind, build_isolated=build)

    def step(self, wanted: int, isolated: set[int] = frozenset(), **in_flight: int) -> None:  # type: ignore[assignment]
        counts = {int(name[1:]): count for name, count in in_flight.items()}
        self.fleet.step(wanted, set(isolated), counts)

    def hear(self) -> None:
        for reply in self.actors.replies(0.0):
            self.fleet.started(reply.tag[1], reply.value or 0, reply.error)

    def ready(self) -> list[int]:
        return [ref.id for ref in self.fleet.ready()]

    def states(self) -> dict[int, State]:
        return {replica.id: replica.state for replica in self.fleet.states()}


def test_replicas_serve_once_they_have_started() -> None:
    """What is wanted is started once, and is ready when its start has been answered."""
    desk = Desk()
    desk.step(2)
    desk.step(2)
    assert len(desk.actors.starts) == 2
    assert desk.states() == {1: State.STARTING, 2: State.STARTING}
    assert desk.ready() == []
    desk.hear()
    assert desk.ready() == [1, 2]
    assert all(replica.pid for replica in desk.fleet.states())


def test_a_lost_replica_is_replaced() -> None:
    """Its actor is killed, another one takes its place, and the count says so."""
    desk = Desk()
    desk.step(1)
    desk.hear()
    desk.fleet.lost(1, "no answer within 2.0 s")
    assert desk.actors.alive() == []
    desk.step(1)
    desk.hear()
    assert (desk.ready(), desk.fleet.replaced) == ([2], 1)
    desk.fleet.lost(1, "a second feeder saw it too")
    assert desk.fleet.replaced == 1


def test_feeders_score_until_another_replica_is_ready() -> None:
    """Told not to, they do so until then; a replica that dies later does not bring them back."""
    actors = MemoryActors()
    here = (ReplicaRef(0, None),)
    fleet = Fleet(
        actors, ManualClock(), (True,), Kind(build, 1.0), build_isolated=build, standing=here
    )

    def serving(*, wanted: bool) -> list[int]:
        fleet.step(1, set(), {})
        fleet.stand(wanted=wanted)
        return [ref.id for ref in fleet.ready()]

    assert serving(wanted=False) == [0]
    fleet.started(1, 11, None)
    assert serving(wanted=True) == [0, 1]
    assert serving(wanted=False) == [1]
    fleet.lost(1, "no answer within 2.0 s")
    assert serving(wanted=False) == []
    assert serving(wanted=True) == [0]


def test_a_surplus_replica_retires_and_ends_once_nothing_is_in_flight() -> None:
    """It is offered no more, and lives as long as a feeder waits for its answer."""
    desk = Desk()
    desk.step(2)
    desk.hear()
    desk.step(1, r1=1)
    retiring = [n for n, state in desk.states().items() if state is State.RETIRING]
    assert retiring == [1]
    assert desk.ready() == [2]
    desk.clock.advance(10 * RETIRING_SECONDS)
    desk.step(1, r1=1)
    assert len(desk.actors.alive()) == 2
    desk.step(1)
    assert desk.states() == {2: State.READY}
    assert len(desk.actors.alive()) == 1


def test_a_retiring_replica_waits_for_turns_that_still_know_it() -> None:
    """A feeder may send to it until its queued turns are over, also if none has said so yet."""
    desk = Desk()
    desk.step(1)
    desk.hear()
    desk.step(0)
    desk.clock.advance(RETIRING_SECONDS)
    desk.step(0)
    assert desk.states() == {1: State.RETIRING}
    desk.step(0, r1=1)
    desk.clock.advance(0.1)
    desk.step(0, r1=1)
    assert desk.states() == {1: State.RETIRING}
    desk.step(0)
    assert desk.actors.alive() == []


def test_a_retiring_replica_that_dies_is_gone_at_once() -> None:
    """There is nothing left to wait for, and the count of those that serve is as wanted."""
    desk = Desk()
    desk.step(2)
    desk.hear()
    desk.step(1)
    desk.fleet.lost(1, "no answer within 2.0 s")
    desk.step(1)
    assert desk.states() == {2: State.READY}
    assert len(desk.actors.starts) == 2


def test_a_starting_replica_goes_before_one_that_is_ready() -> None:
    """Scaling down costs no capacity that there is."""
    desk = Desk()
    desk.step(1)
    desk.hear()
    desk.step(2)
    desk.step(1)
    assert desk.states() == {1: State.READY, 2: State.RETIRING}
    desk.hear()
    assert desk.ready() == [1]
    desk.clock.advance(RETIRING_SECONDS + 0.1)
    desk.step(1)
    assert list(desk.states()) == [1]


def test_isolation_replicas_belong_to_one_slot_and_ask_for_no_cpu() -> None:
    """They are never in the fleet's list, start on a full cluster, and end when not needed."""
    desk = Desk(cpus=2.0)
    desk.step(1, {3})
    desk.hear()
    assert [cpus for _, cpus in desk.actors.starts] == [2.0, 0.0]
    assert desk.ready() == [1]
    assert desk.fleet.isolation(3) is not None
    assert desk.fleet.isolation(2) is None
    desk.step(1)
    assert desk.fleet.isolation(3) is None
    desk.clock.advance(RETIRING_SECONDS + 0.1)
    desk.step(1)
    assert list(desk.states()) == [1]


def test_what_cannot_start_ends_the_run_after_some_tries() -> None:
    """A node may go away once; a model that cannot be opened never starts."""
    desk = Desk(RuntimeError("no such model"))
    for _ in range(START_FAILURES - 1):
        desk.step(1)
        desk.hear()
    desk.step(1)
    with pytest.raises(ClusterUnfit, match="replicas do not start: RuntimeError: no such model"):
        desk.hear()


def test_an_error_of_ours_is_raised_as_it_is() -> None:
    """The user reads what to mend, not that a replica did not start."""
    desk = Desk(ConfigInvalid([Mistake("recipe", "x:y", "can't be imported", "Mend it")]))
    for _ in range(START_FAILURES - 1):
        desk.step(1)
        desk.hear()
    desk.step(1)
    with pytest.raises(ConfigInvalid, match="recipe = 'x:y'"):
        desk.hear()


def test_a_process_that_dies_each_time_it_starts_ends_the_run_later() -> None:
    """Starts that something kills are no model that can't be opened; only many say so."""
    desk = Desk()
    for _ in range(LOST_STARTS):
        desk.step(1)
        desk.actors.die(desk.actors.alive()[-1])
        if len(desk.actors.starts) < LOST_STARTS:
            desk.hear()
    with pytest.raises(ClusterUnfit, match="replicas do not start: died: its worker exited"):
        desk.hear()


@pytest.mark.parametrize("error", [RuntimeError("no such model"), ActorDied("node lost")])
def test_one_success_forgives_earlier_failures(error: Exception) -> None:
    """Failures count in a row only."""
    desk = Desk()
    for _ in range(2 * LOST_STARTS):
        desk.step(2)
        first, second = (tag for tag, _ in desk.actors.starts[-2:])
        desk.fleet.started(first[1], 11, None)
        desk.fleet.started(second[1], 0, error)
        desk.fleet.lost(first[1], "gone")
        desk.actors.replies(0.0)
    assert desk.fleet.replaced == 2 * LOST_STARTS


def test_a_start_that_waits_for_long_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The operator learns that the cluster has no room."""
    desk = Desk()
    desk.step(1)
    for _ in range(3):
        desk.clock.advance(20.0)
        desk.step(1)
    (told,) = [r.message for r in caplog.records if "the cluster has no 2 CPU" in r.message]
    assert told.startswith("replica 1 has not started for 40 s")


def test_a_start_that_hangs_is_ordered_anew_with_twice_the_time() -> None:
    """A slow start so succeeds in the end, and a hanging one is gone; a success resets the time."""
    desk = Desk()
    desk.step(1)
    for number, seconds in enumerate((STARTING_SECONDS, 2 * STARTING_SECONDS), 1):
        desk.clock.advance(seconds)
        desk.step(1)
        assert desk.states() == {number: State.STARTING}
        desk.clock.advance(1.0)
        desk.step(1)
        assert desk.states() == {number + 1: State.STARTING}
        assert len(desk.actors.alive()) == 1
    desk.hear()
    assert desk.ready() == [3]
    desk.step(2)
    desk.clock.advance(STARTING_SECONDS + 1.0)
    desk.step(2)
    assert desk.states() == {3: State.READY, 5: State.STARTING}


def test_closing_ends_every_actor() -> None:
    """Starting, ready and isolated ones."""
    desk = Desk()
    desk.step(2, {0})
    desk.fleet.close()
    assert desk.actors.alive() == []


def isolated(works: object) -> Replica:
    return build(works)


def test_replicas_reserve_gpus_and_isolation_replicas_none() -> None:
    """Where replicas ask for a share of a GPU, those that search for a bad record need none."""
    actors = MemoryActors()
    kind = Kind(build, 1.0, 0.5)
    fleet = Fleet(actors, ManualClock(), (True,), kind, build_isolated=isolated)
    fleet.step(1, {0}, {})
    assert [tag for tag, _ in actors.starts] == [("replica", 1), ("replica", 2)]
    assert actors.gpus == [0.5, 0.0]
    assert actors.builds == [build, isolated]


def on_cpu(works: object) -> Replica:
    return build(works)


def test_a_fleet_may_have_replicas_of_another_kind_beside_it() -> None:
    """Each kind keeps its own number, is replaced by its like, and is told to feeders as what it is."""
    actors, clock = MemoryActors(), ManualClock()
    fast, slow = Kind(build, 1.0, 1.0), Kind(on_cpu, 2.0)
    fleet = Fleet(actors, clock, (True,), fast, build_isolated=isolated, beside={slow: 2})

    def step() -> list[tuple[int, bool]]:
        fleet.step(1, set(), {})
        for reply in actors.replies(0.0):
            fleet.started(reply.tag[1], reply.value, reply.error)
        return [(ref.id, ref.gpu) for ref in fleet.ready()]

    clock.advance(3.0)
    assert step() == [(1, True), (2, False), (3, False)]
    assert actors.gpus == [1.0, 0.0, 0.0]
    assert [cpus for _, cpus in actors.starts] == [1.0, 2.0, 2.0]
    assert actors.builds == [build, on_cpu, on_cpu]
    fleet.lost(2, "no answer within 2.0 s")
    assert step() == [(1, True), (3, False), (4, False)]
    fleet.lost(1, "no answer within 2.0 s")
    assert step() == [(3, False), (4, False), (5, True)]
    # What the number is decided by is the kind whose number it is.
    assert fleet.readiness() == Readiness(1, (), (0.0, 0.0))


def test_what_has_become_ready_is_told_once_with_its_cold_start() -> None:
    """Ready ones are counted, starting ones have an age, isolation replicas are neither."""
    desk = Desk()
    desk.step(1, {0})
    desk.clock.advance(4.0)
    desk.hear()
    desk.step(2, {0})
    desk.clock.advance(1.0)
    assert desk.fleet.readiness() == Readiness(1, (1.0,), (4.0,))
    assert desk.fleet.readiness() == Readiness(1, (1.0,), ())
