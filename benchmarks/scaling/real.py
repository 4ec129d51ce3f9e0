"""`python -m benchmarks.scaling.real`: a compressed trace through a real broker and a real Ray.

The replicas take a known time without computing (`waiting`), so that a small machine can hold many.
Beside each run stands the simulator's, with the same trace, policy and median cold start. Between
two commits the lag climbs by their interval, and when they fall is chance; so lags are compared as
means over that interval.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer

from benchmarks import waiting
from benchmarks.scaling.peers import keda
from benchmarks.scaling.picture import Column, save
from benchmarks.scaling.simulate import (
    REPLICA_RATE,
    STEP_SECONDS,
    Run,
    Scenario,
    simulate,
)
from benchmarks.scaling.traces import FOLDER, Trace, read
from benchmarks.workload import write_model
from jobs.local_broker import broker, create_topics
from pipeline import scale
from pipeline.main import run_job
from pipeline.scale import Decide
from pipeline.settings import parse
from pipeline.status import Status

LIMIT_SECONDS = 60.0
PARTITIONS = 4
PRODUCE_SECONDS = 0.02
# KEDA's threshold: what a replica scores in ten seconds, the best for most traces.
KEDA = keda(10 * REPLICA_RATE, 60.0)
FIGURES = ("policy", "median lag s", "simulated", "median difference s", "replica-s", "simulated")


@dataclass
class Seen:
    """What a run showed, from the first record on: (seconds, time lag, ready, ordered)."""

    started: float | None = None
    points: list[tuple[float, float, int, int]] = field(default_factory=list)
    ordered_at: dict[int, float] = field(default_factory=dict)
    cold_starts: dict[int, float] = field(default_factory=dict)

    def show(self, status: Status) -> None:
        """Note one status; records begin to come with the first replica that is ready."""
        states = {one.replica: one.state for one in status.replicas if one.isolation_of is None}
        for replica, state in states.items():
            self.ordered_at.setdefault(replica, status.at)
            if state == "ready" and replica not in self.cold_starts:
                self.cold_starts[replica] = status.at - self.ordered_at[replica]
        ready = sum(state == "ready" for state in states.values())
        if self.started is None:
            if ready:
                self.started = status.at
            return
        coming = sum(state == "starting" for state in states.values())
        at = status.at - self.started
        self.points.append((at, status.time_lag, ready, ready + coming))

    def every_second(self, seconds: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Lag and replicas paid for, one value for each second."""
        at, lag, _, paid = zip(*self.points, strict=True)
        grid = np.arange(1, seconds + 1)
        nearest = np.searchsorted(at, grid).clip(0, len(at) - 1)
        return np.array(lag)[nearest], np.array(paid)[nearest]


def compressed(path: Path, seconds: int, peak: int) -> Trace:
    """The whole trace within `seconds`, its highest rate what `peak` replicas can do."""
    rates = read(path).rates
    grid = np.linspace(0, len(rates) - 1, seconds)
    shape = np.interp(grid, np.arange(len(rates)), rates)
    return Trace(path.stem, shape * (peak * REPLICA_RATE / shape.max()))


def run(trace: Trace, peak: int, bootstrap: str, decide: Decide) -> Seen:
    """Send the trace through a job whose replicas wait, scaled by `decide`."""
    name, seen, over = f"scaling-{uuid.uuid4().hex[:8]}", Seen(), threading.Event()
    topics = {f"{name}.{kind}": PARTITIONS for kind in ("events", "predictions", "dead", "journal")}
    create_topics(bootstrap, topics)
    producing = threading.Thread(
        target=_produce, args=(trace, bootstrap, f"{name}.events", seen, over), daemon=True
    )
    with tempfile.TemporaryDirectory(prefix="headrace-scaling-") as folder:
        config = parse(
            {
                "job": name,
                "model": str(write_model(Path(folder))),
                "recipe": f"{waiting.__name__}:{waiting.recipe.__name__}",
                "kafka": {"bootstrap.servers": bootstrap},
                "output": {"parquet": str(Path(folder) / "out")},
                # The simulator has one sequence of commits.
                "slots": 1,
                "replicas": {
                    "min_replicas": 1,
                    "max_replicas": 2 * peak,
                    "max_time_lag": LIMIT_SECONDS,
                },
                "batching": {"max_batch_size": 32},
                "commit": {"interval_ms": 1000 * STEP_SECONDS},
                "metrics": {"port": None},
            },
            Path(folder),
            {},
        )
        producing.start()
        run_job(config, watch=seen.show, stopping=over.is_set, decide=decide)
    return seen


