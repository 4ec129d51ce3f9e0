"""What every transactional sink promises, asked of the double and of Apache Kafka alike.

What Kafka holds is read by kafka-python: a writer is not checked with its own library.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import pytest
from confluent_kafka import KafkaError, KafkaException

from jobs.local_broker import Broker, create_topics
from pipeline.batch import Outgoing, Partition
from pipeline.control import Assignment, Layout
from pipeline.edges.kafka.idempotent import IdempotentSink, KafkaAhead
from pipeline.edges.kafka.producing import COMPILED, CompiledProducer, Open, PythonProducer
from pipeline.edges.kafka.transactional import TransactionalSink
from pipeline.errors import ClusterUnfit, Fenced, HeadraceError, OutcomeUnknown
from pipeline.layout import Stored, decode, encode
from pipeline.ports import Ahead, Claimed, Sink
from pipeline.testing import MemoryAhead, MemoryIdempotentSink, MemoryLog, MemorySink

LAYOUT = Layout(generation=1, slots=1, partitions=2, topic_id="id", ordered=True)
PATIENCE_SECONDS = 20.0
# kafka-python reads its own schemas with a function that Python 3.11 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:(read_text|open_text|contents) is deprecated")


class World(Protocol):
    """Topics `input`, `output` of two partitions each, and the offsets of one group."""

    input: str
    output: str
    group: str

    def sink(self) -> Sink: ...

    def idempotent(self) -> Sink: ...

    def ahead(self) -> Ahead: ...

    def commit(self, offsets: Mapping[Partition, Stored]) -> None: ...

    def committed(self) -> dict[Partition, Stored]: ...

    def values(self, number: int) -> list[bytes | None]: ...

    def grow(self, partitions: int) -> None: ...

    def leave_open(self, offset: int) -> None: ...


class MemoryWorld:
    input, output, group = "in", "out", "job"

    def __init__(self) -> None:
        self.log = MemoryLog(time.time)
        self.log.create(self.input, 2)
        self.log.create(self.output, 2)

    def sink(self) -> Sink:
        return MemorySink(self.log, self.group, "job.0000")

    def idempotent(self) -> Sink:
        return MemoryIdempotentSink(self.log, self.group)

    def ahead(self) -> Ahead:
        return MemoryAhead(self.log)

    def commit(self, offsets: Mapping[Partition, Stored]) -> None:
        self.log.commit_offsets(self.group, offsets)

    def committed(self) -> dict[Partition, Stored]:
        return self.log.committed(self.group, [Partition(self.input, n) for n in range(4)])

    def values(self, number: int) -> list[bytes | None]:
        return [record.value for record in self.log.records(self.output, number)]

    def grow(self, partitions: int) -> None:
        self.log.create(self.input, partitions)

    def leave_open(self, offset: int) -> None:
        transaction = self.log.begin("job.0000", self.log.init("job.0000"))
        place = Partition(self.output, 0)
        self.log.append(place, b"k", b"half", transaction=transaction)
        first = Partition(self.input, 0)
        self.log.send_offsets(transaction, self.group, {first: Stored(offset, "")})


class KafkaWorld:
    def __init__(self, bootstrap: str, prefix: str, producer: Open) -> None:
        self.producer = producer
        self.input, self.output, self.group = f"{prefix}.in", f"{prefix}.out", prefix
        self.bootstrap = bootstrap
        self.settings = {"bootstrap.servers": bootstrap}
        create_topics(bootstrap, {self.input: 2, self.output: 2})

    def sink(self) -> Sink:
        name = f"{self.group}.0000"
        return TransactionalSink(self.settings, self.group, name, 1000, open_producer=self.producer)

    def idempotent(self) -> Sink:
        return IdempotentSink(self.settings, self.group, 1000, open_producer=self.producer)

    def ahead(self) -> Ahead:
        return KafkaAhead(self.settings, 1000, open_producer=self.producer)

    def commit(self, offsets: Mapping[Partition, Stored]) -> None:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({**self.settings, "group.id": self.group})
        listed = [
            TopicPartition(p.topic, p.number, item.offset, metadata=item.metadata)
            for p, item in offsets.items()
        ]
        consumer.commit(offsets=listed, asynchronous=False)
        consumer.close()

    def committed(self) -> dict[Partition, Stored]:
        from kafka import KafkaAdminClient

        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.bootstrap)) as admin:
            found = admin.list_group_offsets(self.group)[self.group]
        # confluent-kafka commits the zero byte that ends a C string along with the metadata, and
        # reads beyond metadata that have none.
        assert all(item.metadata.endswith("\0") for item in found.values() if item.metadata)
        return {
            Partition(tp.topic, tp.partition): Stored(item.offset, item.metadata.rstrip("\0"))
            for tp, item in found.items()
            if item.offset >= 0
        }

    def values(self, number: int) -> list[bytes | None]:
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        place = TopicPartition(self.output, number)
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        end = self._settled_end(consumer, place)
        found: list[bytes | None] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while consumer.position(place) < end:
            assert time.monotonic() < deadline
            for records in consumer.poll(timeout_ms=100).values():
                found += [record.value for record in records]
        consumer.close()
        return found

    def _settled_end(self, consumer: Any, place: Any) -> int:
        """The end once no transaction is open: markers follow a commit a little later."""
        from kafka import KafkaConsumer

        deadline = time.monotonic() + PATIENCE_SECONDS
        with contextlib.closing(KafkaConsumer(bootstrap_servers=self.bootstrap)) as reader:
            while (end := consumer.end_offsets([place])[place]) < reader.end_offsets([place])[
                place
            ]:
                assert time.monotonic() < deadline
            return int(end)

    def grow(self, partitions: int) -> None:
        from confluent_kafka.admin import AdminClient, NewPartitions

        admin = AdminClient(self.settings)
        for future in admin.create_partitions([NewPartitions(self.input, partitions)]).values():
            future.result(PATIENCE_SECONDS)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            seen = admin.list_topics(self.input, timeout=5).topics[self.input].partitions
            if len(seen) == partitions and all(one.leader >= 0 for one in seen.values()):
                return
            assert time.monotonic() < deadline

    def leave_open(self, offset: int) -> None:
        from confluent_kafka import Consumer, Producer, TopicPartition

        producer = Producer({**self.settings, "transactional.id": f"{self.group}.0000"})
        producer.init_transactions(PATIENCE_SECONDS)
        producer.begin_transaction()
        producer.produce(self.output, b"half", b"k", 0)
        consumer = Consumer({**self.settings, "group.id": self.group})
        producer.send_offsets_to_transaction(
            [TopicPartition(self.input, 0, offset)],
            consumer.consumer_group_metadata(),
            PATIENCE_SECONDS,
        )
        assert producer.flush(PATIENCE_SECONDS) == 0
        consumer.close()
        self.dead = producer  # kept, as a process that hangs would keep it


@pytest.fixture(params=["memory", "kafka", "kafka, compiled"])
def world(request: pytest.FixtureRequest) -> World:
    """Give the double's world, then one on Apache Kafka, written by each of its producers."""
    if request.param == "memory":
        return MemoryWorld()
    broker: Broker = request.getfixturevalue("kafka")
    compiled = request.param == "kafka, compiled"
    if compiled and not COMPILED:
        pytest.skip("_produce.cpp was not built: `pip install` found no C++17 compiler")
    producer: Open = CompiledProducer if compiled else PythonProducer
    return KafkaWorld(broker.bootstrap, request.getfixturevalue("topic_prefix"), producer)


