"""What replicas and actors promise, asked of the doubles, of Ray, and of local scoring alike."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from pipeline.batch import Batch, Scored
from pipeline.control import ReplicaRef
from pipeline.edges.ray import RayActors, RayReplicas
from pipeline.errors import ClusterUnfit, ConfigInvalid, Mistake
from pipeline.ports import ActorDied, ActorLost, Actors, Answer, Replicas, Reply
from pipeline.testing import MemoryActors, MemoryReplicas, batch_of, score

PATIENCE_SECONDS = 30.0


class Echo:
    """What an actor holds: scores, answers, fails and hangs as it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        if error is not None:
            raise error

    def score(self, batch: Batch) -> Scored:
        if b"hang" in batch.values.to_pylist():
            time.sleep(600)
        return score(batch)

    def count(self) -> int:
        self.calls += 1
        return self.calls

    def fail(self, error: Exception) -> None:
        raise error


def note_process(file: Path) -> None:
    """Write the process id, whole or not at all."""
    part = file.with_suffix(".part")
    part.write_text(str(os.getpid()))
    part.rename(file)


def batch(number: int, value: bytes = b"v") -> Batch:
    return batch_of(number, "in", [(0, 10 * number + n, value) for n in range(3)])


@pytest.fixture
def ray_workers(request: pytest.FixtureRequest) -> None:
    """Give a local Ray whose workers get this module's classes by value: they cannot import it."""
    import ray

    request.getfixturevalue("ray_session")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


# -- actors ----------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "ray"])
def actors(request: pytest.FixtureRequest) -> Iterator[Actors]:
    """Give the double, then Ray's; what is started is killed at the end."""
    if request.param == "ray":
        request.getfixturevalue("ray_workers")
    made: Any = MemoryActors() if request.param == "memory" else RayActors()
    handles: list[Any] = []
    start = made.start

    def remembering(*args: Any, **options: Any) -> Any:
        handles.append(start(*args, **options))
        return handles[-1]

    made.start = remembering
    yield made
    for handle in handles:
        made.kill(handle)


def replies(actors: Actors, count: int) -> list[Reply]:
    found: list[Reply] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {found}"
        found += actors.replies(0.1)
    return found


def test_an_actor_answers_its_calls_in_order(actors: Actors) -> None:
    """First its start, with a process id; then each call, with the value and its tag."""
    handle = actors.start(("replica", 1), Echo, cpus=0.0)
    for number in range(3):
        actors.call(("call", number), handle, "count")
    started, *calls = sorted(replies(actors, 4), key=lambda r: (r.tag[0] == "call", r.tag[1]))
    assert started.tag == ("replica", 1)
    assert isinstance(started.value, int)
    assert started.value > 0
    assert [(r.tag, r.value, r.error) for r in calls] == [
        (("call", n), n + 1, None) for n in range(3)
    ]


def test_an_error_of_ours_arrives_as_it_was_raised(actors: Actors) -> None:
    """With its type, text and mistakes, out of a start as out of a call."""
    invalid = ConfigInvalid([Mistake("recipe", "x", "is wrong", "Mend it")])
    actors.start(("replica", 1), Echo, invalid, cpus=0.0)
    (reply,) = replies(actors, 1)
    assert isinstance(reply.error, ConfigInvalid)
    assert reply.error.mistakes == invalid.mistakes
    handle = actors.start(("replica", 2), Echo, cpus=0.0)
    actors.call(("call", 1), handle, "fail", ClusterUnfit("the disk is full"))
    error = next(r.error for r in replies(actors, 2) if r.tag == ("call", 1))
    assert isinstance(error, ClusterUnfit)
    assert str(error) == "the disk is full"


def test_any_other_error_is_the_loss_of_the_actor(actors: Actors) -> None:
    """Nobody above knows the errors of libraries; the text keeps their name."""
    handle = actors.start(("replica", 1), Echo, cpus=0.0)
    actors.call(("call", 1), handle, "fail", KeyError("nothing"))
    error = next(r.error for r in replies(actors, 2) if r.tag == ("call", 1))
    assert type(error) is ActorLost
    assert "KeyError" in str(error)


def test_calls_of_a_killed_actor_are_lost(actors: Actors) -> None:
    """Sooner or later: Ray may let it answer what reaches it before the kill does."""
    handle = actors.start(("replica", 1), Echo, cpus=0.0)
    replies(actors, 1)
    actors.kill(handle)
    error = None
    deadline = time.monotonic() + PATIENCE_SECONDS
    while error is None:
        assert time.monotonic() < deadline
        actors.call(("call", 1), handle, "count")
        (reply,) = replies(actors, 1)
        error = reply.error
    assert isinstance(error, ActorDied)
    assert reply.value is None
    actors.kill(handle)


def test_what_is_forgotten_is_not_replied(actors: Actors) -> None:
    """The call is made all the same."""
    handle = actors.start(("replica", 1), Echo, cpus=0.0)
    actors.call(("call", 1), handle, "count")
    actors.call(("call", 2), handle, "count")
    actors.forget(lambda tag: tag == ("call", 1))
    found = {reply.tag: reply.value for reply in replies(actors, 2)}
    assert found.keys() == {("replica", 1), ("call", 2)}
    assert found["call", 2] == 2


