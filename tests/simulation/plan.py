"""What one seed is made of: its sizes, its policies, its faults. Each seed leaves some out."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.archiver import Archiver
from pipeline.config import CommitPolicy, DeadLetters, Roll
from pipeline.feeder import Policies
from pipeline.testing import MemoryAhead, MemoryIdempotentSink, MemorySink
from tests.simulation.scheduler import NO_FAULTS, Faults, Scheduler
from tests.simulation.watched import DEAD, GROUP, WatchedFiles, WatchedLog


def id_of_slot(slot: int, _life: str) -> str:
    """The fence of a slot, as `pipeline.edges.kafka.clients` names it."""
    return f"{GROUP}.{slot:04d}"


@dataclass(frozen=True)
class Parts:
    """What a seed is played with; a test puts in parts that lack one protection."""

    log: Callable[..., WatchedLog] = WatchedLog
    files: Callable[[Scheduler], WatchedFiles] = WatchedFiles
    sink: Callable[..., MemorySink] = MemorySink
    idempotent: Callable[..., MemoryIdempotentSink] = MemoryIdempotentSink
    ahead: Callable[..., MemoryAhead] = MemoryAhead
    archiver: Callable[..., Archiver] = Archiver
    transactional_id: Callable[[int, str], str] = id_of_slot
    rolls_at_hand_over: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and probabilities of one seed; `slots` are those of one run after the other."""

    exactly_once: bool
    partitions: int
    slots: tuple[int, ...]
    records: int
    steps: int
    batch_rows: int
    delay: float
    policies: Policies
    faults: Faults
    successor: float
    second: float
    transactional_input: bool
    grows: bool
    poison: float
    slow: float
    suspect_rows: int
    epoch: float


def draw(rng: random.Random, *, exactly_once: bool) -> Plan:
    """The plan of a seed."""

    def rate(*choices: float) -> float:
        return rng.choice(choices)

    calm = rng.random() < 0.1
    partitions = rng.randint(1, 4)
    most = min(3, partitions)
    slots = [rng.randint(1, most)]
    # Nothing fences a feeder of the old layout under at_least_once.
    while exactly_once and len(slots) < 3 and rng.random() < 0.5:
        slots.append(rng.choice([n for n in range(1, most + 1) if n != slots[-1]] or slots))
    return Plan(
        exactly_once=exactly_once,
        partitions=partitions,
        slots=tuple(slots),
        records=rng.randint(4, 16),
        steps=rng.randint(40, 240),
        batch_rows=rng.randint(1, 4),
        delay=rate(0.0, 0.0, 0.05),
        policies=Policies(
            CommitPolicy(rng.choice((1, 50, 200)), rng.randint(2, 8), 1 << 20),
            Roll(rng.choice((0.3, 2.0, 60.0)), rng.choice((1, 1 << 20, 1 << 20))),
            DeadLetters(DEAD, 1.0, 1_000),
        ),
        faults=NO_FAULTS
        if calm
        else Faults(
            crash=rate(0.0, 0.01, 0.03, 0.05),
            # Where nothing fences, zombies are what matters.
            pause=rate(0.0, 0.01, 0.03, 0.05) if exactly_once else rate(0.01, 0.03, 0.06, 0.1),
            error=rate(0.0, 0.01, 0.03, 0.05),
            late=rate(0.0, 0.05, 0.3),
            pause_steps=rng.choice((30, 100, 300)),
        ),
        successor=rate(0.2, 0.8),
        second=0.0 if calm else rate(0.0, 0.01, 0.04),
        transactional_input=rng.random() < 0.4,
        grows=exactly_once and rng.random() < 0.2,
        poison=rate(0.0, 0.0, 0.05),
        slow=rate(0.0, 0.3, 0.6),
        suspect_rows=rate(0, 0, 4),
        # The day changes a second or an hour after the start.
        epoch=1_700_006_400.0 - rng.choice((1.0, 3.0, 3600.0)),
    )