@pytest.fixture
def sinks() -> Iterator[list[Sink]]:
    """Give a list whose sinks are closed at the end."""
    made: list[Sink] = []
    yield made
    for sink in made:
        sink.close()


def start(world: World, offset: int = 0) -> None:
    """What the first start of a job commits."""
    first = Stored(offset, encode(LAYOUT, 0, 0))
    world.commit({Partition(world.input, n): first for n in range(2)})


def assignment(world: World, layout: Layout = LAYOUT, partitions: int = 2) -> Assignment:
    return Assignment(0, layout, layout.owned(world.input, 0, partitions), partitions)


def out(world: World, *values: bytes, number: int | None = 0) -> Outgoing:
    return Outgoing.of(world.output, number, [b"k"] * len(values), list(values))


def claimed(world: World, sinks: list[Sink]) -> tuple[Sink, Claimed]:
    sink = world.sink()
    sinks.append(sink)
    return sink, sink.claim(assignment(world), lambda _: [])


def idempotent(world: World, sinks: list[Sink]) -> tuple[Sink, Claimed]:
    sink = world.idempotent()
    sinks.append(sink)
    return sink, sink.claim(assignment(world), lambda _: [])


def at(world: World, *offsets: int) -> dict[Partition, int]:
    return {Partition(world.input, n): offset for n, offset in enumerate(offsets)}


