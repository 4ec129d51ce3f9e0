"""A comparison as a command: a lineup scores one input in turns, and the figures become a page."""

import argparse
import os
import statistics
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TypeAlias, TypeVar

from confluent_kafka import KafkaException

from benchmarks.contender import Contender
from benchmarks.latency import Latency, measure_latency, warm_broker
from benchmarks.outcome import WrongOutput
from benchmarks.peers.environment import PeerUnavailable
from benchmarks.processes import listener
from benchmarks.report import Results, show, write
from benchmarks.task import Task
from benchmarks.tasks import TASKS
from benchmarks.trial import ContenderFailed, Measured, Stage, delete_topics, measure
from benchmarks.workload import PARTITIONS, fill
from jobs.kafka_jars import BrokerUnavailable
from jobs.local_broker import Broker, broker, create_topics

# Low enough that nobody queues: what is measured is the way through, not the load.
LATENCY_SHARE = 0.1
# What ends one contender's run; the next one has a fresh start.
FAILURES = (ContenderFailed, WrongOutput, TimeoutError, TimeoutExpired, KafkaException)

Lineup: TypeAlias = Mapping[str, Callable[[], Contender]]
"""Contenders by name, the one that the others are compared with first. They are made when they are
about to take part, as some must be installed before; such a one may raise PeerUnavailable."""

_Figure = TypeVar("_Figure")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a command compares: `lineups` by task, the first task where none is named.

    `short_records` are scored with `--short`; pages are written into `folder`.
    """

    module: str
    about: str
    lineups: Mapping[str, Lineup]
    folder: Path
    repeats: int
    short_records: int


def main(comparison: Comparison, arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, 1 where a contender failed or wrote nonsense."""
    chosen = _parsed(comparison, arguments)
    if chosen.broker:
        os.environ["KAFKA_BOOTSTRAP_SERVERS"] = chosen.broker
    try:
        field = _field(comparison.lineups[chosen.task], chosen.contenders)
        with broker("kafka") as started, tempfile.TemporaryDirectory() as folder:
            results = _run(comparison, chosen, field, started, Path(folder))
    except (BrokerUnavailable, PeerUnavailable) as problem:
        print(problem, file=sys.stderr)
        return 1
    show(results)
    return 1 if results.failed else 0


def _parsed(comparison: Comparison, arguments: Sequence[str] | None) -> argparse.Namespace:
    tasks = [TASKS[name] for name in comparison.lineups]
    parser = argparse.ArgumentParser(
        prog=f"python -m {comparison.module}", description=comparison.about
    )
    parser.add_argument(
        "--task", choices=list(comparison.lineups), default=tasks[0].name, help="what is scored"
    )
    counts = ", ".join(f"{one.records:,} {one.name}" for one in tasks)
    parser.add_argument("--records", type=int, help=f"records in the input ({counts})")
    parser.add_argument("--repeats", type=int, help=f"runs of each ({comparison.repeats})")
    seconds = ", ".join(f"{one.latency_seconds:g} {one.name}" for one in tasks)
    parser.add_argument(
        "--latency-seconds",
        type=float,
        help=f"how long latency is measured for each contender; 0 leaves it out ({seconds})",
    )
    parser.add_argument("--broker", help="host:port of a broker; without it one is started")
    parser.add_argument(
        "--contenders",
        nargs="+",
        metavar="NAME",
        help="who takes part beside the first of the task's: "
        + "; ".join(
            f"{name}: {', '.join(map(repr, lineup))}" for name, lineup in comparison.lineups.items()
        ),
    )
    parser.add_argument(
        "--output", type=Path, help=f"folder of the page and its picture ({comparison.folder.name})"
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help=f"{comparison.short_records:,} records, one run, no latency; writes files only with "
        "--output: shows that all works, not how fast",
    )
    chosen = parser.parse_args(arguments)
    task = TASKS[chosen.task]
    short = chosen.short
    defaults = {
        "records": comparison.short_records if short else task.records,
        "repeats": 1 if short else comparison.repeats,
        "latency_seconds": 0.0 if short else task.latency_seconds,
        "output": None if short else comparison.folder,
        "contenders": list(comparison.lineups[task.name]),
    }
    for name, value in defaults.items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    if chosen.records < 1_000 or chosen.repeats < 1:
        parser.error("--records must be 1000 at least, --repeats 1")
    for name in chosen.contenders:
        if name not in comparison.lineups[task.name]:
            known = ", ".join(map(repr, comparison.lineups[task.name]))
            parser.error(f"--contenders: {name!r} is none of {known}")
    return chosen


