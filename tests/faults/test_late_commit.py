"""EndTxn lost, delayed and late, by a proxy: what librdkafka does, and what the sink makes of it."""

import contextlib
from collections.abc import Iterator

import pytest
from audit import stable
from confluent_kafka import Consumer, Producer, TopicPartition
from harness import PATIENCE_SECONDS, Stage, until
from proxy import END_TXN, Rule

from jobs.local_broker import create_topics
from pipeline.batch import Outgoing, Partition
from pipeline.control import Assignment, Layout
from pipeline.edges.kafka.clients import asked_again
from pipeline.edges.kafka.offsets import NO_COORDINATOR_YET
from pipeline.edges.kafka.transactional import TransactionalSink
from pipeline.errors import OutcomeUnknown
from pipeline.layout import encode

LAYOUT = Layout(1, 1, 1, "id", True)
INVALID_PRODUCER_EPOCH, PRODUCER_FENCED = 47, 90


class Slot:
    """One slot of a job without a run: an input partition, an output, and sinks that own it."""

    def __init__(self, stage: Stage, prefix: str) -> None:
        self.stage = stage
        self.source, self.output, self.group = f"{prefix}.in", f"{prefix}.out", prefix
        create_topics(stage.direct, {self.source: 1, self.output: 1})
        consumer = Consumer({"bootstrap.servers": stage.direct, "group.id": prefix})
        first = TopicPartition(self.source, 0, 0, metadata=encode(LAYOUT, 0, 0))
        asked_again(
            lambda: consumer.commit(offsets=[first], asynchronous=False),
            lambda error: error.code() in NO_COORDINATOR_YET,
            PATIENCE_SECONDS,
            0.2,
        )
        consumer.close()
        self._sinks: list[TransactionalSink] = []

    def claimed(self) -> TransactionalSink:
        """A sink that has claimed the slot, through the proxy."""
        settings = {"bootstrap.servers": self.stage.proxy.bootstrap}
        sink = TransactionalSink(settings, self.group, f"{self.group}.0000", 1000)
        self._sinks.append(sink)
        sink.claim(Assignment(0, LAYOUT, (Partition(self.source, 0),), 1), lambda _: [])
        return sink

    def write(self, sink: TransactionalSink, value: bytes, position: int) -> None:
        """One commit of one record."""
        records = [Outgoing.of(self.output, 0, [b"k"], [value])]
        sink.write(records, {Partition(self.source, 0): position}, position)

    def visible(self) -> list[bytes]:
        """What a `read_committed` reader sees."""
        return [record.value for record in stable(self.stage.direct, self.output)]

    def position(self) -> int:
        """The committed offset."""
        consumer = Consumer({"bootstrap.servers": self.stage.direct, "group.id": self.group})
        (found,) = consumer.committed([TopicPartition(self.source, 0)], timeout=PATIENCE_SECONDS)
        consumer.close()
        return int(found.offset)

    def close(self) -> None:
        """Close the sinks."""
        for sink in self._sinks:
            sink.close()


@pytest.fixture
def slot(theatre, topic_prefix) -> Iterator[Slot]:
    """Give a slot whose sinks are closed at the end."""
    with contextlib.closing(Slot(theatre, topic_prefix)) as made:
        yield made


def test_librdkafka_alone_lets_a_late_commit_end_the_next_transaction(theatre, topic_prefix):
    """Half of a transaction becomes visible before it is committed: what the sink must prevent."""
    topic = f"{topic_prefix}.out"
    create_topics(theatre.direct, {topic: 1})
    producer = Producer(
        {
            "bootstrap.servers": theatre.proxy.bootstrap,
            "transactional.id": topic_prefix,
            "socket.timeout.ms": 3000,
            "log_level": 0,
        }
    )
    producer.init_transactions(PATIENCE_SECONDS)
    producer.begin_transaction()
    producer.produce(topic, b"first")
    with theatre.proxy.ruling(Rule(END_TXN, "hold")) as late:
        producer.commit_transaction(PATIENCE_SECONDS)
    producer.begin_transaction()
    producer.produce(topic, b"half")
    assert producer.flush(PATIENCE_SECONDS) == 0
    assert theatre.proxy.deliver(late) == 0
    until(
        lambda: [record.value for record in stable(theatre.direct, topic)] == [b"first", b"half"],
        "a reader sees what was never committed",
    )


def test_a_late_commit_finds_nobody(theatre, slot):
    """A sink whose commit took two requests begins no more; its successor's epoch ends the late one."""
    sink = slot.claimed()
    with theatre.proxy.ruling(Rule(END_TXN, "hold")) as late:
        slot.write(sink, b"first", 1)
    with pytest.raises(OutcomeUnknown, match="2 EndTxn requests"):
        slot.write(sink, b"never", 2)
    successor = slot.claimed()
    answers = []

    def delivered_inside() -> Iterator[Outgoing]:
        yield Outgoing.of(slot.output, 0, [b"k"], [b"second"])
        successor._producer.flush(PATIENCE_SECONDS)
        answers.append(theatre.proxy.deliver(late))
        assert slot.visible() == [b"first"]
        yield Outgoing.of(slot.output, 0, [b"k"], [b"third"])

    successor.write(delivered_inside(), {Partition(slot.source, 0): 3}, 3)
    assert answers[0] in {INVALID_PRODUCER_EPOCH, PRODUCER_FENCED}
    assert slot.visible() == [b"first", b"second", b"third"]
    assert slot.position() == 3


@pytest.mark.parametrize(
    "action",
    [
        pytest.param("lose the request", marks=pytest.mark.long),
        pytest.param("lose the answer", marks=pytest.mark.long),
        "delay",
    ],
)
def test_a_commit_whose_request_is_lost_or_delayed_holds_once(theatre, slot, action):
    """It is asked again or waited for; the records are there once, and a successor goes on."""
    sink = slot.claimed()
    with theatre.proxy.ruling(Rule(END_TXN, action, seconds=2.0)):
        slot.write(sink, b"first", 1)
    assert slot.visible() == [b"first"]
    slot.write(slot.claimed(), b"second", 2)
    assert slot.visible() == [b"first", b"second"]
    assert slot.position() == 2


@pytest.mark.long
def test_a_commit_that_never_gets_through_is_left_to_the_successor(theatre, slot):
    """After its deadline the sink says that it does not know; nothing of it is visible."""
    sink = slot.claimed()
    with (
        theatre.proxy.ruling(Rule(END_TXN, "lose the request", times=10)),
        pytest.raises(OutcomeUnknown),
    ):
        slot.write(sink, b"never", 1)
    slot.write(slot.claimed(), b"once", 1)
    assert slot.visible() == [b"once"]
    assert slot.position() == 1
