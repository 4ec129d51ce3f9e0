"""The feeders of a run: started, kept in turns, replaced when they die or hang.

- STARTING to RUNNING once it has claimed its slot;
- RUNNING to DRAINED when told to drain;
- STARTING and RUNNING to WAITING when it fails, and from there to STARTING after a pause;
- STARTING and RUNNING to FAILED where no successor can help.

A feeder that was fenced has a successor too, but only once it is clear that no other run ordered
it: a transaction that outlived the broker's time-out ends in the same error as a take-over, and
only a take-over moves the stored epoch on.
"""

import enum
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.batch import Partition
from pipeline.control import Assignment, Layout, Orders, Report
from pipeline.errors import AnotherRunTookOver, ClusterUnfit, Fenced, OutcomeUnknown, Retriable
from pipeline.ports import ActorLost, Actors, Clock, Reply

log = logging.getLogger("headrace.slots")

TURN_SECONDS = 0.25
# One runs, one waits, so that the feeder never idles between two turns.
TURNS_AHEAD = 2
START_SECONDS = 60.0
# What fails so often before its first report is not bad luck.
LOST_STARTS = 5
HANG_SECONDS = 10.0
HANG_FACTOR = 20.0
UNMEASURED_HANG_SECONDS = 40.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
# How long another run has, after its fence, to commit its claim.
TAKE_OVER_SECONDS = 5.0
# A feeder that lived this long failed anew, not again.
SETTLED_SECONDS = 30.0


