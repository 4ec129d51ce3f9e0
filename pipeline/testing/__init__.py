"""Doubles of the ports in memory: deterministic, without threads, as strict as the real things.

All state is in the world that they share (`MemoryLog`, `MemoryFiles`, `ManualClock`), so that
what is built anew on it finds what a crash left. `tests/contract` holds each to its port.
"""

from pipeline.testing.actors import Handle, MemoryActors, MemoryReplicas
from pipeline.testing.forms import Record, Transaction
from pipeline.testing.log import MemoryLog
from pipeline.testing.samples import SCHEMA, batch_of, polled_of, score
from pipeline.testing.streams import (
    MemoryAhead,
    MemoryIdempotentSink,
    MemoryJournal,
    MemorySink,
    MemorySource,
)
from pipeline.testing.world import ManualBackground, ManualClock, MemoryFiles, inline

__all__ = [
    "SCHEMA",
    "Handle",
    "ManualBackground",
    "ManualClock",
    "MemoryActors",
    "MemoryAhead",
    "MemoryFiles",
    "MemoryIdempotentSink",
    "MemoryJournal",
    "MemoryLog",
    "MemoryReplicas",
    "MemorySink",
    "MemorySource",
    "Record",
    "Transaction",
    "batch_of",
    "inline",
    "polled_of",
    "score",
]
