"""What the fault tests stand on: a broker behind a proxy, a run to hurt, a stream that goes on."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import runs
import small_job
from confluent_kafka import KafkaError, Message, Producer
from proxy import Proxy
from steps import Step

from jobs.broker_process import free_ports
from jobs.local_broker import Behind, Broker, apache_kafka, create_topics
from pipeline.config import Config
from pipeline.edges.kafka.admin import KafkaAdmin
from pipeline.errors import ClusterUnfit, Retriable

HERE = Path(__file__).resolve().parent
PATIENCE_SECONDS = 150.0
# Many a look asks the broker or walks the processes, on the cores that the run needs.
LOOK_SECONDS = 0.1
PARTITIONS = 4
SLOTS = 2
TOKEN = uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Stage:
    """A broker and a Ray of our own.

    Jobs come through the proxy, readers and the stream do not. The processes of a job come to the
    steps of `marks`. `ray` is the address of the cluster, `head` its first process.
    """

    broker: Broker
    proxy: Proxy
    marks: "Marks"
    ray: str
    head: int

    @property
    def direct(self) -> str:
        """The broker's own address."""
        return self.broker.bootstrap


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Start the broker, the proxy before it, and Ray; `folder` is where faults are ordered."""
    port, advertised = free_ports(2)
    proxy, marks = Proxy(advertised, port), Marks(folder)
    with apache_kafka(Behind(port, advertised)) as broker, _cluster(marks) as (ray, head):
        proxy.start()
        try:
            yield Stage(broker, proxy, marks, ray, head)
        finally:
            proxy.stop()


@contextmanager
def _cluster(marks: "Marks") -> Iterator[tuple[str, int]]:
    with subprocess.Popen(
        [sys.executable, str(HERE / "cluster.py")],
        env=environment(marks),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for the condition; fails with what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(LOOK_SECONDS)


def make_job(stage: Stage, folder: Path, job: str, **settings) -> Path:
    """Topics and config of a job whose batches, commits and files are small."""
    create_topics(
        stage.direct,
        {
            f"{job}.events": PARTITIONS,
            f"{job}.predictions": PARTITIONS,
            f"{job}.dead": 1,
            f"{job}.journal": PARTITIONS,
        },
    )
    small = {
        "slots": SLOTS,
        "replicas": {"count": 2, "cpus": 0.5},
        "batching": {"max_batch_size": 64},
        "commit": {"interval_ms": 100, "max_rows": 512},
        "roll": {"interval_seconds": 1.5},
    }
    return small_job.make(folder, job, stage.proxy.bootstrap, **(small | settings))


class Marks:
    """The folder through which faults are ordered; see `injection`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("armed", "taken", "fired"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def arm(self, step: Step, number: int | None = signal.SIGKILL, seconds: float = 0.0) -> None:
        """Order a signal at the step, or, with None, a sleep of `seconds`."""
        (self.folder / "fired" / step.slug).unlink(missing_ok=True)
        order = self.folder / step.slug
        order.write_text(json.dumps({"signal": number, "seconds": seconds}))
        order.rename(self.folder / "armed" / step.slug)

    def disarm(self, step: Step) -> None:
        """Take back an order that nobody came to."""
        (self.folder / "armed" / step.slug).unlink(missing_ok=True)

    def fired(self, step: Step) -> int | None:
        """The process that came to the step, None while none did."""
        mark = self.folder / "fired" / step.slug
        return int(json.loads(mark.read_text())["pid"]) if mark.exists() else None


def environment(marks: Marks) -> dict[str, str]:
    """What a process is started with that comes to the steps, and whose children do."""
    kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    path = [str(HERE / "at_start"), str(HERE.parent / "system"), *filter(None, sys.path)]
    kept["PYTHONPATH"] = os.pathsep.join(path)
    kept["PYTHONFAULTHANDLER"] = "1"
    kept["HEADRACE_FAULTS"] = str(marks.folder)
    # Else Ray keeps one in the user's folder, where the next cluster to start replaces it.
    kept |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    return kept


class Run:
    """`headrace run` as a user starts it; started again by the test when it was killed."""

    def __init__(self, stage: Stage, config: Path, log: Path) -> None:
        self._command = [sys.executable, "-m", "pipeline.cli", "run", str(config)]
        self._command += ["--address", stage.ray]
        self._environment = environment(stage.marks)
        self._head = stage.head
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str) -> None:
        """Start it, in the background."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *flags],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The driver's process."""
        assert self._process is not None
        return self._process

    def check(self) -> None:
        """Fail where it has ended by itself."""
        assert self.process.poll() is None, f"the run ended: {self.said()}"

    def said(self, lines: int = 25) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def actors(self, role: str) -> list[int]:
        """Process ids of its actors of one role, and of those that a killed driver has just left."""
        return runs.actors(self._head, role)

    def wait(self, expected: int = 0) -> None:
        """Wait for its end."""
        assert self.process.wait(PATIENCE_SECONDS) == expected, self.said()

    def stop(self) -> None:
        """Have it drain, and wait."""
        self.process.send_signal(signal.SIGTERM)
        self.wait()

    def kill(self) -> None:
        """End it at once, if it lives."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextmanager
def run_of(stage: Stage, config: Path, folder: Path) -> Iterator[Run]:
    """A run that is ended at the latest here."""
    run = Run(stage, config, folder / f"{config.stem}.log")
    run.start()
    try:
        yield run
    finally:
        run.kill()


class Stream:
    """A producer in a thread: an even stream of good records with a bad one now and then.

    `rate` is in records a second, `padding` in bytes. The features of record n are n, 1 and 1, so
    that no two predictions are alike. What the client gives up, as it has no way back to a broker
    that was restarted, is produced again.
    """

    def __init__(
        self, bootstrap: str, topic: str, rate: float, last: int | None = None, padding: int = 0
    ) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "log_level": 0,
                "message.timeout.ms": 40_000,
            }
        )
        self._topic = topic
        self._rate = rate
        self._last = last
        self._good = b'{"features": [%d, 1, 1], "x": "' + b"x" * padding + b'"}'
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._produce, daemon=True)

    def start(self) -> None:
        """Begin to produce."""
        self._thread.start()

    def _produce(self) -> None:
        began = time.monotonic()
        numbers = itertools.count() if self._last is None else iter(range(self._last))
        for number in numbers:
            value = self._good % number if number % 97 else b'{"features": ['
            while True:
                try:
                    self._put(value, b"k%d" % (number % 50), number % PARTITIONS)
                except BufferError:
                    self._producer.poll(0.05)
                else:
                    break
            self._producer.poll(0)
            if self._ending.wait(max(0.0, began + number / self._rate - time.monotonic())):
                return

    def _put(self, value: bytes, key: bytes, partition: int) -> None:
        self._producer.produce(self._topic, value, key, partition, on_delivery=self._delivered)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._put(message.value(), message.key(), message.partition())

    @property
    def done(self) -> bool:
        """Whether it has produced all it was to."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Stop producing; returns once the broker has it all."""
        self._ending.set()
        self._thread.join(PATIENCE_SECONDS)
        assert self._producer.flush(PATIENCE_SECONDS) == 0


def feed(stage: Stage, topic: str, count: int, padding: int = 0) -> None:
    """Produce this many records as fast as they go; returns once the broker has them."""
    stream = Stream(stage.direct, topic, float("inf"), count, padding)
    stream.start()
    until(lambda: stream.done, "all is produced")
    stream.stop()


def committed(stage: Stage, config: Config) -> int:
    """The sum of the job's committed offsets, 0 while the broker does not tell."""
    admin = KafkaAdmin({"bootstrap.servers": stage.direct})
    try:
        found = admin.committed(config.group, config.input.topic)
    except (Retriable, ClusterUnfit):
        return 0
    return sum(item.offset for item in found.values())