class State(enum.Enum):
    """Where a slot is."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    DRAINED = "drained"
    FAILED = "failed"


@dataclass(slots=True)
class Slot:
    """One slot and its present feeder. `incarnation` tells late replies of a predecessor apart."""

    number: int
    partitions: tuple[Partition, ...]
    state: State = State.WAITING
    handle: Any = None
    pid: int = 0
    incarnation: int = 0
    turns: int = 0
    since: float = 0.0
    heard: float = 0.0
    due: float = 0.0
    pause: float = FIRST_PAUSE_SECONDS
    suspect: bool = False
    fenced: str = ""
    lost_starts: int = 0
    epoch: int = 0
    report: Report | None = None
    finished_in: int = 0
    finished_out: int = 0
    finished_dead: dict[str, int] = field(default_factory=dict)

    def totals(self) -> tuple[int, int, dict[str, int]]:
        """Records in, predictions and dead letters by reason, over all incarnations."""
        dead = dict(self.finished_dead)
        if self.report is None:
            return self.finished_in, self.finished_out, dead
        for reason, count in self.report.dead.items():
            dead[reason] = dead.get(reason, 0) + count
        return (
            self.finished_in + self.report.records_in,
            self.finished_out + self.report.records_out,
            dead,
        )


@dataclass(frozen=True, slots=True)
class Work:
    """What the feeders of a run have in common. `suspect_rows` is twice a commit's rows.

    `epoch` reads the epoch that is stored for a slot's partitions; it may raise Retriable.
    """

    layout: Layout
    topic_partitions: int
    build: Callable[..., Any]
    args: tuple[Any, ...]
    cpus: float
    scores_locally: bool
    max_batch_size: int
    suspect_rows: int
    epoch: Callable[[tuple[Partition, ...]], int]


class Slots:
    """Owns every feeder of a run; used by the driver's thread."""

    def __init__(
        self,
        actors: Actors,
        clock: Clock,
        work: Work,
        owned: Sequence[tuple[Partition, ...]],
    ) -> None:
        self._actors = actors
        self._clock = clock
        self._work = work
        self.slots = [Slot(number, partitions) for number, partitions in enumerate(owned)]
        self.seconds_per_row = 0.0
        self.successors = 0

    def step(self, orders: Callable[[int], Orders]) -> None:
        """Start what is due, keep turns queued, take down what hangs.

        Raises AnotherRunTookOver.
        """
        now = self._clock.monotonic()
        for slot in self.slots:
            if slot.state is State.WAITING and now >= slot.due:
                if self._may_start(slot, now):
                    self._start(slot, now)
            elif slot.state is State.RUNNING:
                while slot.turns < TURNS_AHEAD:
                    slot.turns += 1
                    tag = ("turn", slot.number, slot.incarnation)
                    order = orders(slot.number)
                    if slot.report is None:
                        # Its first report comes at once, so that its epoch is known.
                        order = replace(order, seconds=0.0)
                    self._actors.call(tag, slot.handle, "turn", order)
            if slot.state in {State.STARTING, State.RUNNING}:
                self._watch(slot, now)

    def _may_start(self, slot: Slot, now: float) -> bool:
        """Whether no other run holds the slot. Raises AnotherRunTookOver where one does."""
        if not slot.fenced:
            return True
        try:
            stored = self._work.epoch(slot.partitions)
        except Retriable as problem:
            log.warning("slot %d waits for the broker: %s", slot.number, problem)
            slot.due = now + slot.pause
            return False
        if stored > slot.epoch:
            raise AnotherRunTookOver(
                f"another run of this job took over slot {slot.number} ({slot.fenced}); "
                "this one ends and leaves it the stream"
            )
        slot.fenced = ""
        return True

    def _start(self, slot: Slot, now: float) -> None:
        work = self._work
        assignment = Assignment(
            slot=slot.number,
            layout=work.layout,
            partitions=slot.partitions,
            topic_partitions=work.topic_partitions,
            suspect_rows=work.suspect_rows if slot.suspect else 0,
            seconds_per_row=self.seconds_per_row,
        )
        slot.incarnation += 1
        slot.state, slot.turns, slot.since, slot.heard = State.STARTING, 0, now, now
        slot.handle = self._actors.start(
            ("feeder", slot.number, slot.incarnation),
            work.build,
            *work.args,
            assignment,
            cpus=work.cpus,
        )

    def _watch(self, slot: Slot, now: float) -> None:
        if slot.state is State.STARTING:
            allowed = START_SECONDS
        elif not self._work.scores_locally:
            allowed = HANG_SECONDS
        elif self.seconds_per_row == 0.0:
            allowed = UNMEASURED_HANG_SECONDS
        else:
            scoring = HANG_FACTOR * self.seconds_per_row * self._work.max_batch_size
            allowed = max(HANG_SECONDS, scoring)
        if now - slot.heard > allowed:
            self._succeed(slot, f"no answer for {now - slot.heard:.0f} s", now)

    def reply(self, reply: Reply) -> Report | None:
        """Take in a feeder's reply; its report, if it is one of a present feeder.

        Raises what no successor can mend.
        """
        kind, number, incarnation = reply.tag
        slot = self.slots[number]
        if incarnation != slot.incarnation or slot.state is State.WAITING:
            return None
        now = self._clock.monotonic()
        slot.heard = now
        if reply.error is not None:
            self._failed(slot, reply.error, now)
            return None
        if kind == "feeder":
            slot.state, slot.pid = State.RUNNING, reply.value
            return None
        slot.turns -= 1
        report: Report = reply.value
        slot.report, slot.epoch, slot.lost_starts = report, report.epoch, 0
        slot.suspect = slot.suspect and report.commits == 0
        for timing in report.timings:
            if timing.rows:
                fresh = timing.service_seconds / timing.rows
                self.seconds_per_row = max(0.9 * self.seconds_per_row, fresh)
        if report.drained and slot.state is State.RUNNING:
            slot.state = State.DRAINED
            self._actors.call(("closed", slot.number, -1), slot.handle, "close")
        return report

    def _failed(self, slot: Slot, error: Exception, now: float) -> None:
        if slot.state in {State.DRAINED, State.FAILED}:
            return
        if isinstance(error, Fenced):
            slot.fenced = str(error)
        elif not isinstance(error, OutcomeUnknown | Retriable | ActorLost):
            slot.state = State.FAILED
            raise error
        if isinstance(error, ActorLost):
            if slot.state is State.RUNNING:
                slot.suspect = self._work.scores_locally
            if slot.report is None:
                slot.lost_starts += 1
            if slot.lost_starts >= LOST_STARTS:
                slot.state = State.FAILED
                raise ClusterUnfit(
                    f"the feeder of slot {slot.number} does not start: {error}. "
                    "The logs of the Ray node say more"
                )
        self._succeed(slot, str(error), now)

    def _succeed(self, slot: Slot, reason: str, now: float) -> None:
        """Take the feeder down and let a successor start after a pause."""
        hung = reason.startswith("no answer")
        if hung and slot.state is State.RUNNING:
            slot.suspect = self._work.scores_locally
        if now - slot.since > SETTLED_SECONDS:
            slot.pause = FIRST_PAUSE_SECONDS
        pause = max(slot.pause, TAKE_OVER_SECONDS) if slot.fenced else slot.pause
        self.successors += 1
        committed = (
            {str(p.partition): p.committed for p in slot.report.partitions} if slot.report else {}
        )
        log.warning(
            "the feeder of slot %d is replaced in %.1f s, from about %s: %s",
            slot.number,
            pause,
            committed or "its committed offsets",
            reason,
        )
        slot.finished_in, slot.finished_out, slot.finished_dead = slot.totals()
        slot.report = None
        self._actors.kill(slot.handle)
        slot.state, slot.due = State.WAITING, now + pause
        slot.pause = min(2 * slot.pause, LONGEST_PAUSE_SECONDS)

    @property
    def reports(self) -> list[Report]:
        """The newest report of each slot that has one."""
        return [slot.report for slot in self.slots if slot.report is not None]

    @property
    def drained(self) -> bool:
        """Whether every slot has drained, or failed for good."""
        return all(slot.state in {State.DRAINED, State.FAILED} for slot in self.slots)

    def close(self) -> None:
        """End every feeder."""
        for slot in self.slots:
            if slot.handle is not None:
                self._actors.kill(slot.handle)
