"""One run of one contender: fresh topics, start, watch, end, check."""

import contextlib
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.contender import Contender, Run
from benchmarks.outcome import check, check_parquet, read_predictions
from benchmarks.processes import BROKER, Memory, ProcessTree
from benchmarks.task import Task
from benchmarks.workload import PARTITIONS
from jobs.broker_process import admin_client
from jobs.local_broker import create_topics

SAMPLE_SECONDS = 0.5
STOP_SECONDS = 60.0
# A start, then the slowest rate that still says something.
START_SECONDS = 120.0
SLOWEST_RATE = 2_000.0
LOG_LINES = 25


class ContenderFailed(RuntimeError):
    """A contender ended with an error, or did not end; the message has its last lines."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What all runs share: the broker, the input, the model and its scores [DISTINCT]."""

    task: Task
    bootstrap: str
    broker: int | None
    events: str
    records: int
    model: Path
    reference: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. `rate` in records/s, `cpu` in µs a record by kind, `broker` likewise or None.

    `first` is how many seconds after its start the first prediction was appended, which under
    transactions is before a reader sees it. `memory` holds the peaks of the largest process of the
    contender's `memory_of`.
    """

    rate: float
    first: float
    cpu: dict[str, float]
    broker: float | None
    memory: Memory

    @property
    def total(self) -> float:
        """µs of CPU a record, the broker's apart."""
        return sum(self.cpu.values())


@contextmanager
def prepared(stage: Stage, contender: Contender, records: int | None, events: str) -> Iterator[Run]:
    """Topics and folders for one run; both are gone afterwards."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        run = Run(
            name=name,
            bootstrap=stage.bootstrap,
            events=events,
            predictions=f"{name}.predictions",
            parquet=Path(folder) / "parquet",
            scratch=Path(folder),
            model=stage.model,
            records=records,
        )
        stamped = {"message.timestamp.type": "LogAppendTime"}
        create_topics(stage.bootstrap, {run.predictions: PARTITIONS}, stamped)
        others = contender.topics(run)
        if others:
            create_topics(stage.bootstrap, others)
        try:
            yield run
        finally:
            delete_topics(stage.bootstrap, [run.predictions, *others])


def delete_topics(bootstrap: str, topics: list[str]) -> None:
    """Delete topics and wait for it."""
    admin = admin_client(bootstrap)
    for future in admin.delete_topics(topics).values():
        future.result()


@contextmanager
def running(contender: Contender, run: Run) -> Iterator[subprocess.Popen[bytes]]:
    """Start a contender; at the end whatever of it still runs is ended."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    # A cluster that happens to run would be shared with others.
    environment.pop("RAY_ADDRESS", None)
    with (run.scratch / "log").open("wb") as log:
        process = subprocess.Popen(
            contender.command(run),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def failure(contender: Contender, run: Run, what: str) -> ContenderFailed:
    """The error of a contender that `what`, with the last lines of its log."""
    lines = (run.scratch / "log").read_text(errors="replace").splitlines()[-LOG_LINES:]
    return ContenderFailed("\n".join([f"{contender.name} {what}; its last lines:", *lines]))


def measure(stage: Stage, contender: Contender) -> Measured:
    """Score the whole input once and return the figures.

    Raises ContenderFailed, and WrongOutput where the output is not what it should be.
    """
    with prepared(stage, contender, stage.records, stage.events) as run:
        began = time.time()
        with running(contender, run) as process:
            tree = ProcessTree(process.pid, contender.kind, contender.memory_of, stage.broker)
            deadline = time.monotonic() + START_SECONDS + stage.records / SLOWEST_RATE
            while process.poll() is None:
                tree.sample()
                if time.monotonic() > deadline:
                    raise failure(contender, run, "did not end in time")
                time.sleep(SAMPLE_SECONDS)
        if process.returncode != 0:
            raise failure(contender, run, f"ended with exit code {process.returncode}")
        ended = time.time()
        predictions = read_predictions(stage.bootstrap, run.predictions)
        check(predictions, stage.records, stage.reference)
        if contender.writes_parquet:
            check_parquet(run.parquet, stage.records)
    start, end, rows = predictions.steady()
    steady = tree.cpu_between(start, end)
    whole = tree.cpu_between(float(predictions.times[0]), ended)
    cpu = {
        kind: 1e6 * (whole[kind] / stage.records)
        if kind in contender.writes_behind
        else 1e6 * (seconds / rows)
        for kind, seconds in steady.items()
    }
    broker = cpu.pop(BROKER, None)
    memory = tree.memory() or [Memory(0, 0)]
    return Measured(
        # The broker stamps to a millisecond.
        rate=rows / max(end - start, 0.001),
        first=float(predictions.times[0]) - began,
        cpu=cpu,
        broker=broker,
        memory=Memory(max(one.rss for one in memory), max(one.pss for one in memory)),
    )
