"""Ray: actors started, called and killed; nothing else in Headrace knows it.

No `max_restarts` and no `max_task_retries`: the fleet and the driver replace what dies, because
only they know what it held.
"""

import functools
import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from pipeline.batch import Batch
from pipeline.control import ReplicaRef
from pipeline.errors import ClusterUnfit, HeadraceError
from pipeline.ports import ActorDied, ActorLost, Answer, Reply, Tag

NAMESPACE = "headrace"
# Batches in flight are a few megabytes each; what Ray takes by default is a third of the memory.
LOCAL_STORE_BYTES = 512 << 20
CONNECT_SECONDS = 5.0
LAST_PORT = 65_535
RESERVE_SECONDS = 60.0
GARBAGE_THRESHOLDS = (100_000, 50, 100)
# What every node has installed, and so is found by its name.
INSTALLED = {"pipeline"}


class _Host:
    """What every actor is: it builds its object when told to, then calls its methods.

    Building is a call of its own because the error of a constructor would reach nobody.
    """

    def __init__(self) -> None:
        self._object: Any = None

    def warm(self, up: Callable[[], object]) -> None:
        up()

    def start(self, build: Callable[..., Any], *args: Any) -> int:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        self._object = build(*args)
        # Batches are thousands of small objects without cycles: collecting at Python's pace, over
        # all that Ray and the model brought along, took a third of the time of scoring.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE_THRESHOLDS)
        return os.getpid()

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self._object, method)(*args)


@functools.cache
def _actor_class(role: str) -> Any:
    """A class named after the role, which is what Ray's tools and `ps` show."""
    return ray.remote(max_restarts=0, max_task_retries=0)(type(role.capitalize(), (_Host,), {}))


@dataclass(frozen=True, slots=True)
class _Spare:
    """An actor that waits for its object; `warmed` is the reply that it is ready."""

    handle: Any
    warmed: Any


class RayActors:
    """The actors of this process; see `pipeline.ports.Actors`."""

    def __init__(self) -> None:
        self._tags: dict[Any, Tag] = {}
        # One for a role.
        self._spares: dict[str, _Spare] = {}

    def start(
        self, tag: Tag, build: Callable[..., Any], *args: Any, cpus: float, gpus: float = 0.0
    ) -> Any:
        """Start an actor that builds its object; the reply to `tag` says how that went."""
        role = str(tag[0])
        spare = None if cpus or gpus else self._take_spare(role)
        handle = _placed(role, cpus, gpus) if spare is None else spare.handle
        self._tags[handle.start.remote(build, *args)] = tag
        return handle

    def spare(self, role: str, warm: Callable[[], object]) -> None:
        """Start one for the role unless there is one."""
        if role not in self._spares:
            handle = _placed(role, 0.0, 0.0)
            self._spares[role] = _Spare(handle, handle.warm.remote(warm))

    def _take_spare(self, role: str) -> _Spare | None:
        """The role's, if it is ready; one that died since answers as any dead actor."""
        spare = self._spares.get(role)
        if spare is None or not ray.wait([spare.warmed], timeout=0)[0]:
            return None
        return self._spares.pop(role)

    def call(self, tag: Tag, handle: Any, method: str, *args: Any) -> None:
        """Queue a call behind those that the actor has."""
        self._tags[handle.call.remote(method, *args)] = tag

    def kill(self, handle: Any) -> None:
        """End the actor at once, whatever it is doing."""
        ray.kill(handle, no_restart=True)

    def replies(self, timeout: float) -> Sequence[Reply]:
        """What has come, waiting at most `timeout` seconds for a first one."""
        if not self._tags:
            return ()
        waiting = list(self._tags)
        ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout)
        if ready and len(waiting) > 1:
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return [self._reply(ref) for ref in ready]

    def _reply(self, ref: Any) -> Reply:
        tag = self._tags.pop(ref)
        try:
            return Reply(tag, ray.get(ref), None)
        except RayTaskError as problem:
            cause = problem.cause
            if isinstance(cause, HeadraceError):
                return Reply(tag, None, cause)
            return Reply(tag, None, ActorLost(f"{type(cause).__name__}: {cause}"))
        except RayError as problem:
            died = isinstance(problem, RayActorError)
            return Reply(tag, None, (ActorDied if died else ActorLost)(_reason(problem)))

    def forget(self, matching: Callable[[Tag], bool]) -> None:
        """Drop the replies to these tags."""
        for ref in [ref for ref, tag in self._tags.items() if matching(tag)]:
            del self._tags[ref]


def _reason(problem: RayError) -> str:
    """What Ray's long account of a death says before it begins to guess."""
    text = " ".join(str(problem).split())
    kind = "died" if isinstance(problem, RayActorError) else type(problem).__name__
    _, marker, detail = text.partition("Worker exit detail: ")
    account = detail if marker else text
    return f"{kind}: {account.partition(' Some common causes')[0]}"[:300]


def _placed(role: str, cpus: float, gpus: float) -> Any:
    options = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
    return _actor_class(role).options(**options).remote()


