"""Plays one seed: faults for a while, then calm until everything has drained, then the count."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pipeline.testing import ManualClock
from tests.simulation.plan import Parts, draw
from tests.simulation.reader import Reader
from tests.simulation.scheduler import NO_FAULTS, Process, Scheduler
from tests.simulation.supervisor import Supervisor
from tests.simulation.watched import DEAD, GROUP, INPUT, JOURNAL, Violation
from tests.simulation.world import World, broker, upstream

# Far more than any seed takes to drain.
CALM_STEPS = 20_000
COMEBACK_STEPS = 40
# A look, and whether a successor is due, cost as much as a step of a feeder.
LOOK_EVERY = 12
SUPERVISE_EVERY = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a seed: the violation, if any, and the trace where it was asked for."""

    seed: int
    violation: str | None
    faults: int
    steps: int
    trace: list[str]


def play(
    seed: int, *, exactly_once: bool = True, parts: Parts | None = None, tracing: bool = False
) -> Outcome:
    """Play one seed to its end."""
    rng = random.Random(seed)
    plan = draw(rng, exactly_once=exactly_once)
    scheduler = Scheduler(rng, ManualClock(plan.epoch), plan.faults, tracing)
    chosen = parts or Parts()
    log = chosen.log(scheduler, fenced=exactly_once)
    log.create(DEAD, 1)
    log.create(JOURNAL, max(plan.slots))
    world = World(plan, chosen, rng, scheduler, log, chosen.files(scheduler))
    world.grow(plan.partitions)
    reader = Reader(log, world.files)
    violation = None
    try:
        _play(world, reader)
    except Violation as found:
        violation = str(found)
        scheduler.note(f"VIOLATION {violation}")
    finally:
        scheduler.close()
    return Outcome(seed, violation, scheduler.injected, scheduler.step, scheduler.trace)


def _play(world: World, reader: Reader) -> None:
    plan, scheduler = world.plan, world.scheduler
    supervisor = Supervisor(world)
    scheduler.note(f"{plan}")
    for name, work in (("upstream", upstream), ("broker", broker)):
        scheduler.start(Process(name, mortal=False), partial(work, world))
    for _ in range(plan.steps):
        _advance(world, reader, partial(supervisor.step, plan.successor, plan.second))
    scheduler.faults = NO_FAULTS
    if world.faulty:
        scheduler.note("FAULTS END: zombies come back, then all are killed, and a last run begins")
        for process in supervisor.everyone():
            process.wakes = 0
        for _ in range(COMEBACK_STEPS):
            _advance(world, reader, lambda: None)
        for process in supervisor.everyone():
            scheduler.kill(process)
        supervisor.take_over(len(plan.slots) - 1)
    world.calm = True
    for _ in range(CALM_STEPS):
        if world.archived:
            break
        _advance(world, reader, partial(supervisor.step, 1.0, 0.0))
    else:
        raise Violation("lost: it does not drain")
    reader.look()
    _count(world, reader)


def _advance(world: World, reader: Reader, supervise: Callable[[], None]) -> None:
    scheduler = world.scheduler
    scheduler.run_one()
    if scheduler.step % SUPERVISE_EVERY == 0:
        supervise()
    if scheduler.step % LOOK_EVERY == 0 or len(world.files.visible) != len(reader.tables):
        reader.look()
        world.drain |= world.calm and world.produced and _consumed(world)


def _consumed(world: World) -> bool:
    held = world.log.latest(GROUP, world.input)
    return all(p in held and held[p].offset >= world.log.high_water(p) for p in world.input)


def _count(world: World, reader: Reader) -> None:
    """After all has drained: each input record once in each output, in order, equal in both."""
    found: Counter[tuple[int, int]] = Counter(reader.letters)
    for place, rows in reader.predictions.items():
        found.update(rows)
        for source in range(world.partitions):
            offsets = [offset for number, offset in rows if number == source]
            if offsets and source != place.number:
                raise Violation(f"reordered: predictions of {INPUT}/{source} stand in {place}")
            if world.plan.exactly_once and offsets != sorted(offsets):
                raise Violation(f"reordered: {place} holds {offsets}")
    lost = world.expected - found.keys()
    if lost:
        raise Violation(f"lost: {sorted(lost)} stand in no output")
    if found.keys() - world.expected:
        raise Violation(f"aborted read: {sorted(found.keys() - world.expected)} were scored")
    twice = sorted(one for one, times in found.items() if times > 1)
    if twice and (world.plan.exactly_once or not world.faulty):
        raise Violation(f"duplicate: {twice} stand in the outputs more than once")
    scored = {one for rows in reader.predictions.values() for one in rows}
    missing, extra = scored - reader.archived.keys(), reader.archived.keys() - scored
    if not world.plan.exactly_once:
        # One attempt made a prediction of it, the one whose rows were taken a dead letter.
        missing -= set(reader.letters)
    if missing or extra:
        raise Violation(f"lost: {sorted(missing)} are in no file; {sorted(extra)} in no topic")
