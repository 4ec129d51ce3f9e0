"""Replicas and actors without processes: they answer when asked, die and hang when told to."""

import pickle
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.batch import Batch, Scored
from pipeline.control import ReplicaRef
from pipeline.errors import HeadraceError
from pipeline.ports import ActorDied, ActorLost, Answer, Reply, Tag
from pipeline.testing.forms import no_wait

# Process ids of no process: above what Linux gives by default.
FIRST_PID = 1 << 23


def never(_: Batch) -> bool:
    """No batch is special."""
    return False


class MemoryReplicas:
    """Replicas that share one pure function.

    A batch for which `kills` is true ends its replica, and with it whatever else the replica has;
    one for which `hangs` is true is never answered, nor is what stands behind it. `wait` is given
    the timeout of a `collect` that finds nothing.
    """

    def __init__(
        self,
        score: Callable[[Batch], Scored],
        kills: Callable[[Batch], bool] = never,
        hangs: Callable[[Batch], bool] = never,
        wait: Callable[[float], None] = no_wait,
    ) -> None:
        self._score = score
        self._kills = kills
        self._hangs = hangs
        self._wait = wait
        self._queues: dict[int, deque[Batch]] = {}
        self._dead: set[int] = set()
        self._owed: list[Answer] = []
        self.sent: list[tuple[int, Batch]] = []

    def send(self, replica: ReplicaRef, batch: Batch) -> None:
        """Queue the batch; a dead replica's answer is its loss."""
        self.sent.append((replica.id, batch))
        if replica.id in self._dead:
            self._owed.append(Answer(batch.id, replica.id, None, "died: it was dead already"))
        else:
            self._queues.setdefault(replica.id, deque()).append(batch)

    def die(self, replica: int, reason: str = "died: killed") -> None:
        """End one replica; what it holds is lost."""
        self._dead.add(replica)
        for batch in self._queues.pop(replica, ()):
            self._owed.append(Answer(batch.id, replica, None, reason))

    def collect(self, timeout: float) -> Sequence[Answer]:
        """Score everything that can be, in the order of each replica's queue."""
        for replica in list(self._queues):
            self._work(replica)
        owed, self._owed = self._owed, []
        if not owed:
            self._wait(timeout)
        return owed

    def _work(self, replica: int) -> None:
        queue = self._queues[replica]
        while queue and not self._hangs(queue[0]):
            if self._kills(queue[0]):
                self.die(replica)
                return
            batch = queue.popleft()
            self._owed.append(Answer(batch.id, replica, self._score(batch)))

    def forget(self, replica: int) -> None:
        """Drop what it owes."""
        self._queues.pop(replica, None)
        self._owed = [answer for answer in self._owed if answer.replica != replica]


@dataclass(frozen=True, slots=True)
class Handle:
    """An actor; as a value, so that it may travel in orders."""

    number: int


@dataclass(slots=True)
class _Actor:
    made: Any = None
    queue: deque[tuple[Tag | None, Callable[[], Any]]] = field(default_factory=deque)
    dead: str | None = None
    hung: bool = False


class MemoryActors:
    """Actors whose calls run when replies are asked for; arguments and values travel by pickle.

    What builds an actor is not copied, so that it can reach the world in memory. `wait` is given
    the timeout of a `replies` that finds nothing.
    """

    def __init__(self, wait: Callable[[float], None] = no_wait) -> None:
        self._wait = wait
        self._actors: dict[Handle, _Actor] = {}
        self._replies: list[Reply] = []
        # Tag and CPUs of each start, its GPUs, and what builds it, for tests.
        self.starts: list[tuple[Tag, float]] = []
        self.gpus: list[float] = []
        self.builds: list[Callable[..., Any]] = []
        self.spares: set[str] = set()

    def spare(self, role: str, warm: Callable[[], object]) -> None:
        """Warm it up; an actor in memory needs no process, so none is taken."""
        if role not in self.spares:
            self.spares.add(role)
            warm()

    def start(
        self, tag: Tag, build: Callable[..., Any], *args: Any, cpus: float, gpus: float = 0.0
    ) -> Handle:
        """Start an actor; it builds its object when its turn comes, and replies its process id."""
        handle = Handle(len(self.starts))
        self.starts.append((tag, cpus))
        self.gpus.append(gpus)
        self.builds.append(build)
        actor = self._actors[handle] = _Actor()

        def construct() -> int:
            actor.made = build(*args)
            return FIRST_PID + handle.number

        actor.queue.append((tag, construct))
        return handle

    def call(self, tag: Tag, handle: Handle, method: str, *args: Any) -> None:
        """Queue a call; a dead actor's reply is its loss."""
        actor = self._actors[handle]
        copied = pickle.loads(pickle.dumps(args))
        if actor.dead is not None:
            self._replies.append(Reply(tag, None, ActorDied(actor.dead)))
        else:
            actor.queue.append((tag, lambda: getattr(actor.made, method)(*copied)))

    def kill(self, handle: Handle) -> None:
        """End it, whatever it is doing; killing a dead one does nothing."""
        self.die(handle, "died: killed by its owner")

    def die(self, handle: Handle, reason: str = "died: its worker exited") -> None:
        """End it; every call that waits is answered by its loss."""
        actor = self._actors[handle]
        if actor.dead is None:
            actor.dead = reason
            tags = [tag for tag, _ in actor.queue if tag is not None]
            self._replies.extend(Reply(tag, None, ActorDied(reason)) for tag in tags)
            actor.queue.clear()

    def hang(self, handle: Handle) -> None:
        """Let it answer no more."""
        self._actors[handle].hung = True

    def alive(self) -> list[Handle]:
        """The actors that live, in the order of their start."""
        return [handle for handle, actor in self._actors.items() if actor.dead is None]

    def replies(self, timeout: float) -> Sequence[Reply]:
        """Run one call of each actor that is not hung, and give what there is."""
        for actor in list(self._actors.values()):
            if actor.queue and not actor.hung:
                tag, action = actor.queue.popleft()
                reply = _answer(tag or (), action)
                if tag is not None:
                    self._replies.append(reply)
        replies, self._replies = self._replies, []
        if not replies:
            self._wait(timeout)
        return replies

    def forget(self, matching: Callable[[Tag], bool]) -> None:
        """Drop the replies to these tags, also those to come; the calls are made all the same."""
        self._replies = [reply for reply in self._replies if not matching(reply.tag)]
        for actor in self._actors.values():
            actor.queue = deque(
                (None if tag is None or matching(tag) else tag, action)
                for tag, action in actor.queue
            )


def _answer(tag: Tag, action: Callable[[], Any]) -> Reply:
    try:
        value = action()
    except HeadraceError as problem:
        return Reply(tag, None, pickle.loads(pickle.dumps(problem)))
    except Exception as problem:  # noqa: BLE001 - Ray gives back whatever a method raises
        return Reply(tag, None, ActorLost(f"{type(problem).__name__}: {problem}"))
    return Reply(tag, pickle.loads(pickle.dumps(value)), None)
