"""The life of replicas: how many there should be, which are ready, who replaces the dead.

STARTING to READY to RETIRING to gone; a dead one is gone at once, from wherever it was.
"""

import enum
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pipeline.control import ReplicaRef
from pipeline.errors import ClusterUnfit, HeadraceError
from pipeline.ports import Actors, Clock
from pipeline.starts import FailedStarts

log = logging.getLogger("headrace.fleet")

STARTING_WARNING_SECONDS = 30.0
# A start that hangs looks like one that waits for a node or loads a large model. So it is ordered
# anew after the first, which loses little, and each time it is given twice as long.
STARTING_SECONDS = 60.0
LONGEST_STARTING_SECONDS = 960.0
# Turns that were queued before it retired may still send to it.
RETIRING_SECONDS = 2.0


class State(enum.Enum):
    """Where a replica is in its life; GONE ones are forgotten."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"


@dataclass(frozen=True, slots=True)
class Kind:
    """What makes a replica's object in its actor, and the CPUs and GPUs that it asks of Ray."""

    build: Callable[..., Any]
    cpus: float
    gpus: float = 0.0


@dataclass(slots=True)
class Replica:
    """One replica, in its state since `since`.

    `slot` names the feeder whose isolation replica it is, None for the fleet's.
    """

    id: int
    handle: Any
    kind: Kind
    slot: int | None
    since: float
    state: State = State.STARTING
    pid: int = 0
    warned: bool = False


@dataclass(frozen=True, slots=True)
class Readiness:
    """How replicas have come up: those ready, the ages of those that start, in seconds.

    `cold_starts` are the seconds from order to ready of those that became ready since it was asked.
    """

    ready: int
    starting: tuple[float, ...]
    cold_starts: tuple[float, ...]