class RayReplicas:
    """Replicas that are actors; see `pipeline.ports.Replicas`."""

    def __init__(self) -> None:
        self._actors = RayActors()

    def send(self, replica: ReplicaRef, batch: Batch) -> None:
        """Queue the batch at the replica; its columns travel through Ray's object store."""
        self._actors.call((replica.id, batch.id), replica.handle, "score", batch)

    def collect(self, timeout: float) -> Sequence[Answer]:
        """Answers that have come."""
        answers = []
        for reply in self._actors.replies(timeout):
            replica, batch_id = reply.tag
            reason = "" if reply.error is None else str(reply.error)
            answers.append(Answer(batch_id, replica, reply.value, reason))
        return answers

    def forget(self, replica: int) -> None:
        """Drop what it owes."""
        self._actors.forget(lambda tag: tag[0] == replica)


class RayCluster:
    """The connection to a cluster, or a local one of our own; one for each process."""

    def __init__(self, address: str | None, local_cpus: int) -> None:
        joining = address or os.environ.get("RAY_ADDRESS")
        _refuse_silent(joining)
        # Its notes on tokens and ports are not ours to pass on; errors are raised.
        options: dict[str, Any] = {"namespace": NAMESPACE, "logging_level": logging.ERROR}
        if joining:
            options["address"] = joining
        else:
            options.update(
                num_cpus=local_cpus,
                include_dashboard=False,
                object_store_memory=LOCAL_STORE_BYTES,
                # By default feeders would stand behind whatever else this machine does.
                _system_config={"worker_niceness": 0},
            )
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError) as problem:
            raise ClusterUnfit(
                f"--address = {joining!r}: no Ray cluster answers there ({problem}). Start one "
                "with `ray start --head`, or leave the address out for a local one"
            ) from problem
        self.local = not joining
        self._reserved = 0
        self._reserved_at = float("-inf")

    @property
    def cores(self) -> int:
        """Cores to work with; a local Ray is told of more, as feeders share them."""
        if self.local:
            return os.cpu_count() or 1
        return int(ray.cluster_resources().get("CPU", 1))

    @property
    def nodes(self) -> int:
        """Nodes that are alive."""
        return sum(1 for node in ray.nodes() if node["Alive"])

    def share(self, value: object) -> Any:
        """Put the value where every actor can read it, whichever node it is on."""
        return ray.put(value)

    def carry(self, function: Callable[..., Any]) -> None:
        """Let the module of this function travel by value: actors need no file of this machine."""
        module = sys.modules[function.__module__]
        if module.__name__.partition(".")[0] not in INSTALLED:
            ray.cloudpickle.register_pickle_by_value(module)

    def reserve(self, actors: int, cpus: float, gpus: float = 0.0) -> None:
        """Tell Ray's autoscaler to have room for so many actors; the newest number stands.

        Actors that wait are demand too, but only once they were started, and nothing keeps a node
        for those that will start again. Ray forgets the request at no time by itself: `close`
        takes it back, and it is made again now and then in case the head was replaced.
        """
        now = time.monotonic()
        fresh = now - self._reserved_at < RESERVE_SECONDS
        if self.local or (actors == self._reserved and fresh):
            return
        wanted = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
        _request([wanted] * actors)
        self._reserved, self._reserved_at = actors, now

    def close(self) -> None:
        """Leave the cluster, and leave it no request; a local one ends with it."""
        if self._reserved:
            _request([])
        ray.shutdown()


def _request(bundles: list[dict[str, float]]) -> None:
    # A tenth of a second to import, which actors never need.
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=bundles)


def _refuse_silent(address: str | None) -> None:
    """Raise ClusterUnfit where nothing listens at host:port: Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):
        return
    try:
        _connect(host.strip("[]"), int(port))
    except OSError as problem:
        raise ClusterUnfit(
            f"--address = {address!r}: nothing answers there ({problem}). Name the head of the "
            "run's cluster as host:6379, or leave it out for this machine's"
        ) from problem


def _connect(host: str, port: int) -> None:
    if port > LAST_PORT:
        # The resolver would take it for another one, as 99999 for 34463.
        raise OSError(f"ports end at {LAST_PORT}")
    socket.create_connection((host, port), CONNECT_SECONDS).close()


class _Shown:
    """Where a run says how it stands, for `headrace status` on any node."""

    def __init__(self) -> None:
        self._text = b""

    def put(self, text: bytes) -> None:
        self._text = text

    def get(self) -> bytes:
        return self._text


_Board: Any = ray.remote(num_cpus=0)(_Shown)


class RayBoard:
    """The run's side of its status board."""

    def __init__(self, job: str) -> None:
        self._actor = _Board.options(name=board_name(job), get_if_exists=True).remote()

    def put(self, text: bytes) -> None:
        """Show `text`; the newest one stands."""
        self._actor.put.remote(text)


def board_name(job: str) -> str:
    """The name of the job's board in the namespace `headrace`."""
    return f"headrace-{job}"


def read_board(job: str, timeout: float = 5.0) -> bytes | None:
    """What the running job shows last, None where no run has a board on this cluster."""
    try:
        actor = ray.get_actor(board_name(job), namespace=NAMESPACE)
        return bytes(ray.get(actor.get.remote(), timeout=timeout))
    except (ValueError, GetTimeoutError, RayActorError):
        return None
