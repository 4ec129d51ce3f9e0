"""CPU and memory of a contender's processes and of the broker, sampled from outside."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.contender import Process

# Walking the tree, and asking for memory, costs time that the contenders would pay for.
TREE_SECONDS = 2.0
BROKER = "broker"


@dataclass(slots=True)
class _Watched:
    """One process and what was seen of it; memory in bytes."""

    process: psutil.Process
    is_first: bool = False
    title: str = ""
    cpu: float = 0.0
    rss: int = 0
    pss: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Peaks of one process in bytes; `pss` is 0 where the system does not tell.

    `rss` counts memory shared with other processes in full (Ray's object store above all), `pss`
    by its share.
    """

    rss: int
    pss: int


@dataclass(slots=True)
class ProcessTree:
    """A process with all its descendants, and a broker beside it; used by one thread.

    `kind` names a process; a broker's kind is `BROKER`.
    """

    first: int
    kind: Callable[[Process], str]
    memory_of: str
    broker: int | None = None
    _watched: dict[int, _Watched] = field(default_factory=dict)
    # One entry a sample, a few a second: (seconds since the epoch, CPU seconds by process so far).
    _samples: list[tuple[float, dict[int, float]]] = field(default_factory=list)
    _tree_due: float = 0.0

    def sample(self) -> None:
        """Look at all processes once."""
        if time.monotonic() >= self._tree_due:
            self._look_around()
            self._tree_due = time.monotonic() + TREE_SECONDS
        for one in self._watched.values():
            with contextlib.suppress(psutil.Error), one.process.oneshot():
                times = one.process.cpu_times()
                one.cpu = times.user + times.system
                one.rss = max(one.rss, one.process.memory_info().rss)
        self._samples.append((time.time(), {pid: one.cpu for pid, one in self._watched.items()}))

    def _look_around(self) -> None:
        with contextlib.suppress(psutil.Error):
            first = psutil.Process(self.first)
            for process in (first, *first.children(recursive=True)):
                is_first = process.pid == self.first
                self._watched.setdefault(process.pid, _Watched(process, is_first))
        if self.broker is not None and self.broker not in self._watched:
            with contextlib.suppress(psutil.Error):
                self._watched[self.broker] = _Watched(psutil.Process(self.broker))
        for pid, one in self._watched.items():
            with contextlib.suppress(psutil.Error, OSError):
                one.title = " ".join(one.process.cmdline()) or one.title
                if self._kind(pid) == self.memory_of:
                    one.pss = max(one.pss, _pss(pid))

    def _kind(self, pid: int) -> str:
        if pid == self.broker:
            return BROKER
        one = self._watched[pid]
        return self.kind(Process(one.is_first, one.title))

    def cpu_between(self, start: float, end: float) -> dict[str, float]:
        """CPU seconds by kind between two times since the epoch, interpolated between samples."""
        times = [at for at, _ in self._samples]
        found: dict[str, float] = {}
        for pid in self._watched:
            seconds = [cpu.get(pid, 0.0) for _, cpu in self._samples]
            if pid == self.broker:
                # It was there before the first sample; the others began at nothing.
                seconds = [max(value, seconds[0]) for value in seconds]
            before, after = np.interp([start, end], times, seconds)
            kind = self._kind(pid)
            found[kind] = found.get(kind, 0.0) + float(after - before)
        return found

    def memory(self) -> list[Memory]:
        """Peak memory of each process of the kind `memory_of`."""
        return [
            Memory(one.rss, one.pss)
            for pid, one in self._watched.items()
            if self._kind(pid) == self.memory_of
        ]


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def listener(port: int) -> int | None:
    """The process on this machine that listens on a TCP port, None where it cannot be seen."""
    with contextlib.suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            # The address of a connection is a pair with names, of none is an empty one.
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,):
                return connection.pid
    return None