@pytest.mark.usefixtures("ray_workers")
def test_a_start_takes_the_spare_actor_of_its_role(tmp_path: Path) -> None:
    """Once it is ready, and only where nothing is to be reserved."""
    actors = RayActors()
    actors.spare("replica", partial(note_process, tmp_path / "process"))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (tmp_path / "process").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    spare = int((tmp_path / "process").read_text())
    others = [("feeder", 0.0), ("replica", 0.01)]
    handles = [actors.start((role, 1), Echo, cpus=cpus) for role, cpus in others]
    assert spare not in [reply.value for reply in replies(actors, 2)]
    found = 0
    while found != spare:
        assert time.monotonic() < deadline
        handles.append(actors.start(("replica", 2), Echo, cpus=0.0))
        found = replies(actors, 1)[0].value
    actors.call(("call", 1), handles[-1], "count")
    assert [answer.value for answer in replies(actors, 1)] == [1]
    for handle in handles:
        actors.kill(handle)


def test_nothing_to_wait_for_is_no_wait(actors: Actors) -> None:
    """Without a call there is no reply, and no error."""
    assert list(actors.replies(0.0)) == []


# -- replicas --------------------------------------------------------------------------------------


class Stage(Protocol):
    """Replicas by number, and how one of them dies."""

    replicas: Replicas

    def ref(self, number: int) -> ReplicaRef: ...

    def kill(self, number: int) -> None: ...


class MemoryStage:
    def __init__(self) -> None:
        self.replicas = MemoryReplicas(score, hangs=lambda b: b"hang" in b.values.to_pylist())

    def ref(self, number: int) -> ReplicaRef:
        return ReplicaRef(number, None)

    def kill(self, number: int) -> None:
        self.replicas.die(number)


class RayStage:
    def __init__(self) -> None:
        self.replicas = RayReplicas()
        self.actors = RayActors()
        self.handles: dict[int, Any] = {}

    def ref(self, number: int) -> ReplicaRef:
        if number not in self.handles:
            self.handles[number] = self.actors.start(("replica", number), Echo, cpus=0.0)
        return ReplicaRef(number, self.handles[number])

    def kill(self, number: int) -> None:
        self.actors.kill(self.handles[number])


@pytest.fixture(params=["memory", "ray"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Give replicas of the double, then Ray actors."""
    if request.param == "memory":
        yield MemoryStage()
        return
    request.getfixturevalue("ray_workers")
    made = RayStage()
    yield made
    for number in made.handles:
        made.kill(number)


def collected(replicas: Replicas, enough: Callable[[list[Answer]], bool]) -> list[Answer]:
    found: list[Answer] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not enough(found):
        assert time.monotonic() < deadline, f"only {found}"
        found += replicas.collect(0.1)
    return found


def test_each_batch_is_answered_by_its_replica(stage: Stage) -> None:
    """Whatever the order of the answers: batch, replica and the score of that batch."""
    for number in range(4):
        stage.replicas.send(stage.ref(number % 2), batch(number))
    found = collected(stage.replicas, lambda answers: len(answers) == 4)
    assert sorted((a.batch_id, a.replica) for a in found) == [(n, n % 2) for n in range(4)]
    for answer in found:
        assert answer.scored is not None
        expected = score(batch(answer.batch_id))
        assert answer.scored.rows.equals(expected.rows)
        assert answer.scored.rows.schema.equals(expected.rows.schema, check_metadata=True)
        assert answer.scored.predictions.equals(expected.predictions)
        assert answer.scored.accepted.tolist() == expected.accepted.tolist()


def test_collecting_does_not_wait_for_the_slowest(stage: Stage) -> None:
    """One hung replica holds no other's answer back."""
    stage.replicas.send(stage.ref(0), batch(1, b"hang"))
    stage.replicas.send(stage.ref(1), batch(2))
    found = collected(stage.replicas, bool)
    assert [answer.batch_id for answer in found] == [2]


def test_batches_of_a_dead_replica_are_lost_with_a_reason(stage: Stage) -> None:
    """The one it worked on, the one behind it, and one that is sent when it is dead."""
    ref = stage.ref(0)
    stage.replicas.send(ref, batch(1, b"hang"))
    stage.replicas.send(ref, batch(2))
    stage.kill(0)
    stage.replicas.send(ref, batch(3))
    found = collected(stage.replicas, lambda answers: len(answers) == 3)
    assert sorted(answer.batch_id for answer in found) == [1, 2, 3]
    assert all(answer.scored is None and "died" in answer.reason for answer in found)


def test_what_a_forgotten_replica_owes_never_comes(stage: Stage) -> None:
    """Its batches are given to others; an answer of its own would count them twice."""
    stage.replicas.send(stage.ref(0), batch(1))
    stage.replicas.send(stage.ref(0), batch(2, b"hang"))
    stage.replicas.forget(0)
    stage.replicas.send(stage.ref(1), batch(1))
    stage.kill(0)
    found = collected(stage.replicas, bool)
    found += stage.replicas.collect(0.3)
    assert [(answer.batch_id, answer.replica) for answer in found] == [(1, 1)]


def test_collecting_nothing_gives_nothing(stage: Stage) -> None:
    """No batch is out, none comes."""
    assert list(stage.replicas.collect(0.0)) == []


# -- local placement -------------------------------------------------------------------------------


def test_local_scoring_answers_beside_remote_isolation() -> None:
    """What has no handle is scored here; what goes to isolation is handed on."""
    from pipeline.build import SCORES_HERE, _LocalReplicas

    remote = MemoryReplicas(score)
    local = _LocalReplicas(score, remote)
    local.send(SCORES_HERE, batch(1))
    local.send(ReplicaRef(7, "handle"), batch(2))
    found = collected(local, lambda answers: len(answers) == 2)
    assert {(answer.batch_id, answer.replica) for answer in found} == {(1, 0), (2, 7)}
    local.send(ReplicaRef(7, "handle"), batch(3))
    local.forget(7)
    assert list(local.collect(0.0)) == []
