"""Starts what is missing, and now and then what should not be there: a second one, an old one."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pipeline.control import Assignment, Layout
from tests.simulation import roles
from tests.simulation.driver import driver
from tests.simulation.scheduler import Process
from tests.simulation.watched import INPUT
from tests.simulation.world import World

# How probable it is that a further run begins now, once the one before has committed something.
NEXT_RUN = 0.1


@dataclass
class Supervisor:
    """Owns who lives. `run` counts the runs of the job, each with its own number of slots."""

    world: World
    run: int = 0
    feeders: dict[int, list[Process]] = field(default_factory=dict)
    archivers: list[Process] = field(default_factory=list)
    drivers: list[Process] = field(default_factory=list)
    _older: list[Process] = field(default_factory=list)
    _started: Counter[str] = field(default_factory=Counter)

    def step(self, successor: float, second: float) -> None:
        """Start a successor of what is dead, fails or sleeps, and a second one of what works.

        Both are probabilities. While a driver works on the layout no feeder starts; those of the
        run before go on until they are fenced.
        """
        world = self.world
        if self._wanted(self.archivers, successor, second):
            self.archivers.append(self._begin("archiver", lambda _: roles.archiver(world)))
        if world.layout is None:
            if self._wanted(self.drivers, successor, second):
                slots = world.plan.slots[self.run]
                self.drivers.append(self._begin("driver", lambda own: driver(world, own, slots)))
            return
        for slot in range(world.layout.slots):
            there = self.feeders.setdefault(slot, [])
            drained = (world.layout.generation, slot) in world.drained
            if not drained and self._wanted(there, successor, second):
                self._feeder(world.layout, slot)
        if world.plan.exactly_once and world.rng.random() < second:
            # Another run that has not heard of the hand-over yet.
            old = world.rng.choice(world.layouts)
            self._feeder(old, world.rng.randrange(old.slots))
        more = not world.calm and self.run + 1 < len(world.plan.slots)
        if more and self._begun() and world.rng.random() < NEXT_RUN:
            self.take_over(self.run + 1)

    def _begun(self) -> bool:
        return any(offset > 0 for offset, _ in self.world.log.decided.values())

    def take_over(self, run: int) -> None:
        """Let a further run take over; it knows nothing of the feeders of those before."""
        if self.world.plan.grows and run > self.run:
            self.world.grow(self.world.partitions + 1)
        self.run = run
        self.world.layout = None
        self._older.extend(process for there in self.feeders.values() for process in there)
        self.feeders.clear()

    def _feeder(self, layout: Layout, slot: int) -> None:
        world = self.world
        suspects = world.plan.suspect_rows if world.rng.random() < 0.3 else 0
        # A run learns at its start how many partitions there are.
        owned = layout.owned(INPUT, slot, layout.partitions)
        assignment = Assignment(slot, layout, owned, layout.partitions, suspects)
        process = self._begin(f"feeder{slot}", lambda own: roles.feeder(world, own, assignment))
        there = self.feeders.setdefault(slot, [])
        there.append(process)
        world.rivals |= len(there) > 1

    def _begin(self, kind: str, work: Callable[[Process], None]) -> Process:
        self._started[kind] += 1
        process = Process(f"{kind}#{self._started[kind]}")
        self.world.scheduler.start(process, partial(work, process))
        self.world.scheduler.note("starts", process)
        return process

    def _wanted(self, there: list[Process], successor: float, second: float) -> bool:
        drawn = self.world.rng.random()
        if drawn >= max(successor, second):
            return False
        there[:] = [process for process in there if not process.dead]
        now = self.world.scheduler.step
        working = any(p.failed is None and p.wakes <= now for p in there)
        return drawn < (second if working else successor)

    def everyone(self) -> list[Process]:
        """Whoever lives."""
        feeders = (process for there in self.feeders.values() for process in there)
        return [*self.archivers, *self.drivers, *self._older, *feeders]
