"""The demo from its first record to its last word, for any workload."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
from confluent_kafka import KafkaException

from jobs.demo import figures, picture, readers, summary
from jobs.demo.feed import Feed
from jobs.demo.figures import Figures
from jobs.demo.screen import Screen, console_beside
from jobs.demo.workload import ROOT, DemoFailed, Workload
from jobs.kafka_jars import BrokerUnavailable
from jobs.local_broker import Broker, Prefer, broker
from pipeline import document
from pipeline.check import carries_exactly_once
from pipeline.config import Config
from pipeline.errors import ConfigInvalid, HeadraceError
from pipeline.main import run_job
from pipeline.settings import parse
from pipeline.status import Status
from pipeline.topics import create_topics
from pipeline.topology import names

PARTITIONS = 4
# The share of the records that waits when the job starts.
BURST = 0.6
# Small batches, so that the throughput of a burst of a second is measured finely.
BATCH_ROWS = 2000
# Far longer than the run takes: it ends with an error instead of never.
RUN_SECONDS = 300.0
FAILURES = (DemoFailed, BrokerUnavailable, HeadraceError, KafkaException)
BROKERS = {
    "tansu": "Tansu, embedded: one binary that keeps all in memory",
    "kafka": "Apache Kafka, started here from its jars",
    "container": "Apache Kafka, started here in a container",
    "external": "yours, from KAFKA_BOOTSTRAP_SERVERS",
}


def tell(workload: Workload, prefer: Prefer, output: Path, records: int, rate: float) -> None:
    """Run the demo with the first `records` events, the last of them at `rate` a second.

    Parquet, picture and log go to `output`, under a name that no other run has.
    Raises DemoFailed, BrokerUnavailable, HeadraceError and KafkaException.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise DemoFailed(
            f"--output = {output}: cannot be made ({problem.strerror}), name another folder"
        ) from problem
    job = f"{workload.name}-{uuid.uuid4().hex[:6]}"
    made = {"Parquet": output / job, "picture": output / f"{job}.png", "log": output / f"{job}.log"}
    with _naming(made["log"]), console_beside(made["log"]) as console:
        screen = Screen(console, records + len(workload.broken()))
        summary.header(console, workload)
        with _starting(screen, prefer) as found:
            config = _delivering(configured(workload, found.bootstrap, job, output), screen)
            with _topics(config, found, screen):
                measured = _run(workload, config, screen, records, rate)
        summary.results(console, measured, rate)
        verdict = workload.judge(_rows(made["Parquet"]))
        summary.quality(console, verdict)
        title = f"headrace demo: {workload.title}, {records:,} records"
        picture.draw(made["picture"], title, measured.lag, measured.throughput, verdict)
        summary.reading(console, workload, summary.shown(made["Parquet"]))
        summary.places(console, made, screen.seconds())


@contextmanager
def _naming(log: Path) -> Iterator[None]:
    try:
        yield
    except FAILURES as problem:
        problem.add_note(f"The run's log is {summary.shown(log)}")
        raise


@contextmanager
def _starting(screen: Screen, prefer: Prefer) -> Iterator[Broker]:
    with broker(prefer) as found:
        screen.done(f"broker at {found.bootstrap}: {BROKERS[found.kind]}")
        yield found


def configured(workload: Workload, bootstrap: str, job: str, output: Path) -> Config:
    """The workload's config with a job's name of its own, so that runs do not meet."""
    path = workload.config
    content, mistakes = document.read(path.read_text(encoding="utf-8"), str(path))
    if mistakes:
        raise ConfigInvalid(mistakes)
    content["job"] = job
    content["kafka"] = {**content["kafka"], "bootstrap.servers": bootstrap}
    # Topics follow from the job's name where they are left out.
    content["input"] = {k: v for k, v in content["input"].items() if k != "topic"}
    content["output"] = {"parquet": str(output)}
    content["batching"] = {"max_batch_size": BATCH_ROWS}
    content["metrics"] = {"port": None}
    return parse(content | workload.settings, ROOT, {})


def _delivering(config: Config, screen: Screen) -> Config:
    """The config with the delivery that the broker carries."""
    mistake = carries_exactly_once(config)
    if mistake is None:
        screen.done("delivery exactly once: predictions and offsets are committed together")
        return config
    screen.done(
        "delivery at least once: this broker lacks Kafka's transactions; BROKER=kafka has them"
    )
    return replace(config, delivery="at_least_once")


@contextmanager
def _topics(config: Config, found: Broker, screen: Screen) -> Iterator[None]:
    """Make the job's topics; on a broker that is not ours delete them at the end."""
    from pipeline.edges.kafka.admin import KafkaAdmin

    for _ in create_topics(config, PARTITIONS):
        pass
    screen.done(f"topics {config.job}.events, .predictions, .dead and .journal")
    try:
        yield
    finally:
        if found.kind == "external":
            admin = KafkaAdmin(config.kafka)
            for topic in names(config).values():
                admin.delete(topic)


def _run(workload: Workload, config: Config, screen: Screen, records: int, rate: float) -> Figures:
    """Produce, score, and count what came out."""
    burst = int(records * BURST)
    feed = Feed(workload, config.kafka, config.input.topic, records=records, burst=burst, rate=rate)
    feed.fill()
    screen.done(f"{burst:,} records produced, which wait for the job")
    stage = _Stage(feed, screen)
    try:
        with readers.reading(config.kafka, config.output.topic, PARTITIONS) as predictions:
            with screen.running("Ray and the replicas start"):
                run_job(config, watch=stage.watch, stopping=stage.stopping)
            arrivals = predictions.finish(records)
    finally:
        feed.stop()
    if feed.failure is not None:
        raise feed.failure
    screen.done(f"{feed.produced:,} records scored and archived, the run drained and ended")
    broken = workload.broken()
    return figures.measure(
        _rows(config.output.parquet / config.job),
        arrivals,
        readers.dead_letters(config.kafka, config.dead_letters.topic, len(broken)),
        broken,
        records=records,
        steady_since=feed.steady_since or 0.0,
    )


class _Stage:
    """Follows the run's statuses: when the steady stream may begin, and when all is done."""

    def __init__(self, feed: Feed, screen: Screen) -> None:
        self._feed = feed
        self._screen = screen
        self._status: Status | None = None
        self._deadline = time.monotonic() + RUN_SECONDS

    def watch(self, status: Status) -> None:
        """Take a status in; called by the driver."""
        self._status = status
        if status.records_in >= self._feed.burst:
            self._feed.go()
        self._screen.show(status, self._feed.produced, self._phase(status))

    def stopping(self) -> bool:
        """Whether the run may drain: all is produced and scored, or never will be."""
        status, feed = self._status, self._feed
        if time.monotonic() > self._deadline:
            raise DemoFailed(f"the run was not through after {RUN_SECONDS:.0f} s")
        if not feed.done or status is None:
            return False
        scored = status.lag == 0 and status.records_in >= feed.expected
        return scored or feed.failure is not None

    def _phase(self, status: Status) -> str:
        if status.state in {"draining", "archiving"}:
            return "the run drains, the last Parquet files are written"
        if self._feed.done:
            return "the last records are scored"
        if status.records_in >= self._feed.burst:
            return f"caught up: a steady stream of {self._feed.rate:,.0f} records/s"
        if status.records_in:
            return f"catching up with {self._feed.burst:,} waiting records"
        return "Ray and the replicas start"


def _rows(folder: Path) -> pa.Table:
    return ds.dataset(folder).to_table()
