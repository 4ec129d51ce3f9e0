"""Processes as greenlets, and one seeded scheduler that decides at each effect what becomes of them.

An effect is whatever the world sees: a record appended, a transaction begun or ended, offsets
read or committed, a file published. Before and after each one the process that makes it may lose
its turn, crash, be paused for long (a zombie, once it comes back), or get an error: before the
effect it was not applied, after it it was.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from greenlet import GreenletExit, getcurrent, greenlet

from pipeline.errors import ClusterUnfit, HeadraceError, Retriable
from pipeline.testing import ManualClock

# What the store says of a file is the disk's fault; all else is the broker's.
DISK = {"attempt", "write", "publish"}


@dataclass(frozen=True, slots=True)
class Faults:
    """How probable each fault is at one moment of one effect; `pause` is in scheduler's steps."""

    crash: float = 0.0
    pause: float = 0.0
    error: float = 0.0
    late: float = 0.0
    pause_steps: int = 200


NO_FAULTS = Faults()


@dataclass(slots=True, eq=False)
class Process:
    """What lives and dies together: a feeder's loop and its commit, an archiver, a driver."""

    name: str
    dead: bool = False
    wakes: int = 0
    mortal: bool = True
    failed: HeadraceError | None = None
    tasks: int = 0


@dataclass(slots=True, eq=False)
class _Task:
    process: Process
    run: greenlet
    subject: str = ""
    sleeps_until: float = 0.0

    def ready(self, step: int, now: float) -> bool:
        """Whether it can take a turn."""
        process = self.process
        return not process.dead and process.wakes <= step and self.sleeps_until <= now


@dataclass
class Scheduler:
    """Owns whose turn it is, what time it is, and the trace."""

    rng: random.Random
    clock: ManualClock
    faults: Faults
    tracing: bool = False
    step: int = 0
    injected: int = 0
    trace: list[str] = field(default_factory=list)
    _running: _Task | None = None
    _tasks: list[_Task] = field(default_factory=list)
    # Of crashed processes: they stand where they were, for good.
    _graves: list[_Task] = field(default_factory=list)
    _over: bool = False

    def start(self, process: Process, work: Callable[[], None]) -> None:
        """Let a process do `work` beside what it does; an error of ours ends the process."""

        def run() -> None:
            try:
                work()
            except HeadraceError as problem:
                process.failed = problem
                self.note(f"ends: {type(problem).__name__}: {problem}")
                # Its owner kills it, but now and then its commit in the background is quicker.
                process.dead = self.rng.random() < 0.7

        process.tasks += 1
        self._tasks.append(_Task(process, greenlet(run)))

    def note(self, text: str, process: Process | None = None) -> None:
        """Write one line of the trace."""
        if not self.tracing:
            return
        if process is None and self._running is not None:
            process = self._running.process
        name = "" if process is None else process.name
        self.trace.append(f"{self.step:5d} {self.clock.monotonic():8.3f} {name:14s} {text}")

    def about(self, subject: Callable[[], str]) -> None:
        """What the current task's next effect is about, for the trace."""
        if self.tracing and self._running is not None:
            self._running.subject = subject()

    def yield_(self) -> None:
        """Let others go first."""
        if self._over:
            raise GreenletExit
        if self._running is not None:
            getcurrent().parent.switch()

    def wait(self, seconds: float) -> None:
        """Wait for something: time passes while others work."""
        if self._running is None:
            self.clock.advance(seconds)
        self.yield_()

    def sleep(self, seconds: float) -> None:
        """Sleep until the clock says so."""
        if self._running is not None:
            self._running.sleeps_until = self.clock.monotonic() + seconds
        self.wait(seconds)

    def effect(self, name: str, moment: str) -> None:
        """The hook of the doubles: decide what happens at this moment of this effect."""
        task = self._running
        if self._over or task is None:
            return
        subject = f"{name} {task.subject}".rstrip()
        if moment == "after":
            self.note(subject)
            task.subject = ""
        process = task.process
        faults = self.faults if process.mortal else NO_FAULTS
        draw = self.rng.random()
        if draw < faults.crash:
            self.injected += 1
            self.note(f"CRASH {moment} {subject}")
            process.dead = True
            self.yield_()
        draw -= faults.crash
        if 0 <= draw < faults.pause:
            self.injected += 1
            process.wakes = self.step + self.rng.randint(1, faults.pause_steps)
            self.note(f"PAUSE until step {process.wakes} {moment} {subject}")
            self.yield_()
            return
        draw -= faults.pause
        if 0 <= draw < faults.error:
            self.injected += 1
            applied = "applied" if moment == "after" else "not applied"
            self.note(f"ERROR {subject}: {applied}")
            kind = ClusterUnfit if name in DISK else Retriable
            raise kind(f"{name}: {applied}")
        if self.rng.random() < 0.3:
            self.yield_()

    def late(self) -> bool:
        """Whether the request that is sent now comes late."""
        task = self._running
        if task is None or not task.process.mortal or self.rng.random() >= self.faults.late:
            return False
        self.injected += 1
        return True

    def run_one(self) -> None:
        """Give one task a turn; time passes also where none can take one."""
        self.step += 1
        self.clock.advance(self.rng.choice((0.001, 0.01, 0.05, 0.2)))
        now = self.clock.monotonic()
        ready = [task for task in self._tasks if task.ready(self.step, now)]
        if not ready:
            return
        task = self.rng.choice(ready)
        self._running = task
        task.run.switch()
        self._running = None
        if task.run.dead:
            task.process.tasks -= 1
        if task.run.dead or task.process.dead:
            self._bury()

    def _bury(self) -> None:
        """Forget finished tasks; a process ends with its last one."""
        for task in self._tasks:
            if task.process.tasks == 0:
                task.process.dead = True
        self._graves.extend(t for t in self._tasks if not t.run.dead and t.process.dead)
        self._tasks = [t for t in self._tasks if not (t.run.dead or t.process.dead)]

    def kill(self, process: Process) -> None:
        """End a process where it stands."""
        process.dead = True
        self._bury()

    def close(self) -> None:
        """Unwind what is left, without effects."""
        self._over = True
        for task in [*self._tasks, *self._graves]:
            if not task.run.dead:
                task.run.throw(GreenletExit)