class Fleet:
    """Owns every replica of a run; used by the driver's thread.

    `args` are what each kind builds its object of. There are as many of `kind` as are wanted, and
    beside them a fixed number of other kinds. Isolation replicas are made by `build_isolated`, and
    ask for nothing. `standing` are replicas that live inside the feeders and so are ready whenever
    they are wanted.
    """

    def __init__(
        self,
        actors: Actors,
        clock: Clock,
        args: tuple[Any, ...],
        kind: Kind,
        *,
        build_isolated: Callable[..., Any],
        beside: Mapping[Kind, int] = MappingProxyType({}),
        standing: tuple[ReplicaRef, ...] = (),
    ) -> None:
        self._standing = standing
        self._stands = True
        self._actors = actors
        self._clock = clock
        self._args = args
        self._kind = kind
        self._beside = beside
        # An isolation replica must start even on a full cluster.
        self._isolated = Kind(build_isolated, 0.0)
        self._ids = itertools.count(1)
        self._replicas: dict[int, Replica] = {}
        self._failed_starts = FailedStarts()
        self._patience = STARTING_SECONDS
        self._cold_starts: list[float] = []
        self.replaced = 0

    def stand(self, *, wanted: bool) -> None:
        """Let the feeders' own replicas serve, or no longer, once another one is ready."""
        self._stands = wanted or (self._stands and not self._started())

    def step(self, wanted: int, isolated: set[int], in_flight: Mapping[int, int]) -> None:
        """Move towards `wanted` replicas of the fleet's kind, and one for each slot in `isolated`.

        `in_flight` counts batches by replica over all feeders: one that retires ends at none.
        """
        now = self._clock.monotonic()
        self._give_up(now)
        for kind, count in ((self._kind, wanted), *self._beside.items()):
            self._keep(kind, count, now)
        held = {r.slot for r in self._replicas.values() if r.slot is not None and _serves(r)}
        for slot in isolated - held:
            self._start(self._isolated, slot, now)
        for replica in list(self._replicas.values()):
            if _serves(replica) and replica.slot is not None and replica.slot not in isolated:
                replica.state, replica.since = State.RETIRING, now
            if replica.state is State.RETIRING:
                quiet = now - replica.since > RETIRING_SECONDS
                if quiet and not in_flight.get(replica.id):
                    self._end(replica)
            elif replica.state is State.STARTING:
                self._warn(replica, now)

    def _keep(self, kind: Kind, count: int, now: float) -> None:
        """Start or retire, so that `count` of this kind serve all feeders."""
        shared = [r for r in self._shared(kind) if _serves(r)]
        for _ in range(count - len(shared)):
            self._start(kind, None, now)
        surplus = sorted(shared, key=lambda r: (r.state is State.READY, r.id))
        for replica in surplus[: max(0, len(shared) - count)]:
            replica.state, replica.since = State.RETIRING, now

    def _shared(self, kind: Kind) -> list[Replica]:
        return [r for r in self._replicas.values() if r.slot is None and r.kind == kind]

    def _start(self, kind: Kind, slot: int | None, now: float) -> None:
        number = next(self._ids)
        tag = ("replica", number)
        handle = self._actors.start(tag, kind.build, *self._args, cpus=kind.cpus, gpus=kind.gpus)
        self._replicas[number] = Replica(number, handle, kind, slot, now)

    def _give_up(self, now: float) -> None:
        """End starts that take too long; others are ordered in their place."""
        starting = [r for r in self._replicas.values() if r.state is State.STARTING]
        late = [replica for replica in starting if now - replica.since > self._patience]
        for replica in late:
            log.warning(
                "replica %d is ordered anew: it has not started within %.0f s",
                replica.id,
                self._patience,
            )
            self._end(replica)
        if late:
            self._patience = min(2 * self._patience, LONGEST_STARTING_SECONDS)

    def _warn(self, replica: Replica, now: float) -> None:
        if not replica.warned and now - replica.since > STARTING_WARNING_SECONDS:
            replica.warned = True
            log.warning(
                "replica %d has not started for %.0f s. Where the cluster has no %g CPU and %g GPU "
                "free, add nodes, or set replicas.cpus or replicas.gpu lower",
                replica.id,
                now - replica.since,
                replica.kind.cpus,
                replica.kind.gpus,
            )

    def _end(self, replica: Replica) -> None:
        del self._replicas[replica.id]
        self._actors.kill(replica.handle)

    def started(self, number: int, pid: int, error: Exception | None) -> None:
        """Take in how a start went: with this process id, or why not.

        Raises the error once too many have failed in a row.
        """
        replica = self._replicas.get(number)
        if replica is None:
            return
        if error is None:
            self._failed_starts.forgive()
            self._patience = STARTING_SECONDS
            replica.pid = pid
            if replica.state is State.STARTING:
                now = self._clock.monotonic()
                if replica.slot is None and replica.kind == self._kind:
                    self._cold_starts.append(now - replica.since)
                replica.state, replica.since = State.READY, now
            return
        self._end(replica)
        log.warning("replica %d did not start: %s", number, error)
        if self._failed_starts.count(error):
            if isinstance(error, HeadraceError):
                raise error
            raise ClusterUnfit(
                f"replicas do not start: {error}. The logs of the Ray node say more"
            ) from error

    def lost(self, number: int, reason: str) -> None:
        """Replace a replica that died or overran its deadline."""
        replica = self._replicas.get(number)
        if replica is not None:
            log.warning("replica %d is replaced: %s", number, reason)
            self.replaced += 1
            self._end(replica)

    def ready(self) -> tuple[ReplicaRef, ...]:
        """The replicas that feeders may send to."""
        return (self._standing if self._stands else ()) + self._started()

    def _started(self) -> tuple[ReplicaRef, ...]:
        return tuple(
            ReplicaRef(r.id, r.handle, r.kind.gpus > 0)
            for r in self._replicas.values()
            if r.slot is None and r.state is State.READY
        )

    def isolation(self, slot: int) -> ReplicaRef | None:
        """The isolation replica of the slot, once it is ready."""
        for replica in self._replicas.values():
            if replica.slot == slot and replica.state is State.READY:
                return ReplicaRef(replica.id, replica.handle)
        return None

    def readiness(self) -> Readiness:
        """How replicas of the fleet's kind have come up since this was last asked."""
        now = self._clock.monotonic()
        shared = self._shared(self._kind)
        cold_starts, self._cold_starts = tuple(self._cold_starts), []
        return Readiness(
            sum(r.state is State.READY for r in shared),
            tuple(now - r.since for r in shared if r.state is State.STARTING),
            cold_starts,
        )

    def states(self) -> list[Replica]:
        """Every replica, for the status."""
        return list(self._replicas.values())

    def close(self) -> None:
        """End them all."""
        for replica in list(self._replicas.values()):
            self._end(replica)


def _serves(replica: Replica) -> bool:
    return replica.state is not State.RETIRING