def _field(lineup: Lineup, names: Sequence[str]) -> list[Contender]:
    """The first of a lineup and those named, but for whom this machine cannot have.

    Raises PeerUnavailable where that is the first.
    """
    field = []
    for place, (name, make) in enumerate(lineup.items()):
        if place and name not in names:
            continue
        try:
            field.append(make())
        except PeerUnavailable as reason:
            if not place:
                raise
            print(f"{name} is left out: {reason}", flush=True)
    return field


def _run(
    comparison: Comparison,
    chosen: argparse.Namespace,
    field: list[Contender],
    started: Broker,
    folder: Path,
) -> Results:
    """Fill the input once, let everybody score it, then measure latencies.

    Each round of runs, and the latencies, are written as soon as they are there.
    """
    runs: dict[str, dict[int, Measured]] = {one.name: {} for one in field}
    latencies: dict[str, Latency] = {}
    failed: dict[str, str] = {}
    results = Results(
        field, runs, latencies, failed, chosen.records, _described(started),
        _command(comparison, chosen),
    )  # fmt: skip
    with _filled(started, TASKS[chosen.task], chosen.records, folder) as stage:
        for repetition in range(chosen.repeats):
            for contender in field:
                measured = _attempted(partial(measure, stage, contender), contender, failed)
                if measured is not None:
                    runs[contender.name][repetition] = measured
                    print(
                        f"{repetition + 1}/{chosen.repeats} {contender.name}: "
                        f"{measured.rate:,.0f} records/s, {measured.total:.1f} µs",
                        flush=True,
                    )
            _write(results, chosen)
        base = runs[field[0].name].values()
        if chosen.latency_seconds > 0 and base:
            rate = LATENCY_SHARE * statistics.median(one.rate for one in base)
            warm_broker(stage, rate)
            for contender in field:
                take = partial(measure_latency, stage, contender, rate, chosen.latency_seconds)
                seen = _attempted(take, contender, failed)
                if seen is not None:
                    latencies[contender.name] = seen
                    print(
                        f"{contender.name}: p50 {seen.p50:.1f} ms, p99 {seen.p99:.1f} ms",
                        flush=True,
                    )
            _write(results, chosen)
    return results


def _attempted(
    take: Callable[[], _Figure], contender: Contender, failed: dict[str, str]
) -> _Figure | None:
    """A figure, or None where the contender failed, which does not end the others' runs."""
    try:
        return take()
    except FAILURES as problem:
        print(f"{contender.name} failed: {problem}", file=sys.stderr, flush=True)
        failed[contender.name] = str(problem)
        return None


def _write(results: Results, chosen: argparse.Namespace) -> None:
    if chosen.output is not None:
        page = write(results, chosen.output, TASKS[chosen.task].suffix)
        print(f"written: {page}", flush=True)


@contextmanager
def _filled(started: Broker, task: Task, records: int, folder: Path) -> Iterator[Stage]:
    """An input topic with all records, which is gone afterwards."""
    model = task.write_model(folder)
    stage = Stage(
        task=task,
        bootstrap=started.bootstrap,
        broker=_broker_process(started),
        events=f"bench-{uuid.uuid4().hex[:8]}.events",
        records=records,
        model=model,
        reference=task.reference(model),
    )
    create_topics(stage.bootstrap, {stage.events: PARTITIONS})
    try:
        seconds = fill(stage.bootstrap, stage.events, records, task.events(records, 0))
        print(f"{records:,} events produced in {seconds:.1f} s", flush=True)
        yield stage
    finally:
        delete_topics(stage.bootstrap, [stage.events])


def _broker_process(started: Broker) -> int | None:
    """The broker's process, where it runs on this machine and not behind a container's proxy."""
    if started.kind == "container":
        return None
    host, _, port = started.bootstrap.split(",")[0].rpartition(":")
    if started.pid is None and host not in {"127.0.0.1", "localhost"}:
        return None
    return started.pid or listener(int(port))


def _command(comparison: Comparison, chosen: argparse.Namespace) -> str:
    return (
        f"python -m {comparison.module} --task {chosen.task} --records {chosen.records} "
        f"--repeats {chosen.repeats} --latency-seconds {chosen.latency_seconds:g}"
    )


def _described(started: Broker) -> str:
    kinds = {
        "external": "one that was running already",
        "kafka": "Apache Kafka, one node, started for these runs",
        "container": "Apache Kafka, one node in a container, started for these runs",
    }
    return kinds.get(started.kind, started.kind)