def _produce(trace: Trace, bootstrap: str, topic: str, seen: Seen, over: threading.Event) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    while seen.started is None:
        time.sleep(PRODUCE_SECONDS)
    due = np.concatenate([[0.0], np.cumsum(trace.rates)])
    began, sent = time.monotonic(), 0
    while (now := time.monotonic() - began) < len(trace.rates):
        wanted = int(np.interp(now, np.arange(len(due)), due))
        for number in range(sent, wanted):
            producer.produce(topic, b"{}", partition=number % PARTITIONS)
        sent = wanted
        producer.poll(0)
        time.sleep(PRODUCE_SECONDS)
    producer.flush(30.0)
    over.set()


def compare(trace: Trace, seen: Seen, decide: Decide) -> Run:
    """The simulator's run of the same."""
    cold = statistics.median(seen.cold_starts.values())
    return simulate(trace, Scenario("real", LIMIT_SECONDS, cold), decide, first=1)


def main(arguments: list[str]) -> int:
    """Run each policy, and write `real.md` and `real.png`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling.real", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--peak", type=int, default=20, help="replicas' worth of the peak")
    parser.add_argument("--trace", type=Path, default=FOLDER / "worldcup_match.csv")
    parser.add_argument("--output", type=Path, default=FOLDER.parent)
    options = parser.parse_args(arguments)
    trace = compressed(options.trace, int(60 * options.minutes), options.peak)
    options.output.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python -m benchmarks.scaling.real", *arguments])
    runs: dict[str, tuple[Seen, Run]] = {}
    with broker("kafka") as kafka:
        for name, decide in (("Headrace", scale.decide), ("KEDA + HPA", KEDA)):
            seen = run(trace, options.peak, kafka.bootstrap, decide)
            runs[name] = (seen, compare(trace, seen, decide))
            text = _table(trace, runs)
            (options.output / "real.md").write_text(f"`{command}`\n\n{text}", encoding="utf-8")
            _draw(trace, runs, options.output / "real.png")
            print(text, flush=True)
    return 0


def difference(lag: npt.NDArray[Any], simulated: npt.NDArray[Any]) -> float:
    """The median over time of how far the two are apart, in seconds."""
    apart = np.convolve(lag - simulated, np.full(STEP_SECONDS, 1 / STEP_SECONDS), "valid")
    return float(np.median(np.abs(apart)))


def _table(trace: Trace, runs: dict[str, tuple[Seen, Run]]) -> str:
    lines = [f"| {' | '.join(FIGURES)} |", "| --- " * len(FIGURES) + "|"]
    for name, (seen, simulated) in runs.items():
        lag, paid = seen.every_second(len(trace.rates))
        figures = (
            float(np.median(lag)),
            float(np.median(simulated.lag)),
            difference(lag, simulated.lag),
            float(paid.sum()),
            simulated.replica_seconds,
        )
        lines.append(f"| {name} | {' | '.join(f'{figure:,.1f}' for figure in figures)} |")
    return "\n".join(lines) + "\n"


def _draw(trace: Trace, runs: dict[str, tuple[Seen, Run]], path: Path) -> None:
    columns = []
    for name, (seen, simulated) in runs.items():
        lag, paid = seen.every_second(len(trace.rates))
        curves = {"real": (paid, lag), "simulated": (simulated.paid, simulated.lag)}
        columns.append(Column(name, trace.rates, curves))
    save(columns, LIMIT_SECONDS, path)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
