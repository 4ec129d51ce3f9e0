"""The driver: starts the roles, keeps them in turns, and ends them in order.

Starting, running, draining (the feeders), archiving (what they left), done. It owns no records:
whatever dies here, the committed offsets and the journal say where to go on.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline import status as statuses
from pipeline.batch import Partition
from pipeline.config import Config
from pipeline.control import Orders
from pipeline.errors import AnotherRunTookOver, ClusterUnfit, HeadraceError, Retriable
from pipeline.fleet import Fleet
from pipeline.keeper import ArchiveKeeper
from pipeline.ports import Actors, Background, Clock, Reply
from pipeline.question import Question
from pipeline.scaler import Scaler
from pipeline.slots import TURN_SECONDS, Slots

log = logging.getLogger("headrace")

STEP_SECONDS = 0.1
ENDS_SECONDS = 1.0
# New partitions may wait so long; each look is a few requests.
PARTITIONS_SECONDS = 10.0
# Ends older than this say nothing about the demand.
STALE_SECONDS = 10.0
STATUS_SECONDS = 0.5
RATE_SECONDS = 5.0
DRAIN_SECONDS = 120.0
# After an error the archiver may still finish what is quickly done.
FAILED_DRAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Work:
    """What a run consists of, put together by `pipeline.wire`.

    `targets` are the ends of the input at the start, where the run ends once it has caught up with
    them; None runs until stopped. `partitions` looks which ones of the input there are to score
    now; it raises ClusterUnfit where the run can't go on with them. Both are asked in the
    `background`, one at a time each. `reserve` tells the cluster for how many replicas there should
    be room. `show` is given each status.
    """

    config: Config
    model: tuple[str, str]
    actors: Actors
    clock: Clock
    fleet: Fleet
    scaler: Scaler
    reserve: Callable[[int], None]
    slots: Slots
    archive: ArchiveKeeper
    ends: Callable[[], dict[Partition, int]]
    partitions: Callable[[], Sequence[Partition]]
    background: Background
    targets: dict[Partition, int] | None
    show: Callable[[statuses.Status], None]


class Driver:
    """One run of a job; used by one thread."""

    def __init__(self, work: Work, stopping: Callable[[], bool]) -> None:
        self._work = work
        self._stopping = stopping
        self._state = "starting"
        self._started_at = work.clock.time()
        self._error: HeadraceError | None = None
        self._draining_since: float | None = None
        self._ends: dict[Partition, int] = {}
        self._ends_known = float("-inf")
        now = work.clock.monotonic()
        self._ask_ends = Question(work.ends, ENDS_SECONDS, now, work.background)
        due = now + PARTITIONS_SECONDS
        self._ask_partitions = Question(work.partitions, PARTITIONS_SECONDS, due, work.background)
        self._shown_at = float("-inf")
        # (monotonic seconds, records in), over the last `RATE_SECONDS`: a few entries a second.
        self._counts: deque[tuple[float, int]] = deque()
        self._status: statuses.Status | None = None

    def run(self) -> statuses.Status:
        """Run until stopped, caught up or failed; drained in any case but a fence.

        Raises what ended the run, after everything else was brought to its end.
        """
        try:
            while not self._step():
                pass
        finally:
            self._show(force=True)
        if self._error is not None:
            raise self._error
        assert self._status is not None
        return self._status

    def _step(self) -> bool:
        """One round; True when the run is over."""
        work = self._work
        for reply in work.actors.replies(STEP_SECONDS):
            self._take(reply)
        if isinstance(self._error, AnotherRunTookOver):
            return True
        now = work.clock.monotonic()
        self._progress(now)
        in_flight: dict[int, int] = {}
        for report in work.slots.reports:
            for replica, count in report.in_flight.items():
                in_flight[replica] = in_flight.get(replica, 0) + count
        isolated = {r.slot for r in work.slots.reports if r.needs_isolation}
        isolated |= work.slots.suspected
        work.fleet.stand(wanted=work.scaler.here)
        self._guarded(lambda: work.fleet.step(work.scaler.replicas, isolated, in_flight))
        draining = self._draining_since is not None
        if work.scaler.due(now) and not draining:
            ends = self._ends if now - self._ends_known < STALE_SECONDS else {}
            work.scaler.decide(now, ends, work.slots.reports, work.fleet.readiness())
            work.reserve(work.scaler.replicas)
        self._guarded(lambda: work.slots.step(lambda slot: self._orders(slot, draining)))
        self._guarded(lambda: work.archive.step(draining))
        self._show()
        return self._is_over(now)

    def _orders(self, slot: int, draining: bool) -> Orders:
        fleet = self._work.fleet
        batch_size = self._work.scaler.batch_size
        return Orders(TURN_SECONDS, fleet.ready(), fleet.isolation(slot), draining, batch_size)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Keep the first error that ends the run, and drain what still works."""
        try:
            action()
        except HeadraceError as problem:
            if self._error is None:
                log.error("the run ends: %s", problem)
                self._error = problem
            self._drain()

    def _take(self, reply: Reply) -> None:
        kind = reply.tag[0]
        if kind == "replica":
            number = reply.tag[1]
            self._guarded(lambda: self._work.fleet.started(number, reply.value, reply.error))
        elif kind in {"feeder", "turn"}:
            self._guarded(lambda: self._take_feeder(reply))
        elif kind == "archiver":
            draining = self._draining_since is not None
            self._guarded(lambda: self._work.archive.reply(reply, draining))

    def _take_feeder(self, reply: Reply) -> None:
        report = self._work.slots.reply(reply)
        if report is not None:
            self._work.scaler.take(report, self._work.clock.monotonic())
            for replica, reason in report.lost:
                self._work.fleet.lost(replica, reason)

    # -- ends ----------------------------------------------------------------------------------

    def _progress(self, now: float) -> None:
        if self._state == "starting" and len(self._work.slots.reports) == len(
            self._work.slots.slots
        ):
            self._state = "running"
        if self._draining_since is None:
            if self._stopping():
                log.info("stopping: what is in flight is finished and committed first")
                self._drain()
            elif self._caught_up():
                self._drain()
        self._guarded(lambda: self._take_ends(now))
        if self._draining_since is None:
            self._guarded(lambda: self._take_partitions(now))

    def _take_partitions(self, now: float) -> None:
        try:
            partitions = self._ask_partitions.answer(now)
        except Retriable as problem:
            log.warning("whether the input has new partitions is not known: %s", problem)
            return
        if partitions is not None:
            self._work.slots.grow(partitions)

    def _take_ends(self, now: float) -> None:
        try:
            ends = self._ask_ends.answer(now)
        except Retriable as problem:
            log.warning("the lag is not known at the moment: %s", problem)
            return
        if ends is not None:
            self._ends, self._ends_known = ends, now

    def _caught_up(self) -> bool:
        targets = self._work.targets
        if targets is None:
            return False
        committed = {
            item.partition: item.committed
            for report in self._work.slots.reports
            for item in report.partitions
        }
        return all(committed.get(p, -1) >= end for p, end in targets.items())

    def _drain(self) -> None:
        if self._draining_since is None:
            self._draining_since = self._work.clock.monotonic()
            self._state = "draining"

    def _is_over(self, now: float) -> bool:
        if self._draining_since is None:
            return False
        work = self._work
        failed = self._error is not None
        if work.slots.drained:
            self._state = "archiving"
            reports = work.slots.reports
            if work.archive.has(item for report in reports for item in report.partitions):
                return True
        if now - self._draining_since > (FAILED_DRAIN_SECONDS if failed else DRAIN_SECONDS):
            if not failed:
                self._error = ClusterUnfit(
                    f"the run did not drain within {DRAIN_SECONDS:.0f} s; what is not committed "
                    "is scored again at the next start, and nothing is lost"
                )
            return True
        return False

    # -- what is shown ---------------------------------------------------------------------------

    def _show(self, force: bool = False) -> None:
        now = self._work.clock.monotonic()
        if force or now - self._shown_at >= STATUS_SECONDS:
            self._shown_at = now
            self._status = self._make_status(now)
            self._work.show(self._status)

    def _make_status(self, now: float) -> statuses.Status:
        work, config = self._work, self._work.config
        records_in = records_out = 0
        dead: dict[str, int] = {}
        for slot in work.slots.slots:
            slot_in, slot_out, slot_dead = slot.totals()
            records_in, records_out = records_in + slot_in, records_out + slot_out
            for reason, count in slot_dead.items():
                dead[reason] = dead.get(reason, 0) + count
        in_flight: dict[int, int] = {}
        partitions = []
        ends = {(p.topic, p.number): end for p, end in self._ends.items()}
        for report in work.slots.reports:
            partitions.extend(statuses.partition_statuses(report, ends, work.clock.time()))
            for replica, count in report.in_flight.items():
                in_flight[replica] = in_flight.get(replica, 0) + count
        return statuses.Status(
            job=config.job,
            state=self._state,
            delivery=config.delivery,
            placement=statuses.placement_status(config, work.scaler),
            model_name=work.model[0],
            model_version=work.model[1],
            started_at=self._started_at,
            at=work.clock.time(),
            records_in=records_in,
            records_out=records_out,
            dead_letters=dead,
            records_per_second=self._rate(now, records_in),
            lag=sum(p.lag for p in partitions),
            time_lag=max((p.time_lag for p in partitions), default=0.0),
            feeders_replaced=work.slots.successors,
            replicas_replaced=work.fleet.replaced,
            slots=[statuses.slot_status(slot) for slot in work.slots.slots],
            partitions=sorted(partitions, key=lambda p: p.partition),
            replicas=[
                statuses.replica_status(r, in_flight.get(r.id, 0), now) for r in work.fleet.states()
            ],
            scaling=statuses.scaling_status(work.scaler),
            archive=statuses.archive_status(work.archive),
        )

    def _rate(self, now: float, records_in: int) -> float:
        self._counts.append((now, records_in))
        while len(self._counts) > 2 and now - self._counts[1][0] >= RATE_SECONDS:
            self._counts.popleft()
        since, before = self._counts[0]
        return max(0, records_in - before) / (now - since) if now > since else 0.0
