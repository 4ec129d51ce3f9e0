"""What lives in a seed: feeders and archivers, built as `pipeline.build` builds them."""

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

import pyarrow as pa

from pipeline import journal
from pipeline.batch import Batch, Outgoing
from pipeline.batcher import Batcher, Limits
from pipeline.commit import Target
from pipeline.control import Assignment, Orders, ReplicaRef
from pipeline.dispatch import Dispatch
from pipeline.feeder import Background, Feeder
from pipeline.ports import Claimed, JournalRecord, Polled
from pipeline.testing import (
    SCHEMA,
    ManualBackground,
    MemoryIdempotentSink,
    MemoryJournal,
    MemoryReplicas,
    MemorySink,
    MemorySource,
    score,
)
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.watched import (
    ARCHIVE,
    DEAD,
    GROUP,
    INPUT,
    JOURNAL,
    OUTPUT,
)
from tests.simulation.world import World

# Seconds after which rows that wait for a roll will wait for ever.
PATIENCE = 5.0
# The share of feeders that are stopped, and of polls that may fail.
STOPPED = 0.2
FAULTY_POLLS = 0.1
EMPTY = pa.RecordBatch.from_pylist([], schema=SCHEMA)


class Clock:
    """The scheduler's clock as a machine tells it; sleeping lets others work."""

    def __init__(self, scheduler: Scheduler, skew: float = 0.0) -> None:
        self.monotonic = scheduler.clock.monotonic
        self.time = lambda: scheduler.clock.time() + skew
        self.sleep = scheduler.sleep


# -- feeders ---------------------------------------------------------------------------------------


class FailingSource(MemorySource):
    """Fails now and then, also with the records that it has taken from the log."""

    world: World

    def poll(self, max_records: int, timeout: float, *, fill: bool = False) -> Polled:
        faulty = self.world.rng.random() < FAULTY_POLLS
        if faulty:
            self.world.scheduler.effect("poll", "before")
        polled = super().poll(max_records, timeout, fill=fill)
        if faulty:
            self.world.scheduler.effect("poll", "after")
        return polled


def feeder(world: World, process: Process, assignment: Assignment) -> None:
    """One life of a slot's feeder: claim, then turns until it has drained or an error ends it."""
    plan, parts, scheduler, log = world.plan, world.parts, world.scheduler, world.log
    slot = assignment.slot

    def opening(claimed: Claimed) -> list[Outgoing]:
        generation, positions = assignment.layout.generation, claimed.positions
        value = journal.roll(process.name, claimed.epoch, generation, "claim", INPUT, positions)
        return [Outgoing.of(JOURNAL, slot, [journal.ROLL_KEY], [value])]

    sink: MemorySink | MemoryIdempotentSink
    ahead = None
    if plan.exactly_once:
        sink = parts.sink(log, GROUP, parts.transactional_id(slot, process.name))
    else:
        sink = parts.idempotent(log, GROUP)
        ahead = parts.ahead(log, lambda: world.rng.random() < 0.5)
    claimed = sink.claim(assignment, opening)
    source = FailingSource(log, INPUT, scheduler.wait)
    source.world = world
    source.assign(claimed.positions)
    batcher = Batcher(INPUT, claimed.positions, Limits(plan.batch_rows, 1 << 20, plan.delay))
    replicas = _replicas(world)
    made = Feeder(
        target=Target(
            slot=slot,
            epoch=claimed.epoch,
            layout=assignment.layout.generation,
            writer=process.name,
            input_topic=INPUT,
            predictions_topic=OUTPUT,
            dead_topic=DEAD,
            journal_topic=JOURNAL,
            ordered=True,
            model_name="sample",
            model_version="1",
            dead_value_bytes=1 << 20,
        ),
        claimed=claimed,
        suspect_rows=assignment.suspect_rows,
        source=source,
        sink=sink,
        ahead=ahead,
        batcher=batcher,
        dispatch=Dispatch(replicas, EMPTY, batcher.new_id),
        policies=plan.policies,
        background=_background(world, process),
        clock=Clock(scheduler, world.rng.choice((0.0, 0.0, -1.5, 1.5))),
        memory=lambda: 0,
    )
    fleet = [ReplicaRef(0, None), ReplicaRef(1, None)]
    newest = 1
    # Now and then it is told to stop, in good order.
    stopping = world.rng.randint(20, 200) if world.rng.random() < STOPPED else sys.maxsize
    stopping += scheduler.step
    while True:
        stop = scheduler.step >= stopping
        orders = Orders(0.0, tuple(fleet[:-1]), fleet[-1], drain=world.drain or stop)
        report = made.turn(orders)
        if report.drained:
            scheduler.note("drained")
            if world.drain:
                world.drained.add((assignment.layout.generation, slot))
            return
        for lost, _ in report.lost:
            newest += 1
            fleet = [ReplicaRef(newest, None) if ref.id == lost else ref for ref in fleet]
        scheduler.yield_()


def _background(world: World, process: Process) -> Background:
    manual = ManualBackground(world.scheduler.wait)

    def start(write: Callable[[], None]) -> Future[None]:
        future = manual(write)
        world.scheduler.start(process, manual.finish)
        return future

    return start


def _replicas(world: World) -> MemoryReplicas:
    """Replicas that answer late, in another order, or die over a record."""

    def kills(batch: Batch) -> bool:
        return any((value or b"").startswith(b"kill") for value in batch.values.to_pylist())

    def hangs(_: Batch) -> bool:
        return world.rng.random() < world.plan.slow

    return MemoryReplicas(score, kills, hangs, world.scheduler.wait)


# -- the archiver ----------------------------------------------------------------------------------


class SlowJournal(MemoryJournal):
    """Gives a few records at a time, and lets others work before."""

    world: World

    def poll(
        self, max_records: int, timeout: float
    ) -> tuple[Sequence[JournalRecord], Mapping[int, int]]:
        self.world.scheduler.yield_()
        return super().poll(min(max_records, self.world.rng.randint(1, 6)), timeout)

    def caught_up(self) -> bool:
        """Whether it has read all that there is, and all that will be."""
        return all(at == self.world.log.high_water(place) for place, at in self._positions.items())


def archiver(world: World) -> None:
    """One life of an archiver: turns until everything is archived."""
    reader = SlowJournal(world.log, ARCHIVE, JOURNAL, world.journals, world.scheduler.wait)
    reader.world = world
    made = world.parts.archiver(reader, world.files, Clock(world.scheduler), lambda: 0)
    since = 0.0
    while True:
        drained = world.layout is not None and world.has_drained(world.layout)
        report = made.turn(0.01)
        if not (drained and reader.caught_up()):
            since = world.scheduler.clock.monotonic()
        elif not report.pending_rows or world.scheduler.clock.monotonic() - since > PATIENCE:
            world.archived = True
            return
        world.scheduler.yield_()
