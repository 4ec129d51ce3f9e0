"""How long a slot stands still when its feeder dies or hangs: `python -m benchmarks.recovery`.

A run on local Ray scores an even stream. Feeders in turn get SIGKILL or SIGSTOP, and a reader
waits for the next committed prediction of their slot; the broker stamps when it was appended.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
from confluent_kafka import Consumer

from benchmarks.contender import Contender, Run
from benchmarks.latency import following
from benchmarks.ours import SLOTS, headrace
from benchmarks.trial import Stage, delete_topics, failure, prepared, running
from benchmarks.workload import CARDS, PARTITIONS
from jobs.local_broker import broker, create_topics

READ_RECORDS = 2_000
READ_SECONDS = 0.01
LONGEST_SECONDS = 120.0
# Between two deaths: a feeder that dies once in a while, and whose run has a spare one again.
CALM_SECONDS = 15.0
# A feeder always has a turn to work on; a spare one has none.
BUSY = ("ray::Feeder.call", "ray::Feeder.start")
HURTS = {"death": signal.SIGKILL, "hang": signal.SIGSTOP}


def main() -> None:
    """Print the distribution of the seconds from a feeder's end to its slot's next prediction."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=main.__doc__)
    parser.add_argument("--count", type=int, default=20, help="deaths or hangs of each kind")
    parser.add_argument("--rate", type=int, default=2_000, help="events a second")
    parser.add_argument("--placements", nargs="+", default=["remote", "local"])
    parser.add_argument("--kinds", nargs="+", default=list(HURTS), choices=list(HURTS))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, broker("kafka") as started:
        model = CARDS.write_model(Path(folder))
        events = f"bench-{os.getpid()}.steady"
        reference = CARDS.reference(model)
        stage = Stage(CARDS, started.bootstrap, started.pid, events, 0, model, reference)
        for placement in chosen.placements:
            create_topics(stage.bootstrap, {events: PARTITIONS})
            contender = headrace("exactly_once", placement)
            try:
                for kind, seconds in _recoveries(stage, contender, chosen):
                    print(_line(placement, kind, seconds), flush=True)
            finally:
                delete_topics(stage.bootstrap, [events])


def _line(placement: str, kind: str, seconds: list[float]) -> str:
    low, median, high, worst = np.percentile(seconds, [10, 50, 90, 100])
    return (
        f"{placement:6} {kind:5} n={len(seconds)}: median {median:.1f} s, "
        f"p10 {low:.1f} s, p90 {high:.1f} s, worst {worst:.1f} s"
    )


def _recoveries(
    stage: Stage, contender: Contender, chosen: argparse.Namespace
) -> Iterator[tuple[str, list[float]]]:
    with (
        prepared(stage, contender, None, stage.events) as run,
        _streaming(run, chosen.rate),
        running(contender, run) as process,
        following(stage.bootstrap, run.predictions) as consumer,
    ):
        _await(consumer, 0.0, contender, run, process)
        for kind in chosen.kinds:
            seconds = []
            for number in range(chosen.count):
                # All slots go on for a while before the next one is hurt.
                calm = time.time()
                while time.time() < calm + CALM_SECONDS:
                    consumer.consume(READ_RECORDS, READ_SECONDS)
                _await(consumer, time.time(), contender, run, process)
                feeders = sorted(_feeders(process))
                victim = feeders[number % len(feeders)]
                at = time.time()
                os.kill(victim, HURTS[kind])
                seconds.append(_await(consumer, at, contender, run, process) - at)
                # One that is stopped does not hear that Ray has killed it.
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                print(f"  {kind} {number + 1}: {seconds[-1]:.2f} s", file=sys.stderr, flush=True)
            yield kind, seconds


@contextmanager
def _streaming(run: Run, rate: int) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.steady", "--bootstrap", run.bootstrap]
    command += ["--task", CARDS.name, "--topic", run.events]
    command += ["--first", "0", "--count", str(rate * 7200)]
    command += ["--rate", str(rate), "--times", str(run.scratch / "times.npy")]
    with subprocess.Popen(command) as producing:
        try:
            yield
        finally:
            producing.terminate()


def _feeders(process: subprocess.Popen[bytes]) -> Iterator[int]:
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            title = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if title.startswith(BUSY):
            yield child.pid


def _await(
    consumer: Consumer,
    since: float,
    contender: Contender,
    run: Run,
    process: subprocess.Popen[bytes],
) -> float:
    """When each slot had committed a prediction that was appended after `since`."""
    waiting = set(range(SLOTS))
    deadline = time.monotonic() + LONGEST_SECONDS
    while waiting:
        for message in consumer.consume(READ_RECORDS, READ_SECONDS):
            if message.error() is None and message.timestamp()[1] / 1000 > since:
                waiting.discard(message.partition() % SLOTS)
        if process.poll() is not None or time.monotonic() > deadline:
            raise failure(contender, run, "did not recover")
    return time.time()


if __name__ == "__main__":
    main()