def positions(world: World) -> list[int]:
    return [item.offset for _, item in sorted(world.committed().items())]


def epochs(world: World) -> set[tuple[int, int]]:
    found = [decode(p, item, world.group) for p, item in world.committed().items()]
    return {(one.epoch, one.seq) for one in found}


def test_a_claim_commits_the_same_positions_one_epoch_later(
    world: World, sinks: list[Sink]
) -> None:
    """What it found is what it gives, and its opening records stand in the same step."""
    start(world, 5)
    sink = world.sink()
    sinks.append(sink)
    seen: list[Claimed] = []

    def opening(found: Claimed) -> Sequence[Outgoing]:
        seen.append(found)
        return [out(world, b"opening")]

    found = sink.claim(assignment(world), opening)
    assert found == Claimed(at(world, 5, 5), 1)
    assert seen == [found]
    assert world.values(0) == [b"opening"]
    assert (positions(world), epochs(world)) == ([5, 5], {(1, 0)})
    _, second = claimed(world, sinks)
    assert second.epoch == 2


def test_a_write_is_visible_with_its_offsets(world: World, sinks: list[Sink]) -> None:
    """Records, positions and metadata hold once it returns, in order by partition."""
    start(world)
    sink, _ = claimed(world, sinks)
    for sequence in (1, 2, 3):
        records = [out(world, b"a%d" % sequence, b"b%d" % sequence), out(world, b"c", number=1)]
        sink.write(records, at(world, 2 * sequence, sequence), sequence)
    assert world.values(0) == [b"a1", b"b1", b"a2", b"b2", b"a3", b"b3"]
    assert world.values(1) == [b"c"] * 3
    assert (positions(world), epochs(world)) == ([6, 3], {(1, 3)})


def test_one_key_always_has_one_partition(world: World, sinks: list[Sink]) -> None:
    """Without a partition the key chooses, so that order by key holds."""
    start(world)
    sink, _ = claimed(world, sinks)
    sink.write([out(world, b"1", b"2", b"3", number=None)], at(world, 3, 0), 1)
    assert sorted([world.values(0), world.values(1)]) == [[], [b"1", b"2", b"3"]]


def test_an_older_owner_is_fenced_and_leaves_no_trace(world: World, sinks: list[Sink]) -> None:
    """After a claim its write raises Fenced; no reader sees a record, and offsets stand."""
    start(world)
    older, _ = claimed(world, sinks)
    older.write([out(world, b"before")], at(world, 1, 0), 1)
    newer, found = claimed(world, sinks)
    assert found.positions == at(world, 1, 0)
    with pytest.raises(Fenced):
        older.write([out(world, b"zombie")], at(world, 9, 9), 2)
    newer.write([out(world, b"after")], at(world, 2, 0), 1)
    assert world.values(0) == [b"before", b"after"]
    assert (positions(world), epochs(world)) == ([2, 0], {(2, 1)})


