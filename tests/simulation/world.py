"""What outlives every process of a seed, and what goes on around the job: input and broker."""

import random
from dataclasses import dataclass, field

from pipeline.batch import Partition
from pipeline.control import Layout
from tests.simulation.plan import Parts, Plan
from tests.simulation.scheduler import Scheduler
from tests.simulation.watched import INPUT, OUTPUT, WatchedFiles, WatchedLog


@dataclass
class World:
    """All that outlives a process."""

    plan: Plan
    parts: Parts
    rng: random.Random
    scheduler: Scheduler
    log: WatchedLog
    files: WatchedFiles
    # How many the input has now, and the output with it.
    partitions: int = 0
    # Every input record that was not aborted.
    expected: set[tuple[int, int]] = field(default_factory=set)
    # Whether faults are over; whether all is consumed, so that feeders drain; which did.
    calm: bool = False
    drain: bool = False
    drained: set[tuple[int, int]] = field(default_factory=set)
    archived: bool = False
    # Whether a slot ever had two feeders at once.
    rivals: bool = False
    produced: bool = False
    layout: Layout | None = None
    # Every one that a driver has reached, the newest last.
    layouts: list[Layout] = field(default_factory=list)

    def has_drained(self, layout: Layout) -> bool:
        """Whether every slot of the layout has."""
        return all((layout.generation, slot) in self.drained for slot in range(layout.slots))

    def reach(self, layout: Layout) -> None:
        """Let feeders start in this layout."""
        self.layout = layout
        self.layouts.append(layout)

    def grow(self, partitions: int) -> None:
        """Let the input have so many partitions, and the output with it."""
        self.partitions = partitions
        for topic in (INPUT, OUTPUT):
            self.log.create(topic, partitions)

    @property
    def input(self) -> list[Partition]:
        """The partitions of the input."""
        return [Partition(INPUT, number) for number in range(self.partitions)]

    @property
    def faulty(self) -> bool:
        """Whether anything happened that may write a record twice where nothing fences."""
        return self.scheduler.injected > 0 or self.rivals

    @property
    def journals(self) -> int:
        """Partitions of the journal: one for each slot that there ever is."""
        return max(self.plan.slots)


def upstream(world: World) -> None:
    """Write the input: alone, or in transactions of which some are aborted."""
    rng, log = world.rng, world.log
    epoch = log.init("upstream")
    left = world.plan.records
    while left:
        many = min(left, rng.randint(1, 5))
        left -= many
        transaction = None
        if world.plan.transactional_input and rng.random() < 0.6:
            transaction = log.begin("upstream", epoch)
        aborted = transaction is not None and rng.random() < 0.3
        for _ in range(many):
            partition = rng.choice(world.input)
            draw = rng.random()
            kind = b"kill" if draw < world.plan.poison else b"bad" if draw > 0.9 else b"v"
            value = kind + b"." * rng.randint(0, 9)
            offset = log.append(partition, b"k", value, transaction=transaction)
            if not aborted:
                world.expected.add((partition.number, offset))
            if rng.random() < 0.3:
                world.scheduler.yield_()
        if transaction is not None:
            (log.abort if aborted else log.commit)(transaction)
        world.scheduler.sleep(rng.choice((0.0, 0.2, 1.0)))
    world.produced = True


def broker(world: World) -> None:
    """Settle what has ended; let late requests arrive; time open transactions out."""
    rng, log = world.rng, world.log
    while True:
        if rng.random() < 0.7:
            log.settle()
        if log.delayed and rng.random() < 0.1:
            log.deliver()
        if rng.random() < 0.002:
            for name in [name for name in log._owners if name != "upstream"]:
                log.time_out(name)
        world.scheduler.yield_()
