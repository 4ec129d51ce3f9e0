"""The feeders of a run: started, kept in turns, replaced when they die or hang.

A feeder that was fenced has a successor too, but only once it is clear that no other run ordered
it: a transaction that outlived the broker's time-out ends in the same error as a take-over, and
only a take-over leaves another run's name beside the offsets.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline import capacity
from pipeline.batch import Partition
from pipeline.control import Assignment, Layout, Orders, Report, Timing
from pipeline.errors import AnotherRunTookOver, ClusterUnfit, Fenced, OutcomeUnknown, Retriable
from pipeline.ports import ActorLost, Actors, Clock, Reply
from pipeline.slot import FIRST_PAUSE_SECONDS, Slot, State

log = logging.getLogger("headrace.slots")

TURN_SECONDS = 0.25
# One runs, one waits, so that the feeder never idles between two turns.
TURNS_AHEAD = 2
START_SECONDS = 60.0
HANG_SECONDS = 10.0
HANG_FACTOR = 20.0
UNMEASURED_HANG_SECONDS = 40.0
LONGEST_PAUSE_SECONDS = 10.0
# How long another run has, after its fence, to commit its claim.
TAKE_OVER_SECONDS = 5.0
# A spare costs two seconds of CPU to start. Those of a run's start have a better use in what has
# waited for it; after a death the next may come soon, but the successor's start goes before. One
# starts after the other, so that the loops keep a processor on the smallest machine.
FIRST_SPARE_SECONDS = 60.0
SPARE_SECONDS = 10.0
# A feeder that committed, or lived this long, failed anew, not again.
SETTLED_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Work:
    """What the feeders of a run have in common. `suspect_rows` is twice a commit's rows.

    `runs` reads which runs own a slot's partitions by their offsets; it may raise Retriable.
    `spares` are roles of which one actor is kept ready by `warm`, for when a feeder dies.
    """

    layout: Layout
    topic_partitions: int
    build: Callable[..., Any]
    args: tuple[Any, ...]
    cpus: float
    max_batch_size: int
    suspect_rows: int
    runs: Callable[[tuple[Partition, ...]], set[str]]
    spares: tuple[str, ...]
    warm: Callable[[], object]


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
        self._topic_partitions = work.topic_partitions
        self.seconds_per_row = 0.0
        self._scored: capacity.BySize = {}
        self.successors = 0
        # When the spare of a role is due; none is while there are enough as far as is known.
        self._spares_due: dict[str, float] = {}

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
                    slot.ending = order.drain
                    order = replace(order, drain=order.drain or slot.grown is not None)
                    if slot.report is None:
                        # Its first report comes at once, so that its claim is known.
                        order = replace(order, seconds=0.0)
                    if order.scores_here:
                        slot.scoring = slot.turns
                    self._actors.call(tag, slot.handle, "turn", order)
            if slot.state in {State.STARTING, State.RUNNING}:
                self._watch(slot, now)
        for role in [role for role, due in self._spares_due.items() if now >= due]:
            del self._spares_due[role]
            self._actors.spare(role, self._work.warm)

    def grow(self, partitions: Sequence[Partition]) -> None:
        """Give new partitions of the topic to their slots, which drain and claim with them anew."""
        self._topic_partitions = len(partitions)
        for slot in self.slots:
            own = tuple(p for p in partitions if p.number % len(self.slots) == slot.number)
            if own not in {slot.partitions, slot.grown}:
                slot.grown = own
                added = ", ".join(map(str, own[len(slot.partitions) :]))
                log.info("slot %d drains, to go on with %s", slot.number, added)

    def _may_start(self, slot: Slot, now: float) -> bool:
        """Whether no other run holds the slot. Raises AnotherRunTookOver where one does."""
        if not slot.fenced:
            return True
        try:
            found = self._work.runs(slot.partitions)
        except Retriable as problem:
            log.warning("slot %d waits for the broker: %s", slot.number, problem)
            slot.due = now + slot.pause
            return False
        if found - {self._work.layout.run}:
            raise AnotherRunTookOver(
                f"another run of this job took over slot {slot.number} ({slot.fenced}); "
                "this one ends and leaves it the stream"
            )
        slot.fenced = ""
        return True

    def _start(self, slot: Slot, now: float) -> None:
        work = self._work
        if slot.grown is not None:
            slot.partitions, slot.grown = slot.grown, None
        assignment = Assignment(
            slot=slot.number,
            layout=work.layout,
            partitions=slot.partitions,
            topic_partitions=self._topic_partitions,
            suspect_rows=work.suspect_rows if slot.suspect else 0,
            seconds_per_row=self.seconds_per_row,
        )
        slot.incarnation += 1
        slot.state, slot.since, slot.heard = State.STARTING, now, now
        slot.turns = slot.scoring = 0
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
        elif not slot.scoring:
            allowed = HANG_SECONDS
        elif (service := capacity.fit(self._scored)) is None:
            allowed = UNMEASURED_HANG_SECONDS
        else:
            # By the line, not by the row: rows of small batches are dear, and a full one is not.
            scoring = service.seconds(self._work.max_batch_size)
            allowed = max(HANG_SECONDS, HANG_FACTOR * scoring)
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
        slot.scoring = max(0, slot.scoring - 1)
        report: Report = reply.value
        if slot.died_at is not None:
            log.info("%s", slot.taken_over(report, now - slot.died_at))
            if lost := slot.lost(report):
                log.error("%s", lost)
            slot.died_at = None
        if slot.report is None:
            first = now + (SPARE_SECONDS if self.successors else FIRST_SPARE_SECONDS)
            spares = enumerate(self._work.spares)
            self._spares_due = {role: first + n * SPARE_SECONDS for n, role in spares}
        slot.report = report
        slot.starts.forgive()
        slot.suspect = slot.suspect and report.commits == 0
        self._time(report.timings)
        if report.drained and slot.state is State.RUNNING:
            if slot.grown is not None and not slot.ending:
                self._end(slot, now)
            else:
                slot.state = State.DRAINED
                self._actors.call(("closed", slot.number, -1), slot.handle, "close")
        return report

    def _end(self, slot: Slot, due: float) -> None:
        """End the slot's feeder; another one starts at `due`."""
        slot.end()
        self._actors.kill(slot.handle)
        slot.state, slot.due = State.WAITING, due

    def _time(self, timings: Sequence[Timing]) -> None:
        for timing in timings:
            if timing.rows:
                seconds_per_row = timing.service_seconds / timing.rows
                self.seconds_per_row = max(0.9 * self.seconds_per_row, seconds_per_row)
        self._scored = capacity.merged(self._scored, capacity.timed(timings))

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
                slot.suspect = slot.scoring > 0
            if slot.report is None and slot.starts.count(error):
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
            slot.suspect = slot.scoring > 0
        progressed = slot.report is not None and slot.report.commits > 0
        if progressed or now - slot.since > SETTLED_SECONDS:
            slot.pause = FIRST_PAUSE_SECONDS
        pause = max(slot.pause, TAKE_OVER_SECONDS) if slot.fenced else slot.pause
        self.successors += 1
        committed = (
            {str(p.partition): p.committed for p in slot.report.partitions} if slot.report else {}
        )
        log.warning(
            "the feeder of slot %d (process %d) is replaced in %.1f s, from about %s: %s",
            slot.number,
            slot.pid,
            pause,
            committed or "its committed offsets",
            reason,
        )
        if slot.died_at is None:
            slot.died_at = now
        self._end(slot, now + pause)
        slot.pause = min(2 * slot.pause, LONGEST_PAUSE_SECONDS)

    @property
    def reports(self) -> list[Report]:
        """The newest report of each slot that has one."""
        return [slot.report for slot in self.slots if slot.report is not None]

    @property
    def suspected(self) -> set[int]:
        """Slots whose feeder begins in isolation: their replicas start while it claims."""
        return {slot.number for slot in self.slots if slot.suspect}

    @property
    def drained(self) -> bool:
        """Whether every slot has drained, or failed for good."""
        return all(slot.state in {State.DRAINED, State.FAILED} for slot in self.slots)

    def close(self) -> None:
        """End every feeder."""
        for slot in self.slots:
            if slot.handle is not None:
                self._actors.kill(slot.handle)