class Late(CompiledProducer):
    """A producer whose commits may tell only that they ran out of time."""

    late = False

    def commit_transaction(self, seconds: float) -> None:
        try:
            super().commit_transaction(seconds)
        finally:
            if self.late:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "late", False, True))


@pytest.mark.skipif(not COMPILED, reason="_produce.cpp was not built: no C++17 compiler")
@pytest.mark.parametrize(
    ("fenced", "ours", "message"),
    [(True, Fenced, "_FENCED"), (False, OutcomeUnknown, "_TIMED_OUT")],
)
def test_a_commit_that_ran_out_of_time_is_fenced_where_its_producer_is(
    kafka: Broker,
    topic_prefix: str,
    sinks: list[Sink],
    monkeypatch: pytest.MonkeyPatch,
    fenced: bool,
    ours: type[HeadraceError],
    message: str,
) -> None:
    """As librdkafka was seen to answer; elsewhere the outcome is for a successor to find out."""
    monkeypatch.setattr("pipeline.edges.kafka.transactional.COMMIT_SECONDS", 0.0)
    world = KafkaWorld(kafka.bootstrap, topic_prefix, Late)
    start(world)
    older, _ = claimed(world, sinks)
    if fenced:
        claimed(world, sinks)
    monkeypatch.setattr(Late, "late", True)
    with pytest.raises(ours, match=message):
        older.write([out(world, b"late")], at(world, 1, 0), 1)


def test_a_claim_ends_what_its_predecessor_left_open(world: World, sinks: list[Sink]) -> None:
    """It fences first and reads then: open offsets neither block it nor are they taken over."""
    start(world, 5)
    world.leave_open(99)
    _, found = claimed(world, sinks)
    assert found.positions == at(world, 5, 5)
    assert (world.values(0), positions(world)) == ([], [5, 5])


