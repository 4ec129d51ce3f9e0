"""Compare Headrace with a loop without guarantees: `python -m benchmarks.throughput`."""

import argparse
import os
import statistics
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contender import Contender
from benchmarks.latency import Latency, measure_latency
from benchmarks.lineup import contenders
from benchmarks.outcome import WrongOutput
from benchmarks.processes import listener
from benchmarks.recommending import RECOMMENDING
from benchmarks.report import Results, show, write
from benchmarks.task import Task
from benchmarks.trial import ContenderFailed, Measured, Stage, delete_topics, measure
from benchmarks.workload import CARDS, PARTITIONS, fill
from jobs.kafka_jars import BrokerUnavailable
from jobs.local_broker import Broker, broker, create_topics

HERE = Path(__file__).parent
TASKS = {one.name: one for one in (CARDS, RECOMMENDING)}
REPEATS = 3
SHORT_RECORDS = 100_000
# Low enough that nobody queues: what is measured is the way through, not the load.
LATENCY_SHARE = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, 1 where a contender failed or wrote nonsense."""
    chosen = _parsed(arguments)
    if chosen.broker:
        os.environ["KAFKA_BOOTSTRAP_SERVERS"] = chosen.broker
    try:
        with broker("kafka") as started, tempfile.TemporaryDirectory() as folder:
            results = run(chosen, started, Path(folder))
    except (BrokerUnavailable, ContenderFailed, WrongOutput) as problem:
        print(problem, file=sys.stderr)
        return 1
    show(results)
    if chosen.output is not None:
        page = write(results, chosen.output, TASKS[chosen.task].suffix)
        print(f"written: {page}")
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [one.name for one in contenders(CARDS.loop)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--task", choices=list(TASKS), default=CARDS.name, help="what is scored")
    counts = ", ".join(f"{one.records:,} {one.name}" for one in TASKS.values())
    parser.add_argument("--records", type=int, help=f"records in the input ({counts})")
    parser.add_argument("--repeats", type=int, help=f"runs of each contender ({REPEATS})")
    parser.add_argument(
        "--latency-seconds",
        type=float,
        help="how long latency is measured for each contender; 0 leaves it out (20; 0 for tasks "
        f"other than {CARDS.name})",
    )
    parser.add_argument("--broker", help="host:port of a broker; without it one is started")
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=names[1:],
        default=names[1:],
        metavar="NAME",
        help=f"who takes part beside {names[0]}: {', '.join(map(repr, names[1:]))}",
    )
    parser.add_argument(
        "--output", type=Path, help="folder of results.md and results.png (this command's)"
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help=f"{SHORT_RECORDS:,} records, one run, no latency; writes files only with --output: "
        "shows that all works, not how fast",
    )
    chosen = parser.parse_args(arguments)
    short = chosen.short
    defaults = {
        "records": SHORT_RECORDS if short else TASKS[chosen.task].records,
        "repeats": 1 if short else REPEATS,
        "latency_seconds": 0.0 if short or chosen.task != CARDS.name else 20.0,
        "output": None if short else HERE,
    }
    for name, value in defaults.items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    if chosen.latency_seconds and chosen.task != CARDS.name:
        parser.error(f"latency is measured with --task {CARDS.name} alone")
    if chosen.records < 1_000 or chosen.repeats < 1:
        parser.error("--records must be 1000 at least, --repeats 1")
    return chosen


def run(chosen: argparse.Namespace, started: Broker, folder: Path) -> Results:
    """Fill the input once, let everybody score it, then measure latencies.

    Raises ContenderFailed and WrongOutput.
    """
    task = TASKS[chosen.task]
    first, *others = contenders(task.loop)
    field = [first, *(one for one in others if one.name in chosen.contenders)]
    model = task.write_model(folder)
    stage = Stage(
        bootstrap=started.bootstrap,
        broker=_broker_process(started),
        events=f"bench-{uuid.uuid4().hex[:8]}.events",
        records=chosen.records,
        model=model,
        reference=task.reference(model),
    )
    create_topics(stage.bootstrap, {stage.events: PARTITIONS})
    try:
        seconds = _filled(stage, task)
        print(f"{stage.records:,} events produced in {seconds:.1f} s", flush=True)
        runs = _throughput(stage, field, chosen.repeats)
        latencies = _latencies(stage, field, runs, chosen.latency_seconds)
    finally:
        delete_topics(stage.bootstrap, [stage.events])
    return Results(field, runs, latencies, stage.records, _described(started), _command(chosen))


def _filled(stage: Stage, task: Task) -> float:
    return fill(stage.bootstrap, stage.events, stage.records, task.events(stage.records, 0))


def _throughput(stage: Stage, field: list[Contender], repeats: int) -> dict[str, list[Measured]]:
    """Interleaved, so that a machine that slows down slows everybody down."""
    runs: dict[str, list[Measured]] = {one.name: [] for one in field}
    for repetition in range(repeats):
        for contender in field:
            measured = measure(stage, contender)
            runs[contender.name].append(measured)
            print(
                f"{repetition + 1}/{repeats} {contender.name}: {measured.rate:,.0f} records/s, "
                f"{measured.total:.1f} µs",
                flush=True,
            )
    return runs


def _latencies(
    stage: Stage, field: list[Contender], runs: dict[str, list[Measured]], seconds: float
) -> dict[str, Latency]:
    if seconds <= 0:
        return {}
    rate = LATENCY_SHARE * statistics.median(one.rate for one in runs[field[0].name])
    found = {}
    for contender in field:
        found[contender.name] = latency = measure_latency(stage, contender, rate, seconds)
        print(f"{contender.name}: p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms", flush=True)
    return found


def _broker_process(started: Broker) -> int | None:
    """The broker's process, where it runs on this machine and not behind a container's proxy."""
    if started.kind == "container":
        return None
    host, _, port = started.bootstrap.split(",")[0].rpartition(":")
    if started.pid is None and host not in {"127.0.0.1", "localhost"}:
        return None
    return started.pid or listener(int(port))


def _command(chosen: argparse.Namespace) -> str:
    return (
        f"python -m benchmarks.throughput --task {chosen.task} --records {chosen.records} "
        f"--repeats {chosen.repeats} --latency-seconds {chosen.latency_seconds:g}"
    )


def _described(started: Broker) -> str:
    kinds = {
        "external": "one that was running already",
        "kafka": "Apache Kafka, one node, started for these runs",
        "container": "Apache Kafka, one node in a container, started for these runs",
    }
    return kinds.get(started.kind, started.kind)


if __name__ == "__main__":
    sys.exit(main())
