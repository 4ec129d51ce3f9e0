"""Who holds which batch: send, collect, send again, and split what kills twice.

A batch whose replica died is sent again whole; the second time it is suspected, and its halves go
one at a time to an isolation replica that no other feeder shares, so that what dies there died of
this batch. A single record that kills there twice is a dead letter.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.batch import Batch, Reject, Scored
from pipeline.control import ReplicaRef, Timing
from pipeline.ports import Answer, Replicas

# Two, so that a replica has its next batch at hand while an answer travels back.
IN_FLIGHT_PER_REPLICA = 2
MIN_DEADLINE_SECONDS = 2.0
DEADLINE_FACTOR = 20.0
# Until a batch has been timed; a first batch may be slow without being hung.
UNMEASURED_DEADLINE_SECONDS = 30.0


@dataclass(slots=True)
class _Held:
    batch: Batch
    replica: int
    gpu: bool
    sent: float
    deadline: float
    isolated: bool


@dataclass(frozen=True, slots=True)
class Split:
    """A batch and the parts that take its place."""

    batch: Batch
    parts: tuple[Batch, ...]


class Dispatch:
    """One feeder's batches in flight; owned by its loop.

    Holds at most what the ledger has open, which the feeder bounds.
    """

    def __init__(
        self,
        replicas: Replicas,
        empty_rows: pa.RecordBatch,
        new_id: Callable[[], int],
        seconds_per_row: float = 0.0,
    ) -> None:
        self._replicas = replicas
        self._empty_rows = empty_rows
        self._new_id = new_id
        self._fleet: dict[int, ReplicaRef] = {}
        self._isolation: ReplicaRef | None = None
        self._queue: deque[Batch] = deque()
        self._suspects: deque[Batch] = deque()
        self._losses: dict[int, int] = {}
        self._held: dict[int, _Held] = {}
        # What is expected until a batch has been timed here.
        self._inherited = seconds_per_row
        # Seconds of the slowest row seen lately, of replicas with a GPU (true) and of others.
        self._slowest: dict[bool, float] = {}
        # Seconds a row that each replica was last seen to need: a GPU's are few of a CPU's.
        self._paces: dict[int, float] = {}
        self._gone: set[int] = set()
        self.lost: list[tuple[int, str]] = []
        self.timings: list[Timing] = []

    def orders(self, fleet: Sequence[ReplicaRef], isolation: ReplicaRef | None) -> None:
        """The replicas to use from now on. One that was lost is never used again."""
        self._fleet = {ref.id: ref for ref in fleet if ref.id not in self._gone}
        self._isolation = isolation if isolation and isolation.id not in self._gone else None

    def submit(self, batch: Batch, suspected: bool = False) -> None:
        """Queue a batch; a suspected one waits for the isolation replica."""
        (self._suspects if suspected else self._queue).append(batch)

    @property
    def room(self) -> bool:
        """Whether a further batch would reach a replica at once."""
        return not self._queue and self._soonest(1) is not None

    @property
    def scores_here(self) -> bool:
        """Whether one of the replicas is in this process, and keeps the loop while it scores."""
        return any(ref.here for ref in self._fleet.values())

    @property
    def needs_isolation(self) -> bool:
        """Whether suspected batches wait for, or are with, the isolation replica."""
        return bool(self._suspects) or any(held.isolated for held in self._held.values())

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or out."""
        return not (self._queue or self._suspects or self._held)

    def in_flight(self) -> dict[int, int]:
        """Batches out, by replica."""
        counts: dict[int, int] = {}
        for held in self._held.values():
            counts[held.replica] = counts.get(held.replica, 0) + 1
        return counts

    def _soonest(self, rows: int) -> ReplicaRef | None:
        """The replica that would be through with `rows` more first, of those that have room.

        One that has not been timed counts as fast as the fastest and goes before it, to be timed.
        """
        counts = self.in_flight()
        waiting: dict[int, int] = {}
        for held in self._held.values():
            waiting[held.replica] = waiting.get(held.replica, 0) + held.batch.rows
        fastest = min(self._paces.values(), default=1.0)
        open_ones = [
            (
                (waiting.get(ref.id, 0) + rows) * self._paces.get(ref.id, fastest),
                ref.id in self._paces,
                counts.get(ref.id, 0),
                # One in this process keeps the loop while it scores: others get theirs first.
                ref.here,
                ref.id,
            )
            for ref in self._fleet.values()
            if counts.get(ref.id, 0) < IN_FLIGHT_PER_REPLICA
        ]
        return self._fleet[min(open_ones)[-1]] if open_ones else None

    def send(self, now: float) -> None:
        """Hand out what can go: the queue by who is done first, one suspect to isolation."""
        while self._queue and (ref := self._soonest(self._queue[0].rows)) is not None:
            self._hand(ref, self._queue.popleft(), now, isolated=False)
        isolation = self._isolation
        if (
            self._suspects
            and isolation is not None
            and all(held.replica != isolation.id for held in self._held.values())
        ):
            self._hand(isolation, self._suspects.popleft(), now, isolated=True)

    def _hand(self, ref: ReplicaRef, batch: Batch, now: float, *, isolated: bool) -> None:
        ahead = sum(held.batch.rows for held in self._held.values() if held.replica == ref.id)
        # What stands before it at the replica, also for other feeders, is its time too.
        expected = DEADLINE_FACTOR * self._pace(ref, isolated) * (batch.rows + ahead)
        allowed = max(MIN_DEADLINE_SECONDS, expected) if expected else UNMEASURED_DEADLINE_SECONDS
        self._held[batch.id] = _Held(batch, ref.id, ref.gpu, now, now + allowed, isolated)
        self._replicas.send(ref, batch.without_headers())

    def _pace(self, ref: ReplicaRef, isolated: bool) -> float:
        """Seconds a row that a deadline is made of, 0 where that is not known."""
        if isolated:
            # Each is new, and what is searched for may hang: the time of others must do.
            return max(self._slowest.values(), default=self._inherited)
        mixed = len({one.gpu for one in self._fleet.values()}) > 1
        # What was inherited may be a GPU's time.
        return self._slowest.get(ref.gpu, 0.0 if mixed else self._inherited)

    def collect(
        self, timeout: float, clock: Callable[[], float]
    ) -> tuple[list[Scored], list[Split]]:
        """Answers that have come, and batches that were split instead."""
        scored: list[Scored] = []
        splits: list[Split] = []
        answers = self._replicas.collect(timeout) if self._held else ()
        now = clock()
        for answer in answers:
            held = self._held.pop(answer.batch_id, None)
            if held is None:
                continue
            if answer.scored is None:
                self._held[answer.batch_id] = held
                self._lose(held.replica, answer.reason, scored, splits)
            else:
                self._note(held, answer, now)
                scored.append(answer.scored)
        for held in list(self._held.values()):
            if held.deadline <= now and held.batch.id in self._held:
                reason = f"no answer within {now - held.sent:.1f} s"
                self._lose(held.replica, reason, scored, splits)
        return scored, splits

    def _note(self, held: _Held, answer: Answer, now: float) -> None:
        assert answer.scored is not None
        self._losses.pop(held.batch.id, None)
        rows = max(held.batch.rows, 1)
        pace = answer.scored.seconds / rows
        # A deadline must not follow one lucky batch.
        before = self._slowest.get(held.gpu, self._inherited)
        self._slowest[held.gpu] = max(before * 0.9, pace)
        self._paces[held.replica] = pace
        self.timings.append(
            Timing(held.replica, held.batch.rows, answer.scored.seconds, now - held.sent)
        )

    def _lose(self, replica: int, reason: str, scored: list[Scored], splits: list[Split]) -> None:
        """Take back what a dead or hung replica holds; nothing of it comes from there any more."""
        self._fleet.pop(replica, None)
        if self._isolation is not None and self._isolation.id == replica:
            self._isolation = None
        self._gone.add(replica)
        self._paces.pop(replica, None)
        self._replicas.forget(replica)
        self.lost.append((replica, reason))
        returned = [held for held in self._held.values() if held.replica == replica]
        for held in sorted(returned, key=lambda h: h.batch.id, reverse=True):
            batch = held.batch
            del self._held[batch.id]
            losses = self._losses.pop(batch.id, 0) + 1
            if batch.rows > 1 and (held.isolated or losses > 1):
                splits.append(self._halve(batch))
            elif held.isolated and losses > 1:
                scored.append(self._condemned(batch, reason))
            else:
                # A suspect's losses count from its first time alone.
                self._losses[batch.id] = losses if held.isolated or losses == 1 else 0
                (self._suspects if held.isolated or losses > 1 else self._queue).appendleft(batch)

    def _halve(self, batch: Batch) -> Split:
        half = batch.rows // 2
        parts = (
            batch.slice(0, half, self._new_id()),
            batch.slice(half, batch.rows, self._new_id()),
        )
        self._suspects.extendleft(reversed(parts))
        return Split(batch, parts)

    def _condemned(self, batch: Batch, reason: str) -> Scored:
        return Scored(
            batch_id=batch.id,
            rows=self._empty_rows,
            predictions=pa.array([], pa.binary()),
            accepted=np.empty(0, np.int64),
            rejects=(
                Reject(
                    0,
                    "replica",
                    "ReplicaDied",
                    f"scored alone, twice, its replica did not live: {reason}",
                ),
            ),
            seconds=0.0,
        )