def test_a_new_partition_starts_at_its_logs_start(world: World, sinks: list[Sink]) -> None:
    """Its number is not below the stored count, which the claim raises."""
    start(world, 5)
    world.grow(3)
    sink = world.sink()
    sinks.append(sink)
    found = sink.claim(assignment(world, partitions=3), lambda _: [])
    assert found.positions == at(world, 5, 5, 0)
    assert positions(world) == [5, 5, 0]
    held = world.committed()
    assert {decode(p, item, world.group).partitions for p, item in held.items()} == {3}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({}, "no committed offset"),
        ({0: Stored(5, encode(LAYOUT, 0, 0))}, "no committed offset"),
        ({0: Stored(5, ""), 1: Stored(5, "")}, "carries no layout"),
        (
            {n: Stored(5, encode(Layout(1, 2, 2, "id", True), 0, 0)) for n in range(2)},
            "belongs to layout 1 with 2 slots",
        ),
        (
            {n: Stored(5, encode(Layout(1, 1, 2, "other", True), 0, 0)) for n in range(2)},
            "deleted and made again",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_a_write(
    world: World, sinks: list[Sink], stored: dict[int, Stored], message: str
) -> None:
    """A claim that is refused has written nothing, and moved nothing."""
    held = {Partition(world.input, number): item for number, item in stored.items()}
    if held:
        world.commit(held)
    sink = world.sink()
    sinks.append(sink)
    with pytest.raises(ClusterUnfit, match=message):
        sink.claim(assignment(world), lambda _: [out(world, b"never")])
    assert world.values(0) == []
    assert world.committed() == held


def test_a_record_that_no_topic_takes_is_named_and_nothing_is_written(
    world: World, sinks: list[Sink]
) -> None:
    """A later claim finds the positions where they were, and no record of the write."""
    start(world)
    sink, _ = claimed(world, sinks)
    with pytest.raises(ClusterUnfit):
        sink.write([out(world, b"small", b"x" * 2_000_000)], at(world, 2, 0), 1)
    _, found = claimed(world, sinks)
    assert found.positions == at(world, 0, 0)
    assert world.values(0) == []


def test_an_idempotent_write_is_durable_with_its_offsets(world: World, sinks: list[Sink]) -> None:
    """At least once: records first, offsets with metadata afterwards, epochs as ever."""
    start(world, 3)
    sink = world.idempotent()
    sinks.append(sink)
    found = sink.claim(assignment(world), lambda _: [out(world, b"opening")])
    assert found == Claimed(at(world, 3, 3), 1)
    sink.write([out(world, b"a", b"b")], at(world, 5, 3), 1)
    assert world.values(0) == [b"opening", b"a", b"b"]
    assert (positions(world), epochs(world)) == ([5, 3], {(1, 1)})


def test_an_idempotent_write_of_what_is_refused_commits_no_offset(
    world: World, sinks: list[Sink]
) -> None:
    """No offset is committed over a record that did not arrive."""
    start(world)
    sink, _ = idempotent(world, sinks)
    with pytest.raises(ClusterUnfit):
        sink.write([out(world, b"small", b"x" * 2_000_000)], at(world, 2, 0), 1)
    assert positions(world) == [0, 0]


@pytest.fixture
def ahead(world: World) -> Iterator[Ahead]:
    """Give what sends ahead of commits, closed at the end."""
    made = world.ahead()
    yield made
    made.close()


def arrive(ahead: Ahead) -> None:
    """Go on until all has arrived, as the loop does: it asks, and where it has nothing to do, waits."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ahead.arrived():
        assert time.monotonic() < deadline
        ahead.wait(0.01)


def test_what_has_arrived_ahead_of_a_commit_is_there(world: World, ahead: Ahead) -> None:
    """A reader has all of it, in order by partition, and what was sent later behind it."""
    values = [b"%d" % number for number in range(100)]
    assert ahead.arrived()
    ahead.send([out(world, *values), out(world, *values, number=1)])
    arrive(ahead)
    assert (world.values(0), world.values(1)) == (values, values)
    ahead.send([out(world, b"later")])
    arrive(ahead)
    assert world.values(0) == [*values, b"later"]


def test_what_is_refused_ahead_of_a_commit_never_counts_as_arrived(
    world: World, ahead: Ahead
) -> None:
    """Nothing may be committed over it."""

    def go_on() -> None:
        ahead.send([out(world, b"x" * 2_000_000)])
        arrive(ahead)

    with pytest.raises(ClusterUnfit):
        go_on()


def test_nothing_fences_an_idempotent_sink(world: World, sinks: list[Sink]) -> None:
    """A zombie's write stands: the archive drops it by offsets, as its module says."""
    start(world)
    older, newer = world.idempotent(), world.idempotent()
    sinks += [older, newer]
    older.claim(assignment(world), lambda _: [])
    newer.claim(assignment(world), lambda _: [])
    older.write([out(world, b"zombie")], at(world, 1, 0), 1)
    newer.write([out(world, b"again")], at(world, 1, 0), 1)
    assert world.values(0) == [b"zombie", b"again"]


def test_offsets_without_metadata_are_taken_where_nothing_fences(
    world: World, sinks: list[Sink]
) -> None:
    """Some brokers keep none; at least once needs none."""
    world.commit({Partition(world.input, n): Stored(4, "") for n in range(2)})
    _, found = idempotent(world, sinks)
    assert found.positions == at(world, 4, 4)


def test_tending_and_closing_never_disturb(world: World, sinks: list[Sink]) -> None:
    """Between writes as often as the loop likes; closing an unused sink is fine."""
    start(world)
    sink, _ = claimed(world, sinks)
    for sequence in (1, 2):
        sink.tend()
        sink.write([out(world, b"v")], at(world, sequence, 0), sequence)
    world.sink().close()
    assert world.values(0) == [b"v", b"v"]
    assert issubclass(Fenced, HeadraceError)
