"""One long run, many faults: each is inflicted while the stream flows, and counted."""

import contextlib
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil
from harness import Run, Stage, committed, until
from proxy import END_TXN, OFFSET_COMMIT, Rule
from steps import EXACTLY_ONCE, STEPS, Step, steps

from jobs.broker_process import BrokerProcess
from pipeline.config import Config

LONGEST_PAUSE_SECONDS = 0.5
LONGEST_OUTAGE_SECONDS = 2.0
SLOW_DISK_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something to inflict; it returns once it has happened."""

    role: str
    name: str
    inflict: Callable[[], None]


@dataclass(slots=True)
class Storm:
    """Inflicts faults on one run of one job; owned by the test."""

    stage: Stage
    config: Config
    run: Run
    random: random.Random
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)

    def plan(self) -> Iterator[Fault]:
        """Every fault that this job can have, in an order of chance, over and over.

        What strikes a feeder at work or its commits comes twice: there the windows of the protocol
        are, and it takes a second or two, where a start or a hang takes ten.
        """
        while True:
            faults = [*self._at_work(), *self._at_work(), *self._elsewhere()]
            self.random.shuffle(faults)
            yield from faults

    def _steps(self) -> list[Step]:
        return steps(self.config.delivery, self.config.placement)

    def _at_work(self) -> Iterator[Fault]:
        for step in self._steps():
            if _is_at_work(step):
                yield Fault(step.role, step.name, self._at(step))
        yield Fault("commit", "request lost", self._ruled("lose the request"))
        yield Fault("commit", "answer lost", self._ruled("lose the answer"))
        yield Fault("commit", "delayed", self._ruled("delay", 2.0))

    def _elsewhere(self) -> Iterator[Fault]:
        for step in self._steps():
            if not _is_at_work(step):
                yield Fault(step.role, step.name, self._at(step))
        yield Fault("feeder", "hangs", lambda: self._hangs("feeder"))
        yield Fault("broker", "killed", lambda: self._restart(BrokerProcess.kill))
        yield Fault("broker", "bounced", lambda: self._restart(BrokerProcess.stop))
        yield Fault("disk", "slow", self._disk_slow)
        if self.config.placement == "remote":
            yield Fault("replica", "hangs", lambda: self._hangs("replica"))
        if sys.platform == "linux":
            yield Fault("disk", "full", self._disk_full)

    def rage(self, count: int, deadline: float) -> int:
        """Inflict up to `count` faults until the deadline; returns how many it were."""
        for number, fault in zip(range(count), self.plan(), strict=False):
            if time.monotonic() > deadline:
                return number
            began = time.monotonic()
            try:
                fault.inflict()
            except (psutil.NoSuchProcess, ProcessLookupError):
                # The victim had just ended, such as with a driver before: nothing was inflicted.
                continue
            self.tally[fault.role, fault.name] += 1
            print(f"{time.monotonic() - began:6.1f} s  {fault.role}: {fault.name}", flush=True)
            time.sleep(self.random.uniform(0.0, LONGEST_PAUSE_SECONDS))
        return count

    def _until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for the condition, as long as the run goes on."""
        until(lambda: self.run.check() or condition(), what)

    # -- processes -------------------------------------------------------------------------------

    def _at(self, step: Step) -> Callable[[], None]:
        if step.side in {"request", "answer"}:
            return lambda: self._at_commit(step.side == "answer")
        return lambda: self._at_step(step)

    def _at_step(self, step: Step) -> None:
        self.stage.marks.arm(step)
        if step.starting:
            self._make_start(step.role)

        # A driver ends itself by it: its run is not asked whether it goes on.
        wait = until if step.role == "driver" else self._until
        try:
            wait(lambda: self.stage.marks.fired(step), f"a {step.role} comes to '{step.name}'")
        finally:
            self.stage.marks.disarm(step)
        if step.role == "driver":
            self.run.wait(expected=-signal.SIGKILL)
            self.run.start()

    def _make_start(self, role: str) -> None:
        """Kill one of the role, so that another one starts."""
        if role == "driver":
            self.run.kill()
            self.run.start()
        else:
            psutil.Process(self._one(role)).kill()
        self.tally[role, "at large"] += 1

    def _one(self, role: str, call: str = "") -> int:
        found: list[int] = []
        title = role.capitalize() + call
        self._until(lambda: found.extend(self.run.actors(title)) or found, f"there is a {role}")
        return self.random.choice(found)

    def _hangs(self, role: str) -> None:
        # One at work: a start may take a minute before it counts as hung.
        pid = self._one(role, ".call")
        psutil.Process(pid).suspend()
        # It does not hear that it is killed, and Ray ends it the hard way a little later.
        self._until(lambda: not psutil.pid_exists(pid), f"a {role} that hangs is replaced")

    # -- commits ---------------------------------------------------------------------------------

    def _rule(self, action: str, **more) -> Rule:
        if self.config.delivery == EXACTLY_ONCE:
            return Rule(END_TXN, action, **more)
        # The archiver commits offsets too, under a group of its own.
        group = self.config.group.encode()
        return Rule(OFFSET_COMMIT, action, matches=lambda r: group + b".archive" not in r, **more)

    def _at_commit(self, at_answer: bool) -> None:
        killed: list[int] = []

        def kill(port: int) -> None:
            killed.extend(self._kill_feeder(port))

        # A driver that starts commits too.
        while not killed:
            self._await(self._rule("tell", told=kill, at_answer=at_answer))

    def _ruled(self, action: str, seconds: float = 0.0) -> Callable[[], None]:
        return lambda: self._await(self._rule(action, seconds=seconds))

    def _await(self, rule: Rule) -> None:
        with self.stage.proxy.ruling(rule):
            self._until(rule.met.is_set, "a commit comes by")

    def _kill_feeder(self, port: int) -> list[int]:
        """Kill the feeder whose connection to the proxy has this port; its id, if it is one."""
        feeders = set(self.run.actors("Feeder"))
        found = [
            connection.pid
            for connection in psutil.net_connections("tcp4")
            if connection.pid in feeders
            and connection.laddr.port == port
            and connection.raddr
            and connection.raddr.port == self.stage.proxy.port
        ]
        for pid in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        return found

    # -- surroundings ----------------------------------------------------------------------------

    def _restart(self, end: Callable[[BrokerProcess], None]) -> None:
        before = committed(self.stage, self.config)
        process = self.stage.broker.process
        assert process is not None
        end(process)
        time.sleep(self.random.uniform(0.0, LONGEST_OUTAGE_SECONDS))
        process.start()
        self._until(
            lambda: committed(self.stage, self.config) > before,
            "the run commits again after the broker's restart",
        )

    def _disk_full(self) -> None:
        """No file of the archiver may grow any more: what a full disk or a quota does."""
        pid = self._one("archiver")
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        self._until(lambda: not psutil.pid_exists(pid), "an archiver without room is replaced")

    def _disk_slow(self) -> None:
        (step,) = (s for s in STEPS if s.name == "while writing")
        self.stage.marks.arm(step, None, seconds=SLOW_DISK_SECONDS)
        self._until(lambda: self.stage.marks.fired(step), "the archiver writes")


def _is_at_work(step: Step) -> bool:
    return step.role == "feeder" and not step.starting


def table(tally: Counter[tuple[str, str]]) -> str:
    """How many faults of each kind there were."""
    lines = [f"  {role:10} {name:34} {count:5}" for (role, name), count in sorted(tally.items())]
    return "\n".join([*lines, f"  {sum(tally.values())} faults"])
