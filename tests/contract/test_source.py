"""What every source promises, asked of the double and of Apache Kafka alike."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from jobs.local_broker import Broker, create_topics
from pipeline.batch import Headers, Partition
from pipeline.edges.kafka.source import COMPILED, CompiledSource, KafkaSource, open_source
from pipeline.errors import ClusterUnfit
from pipeline.ports import Source
from pipeline.testing import MemoryLog, MemorySource

PATIENCE_SECONDS = 20.0
Rows = list[tuple[int, int, bytes | None]]


class World(Protocol):
    """A topic of two partitions that a test writes to."""

    topic: str

    def feed(
        self, number: int, values: Sequence[bytes | None], headers: Headers = None
    ) -> None: ...

    def transact(self, number: int, values: Sequence[bytes], *, commit: bool) -> None: ...

    def leave_open(self, number: int, value: bytes) -> Callable[[], None]: ...

    def truncate(self, number: int, start: int) -> None: ...

    def source(self) -> Source: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.topic = "in"
        self.log = MemoryLog(time.time)
        self.log.create(self.topic, 2)

    def feed(self, number: int, values: Sequence[bytes | None], headers: Headers = None) -> None:
        for value in values:
            self.log.append(Partition(self.topic, number), b"key", value, headers)

    def transact(self, number: int, values: Sequence[bytes], *, commit: bool) -> None:
        transaction = self.log.begin("t", self.log.init("t"))
        for value in values:
            self.log.append(Partition(self.topic, number), b"key", value, transaction=transaction)
        (self.log.commit if commit else self.log.abort)(transaction)

    def leave_open(self, number: int, value: bytes) -> Callable[[], None]:
        transaction = self.log.begin("open", self.log.init("open"))
        self.log.append(Partition(self.topic, number), b"key", value, transaction=transaction)
        return lambda: self.log.commit(transaction)

    def truncate(self, number: int, start: int) -> None:
        self.log.truncate(Partition(self.topic, number), start)

    def source(self) -> Source:
        return MemorySource(self.log, self.topic)


class KafkaWorld:
    def __init__(self, bootstrap: str, prefix: str, compiled: bool) -> None:
        self.topic, self.prefix, self.compiled = f"{prefix}.in", prefix, compiled
        self.settings = {"bootstrap.servers": bootstrap}
        self.transactional: Producer | None = None
        create_topics(bootstrap, {self.topic: 2})

    def _producer(self, name: str | None = None) -> Producer:
        extra = {} if name is None else {"transactional.id": f"{self.prefix}.{name}"}
        return Producer({**self.settings, **extra})

    def feed(self, number: int, values: Sequence[bytes | None], headers: Headers = None) -> None:
        producer = self._producer()
        for value in values:
            producer.produce(self.topic, value, b"key", number, headers=headers or [])
        assert producer.flush(PATIENCE_SECONDS) == 0

    def transact(self, number: int, values: Sequence[bytes], *, commit: bool) -> None:
        if self.transactional is None:
            self.transactional = self._producer("t")
            self.transactional.init_transactions(PATIENCE_SECONDS)
        producer = self.transactional
        producer.begin_transaction()
        for value in values:
            producer.produce(self.topic, value, b"key", number)
        producer.flush(PATIENCE_SECONDS)
        (producer.commit_transaction if commit else producer.abort_transaction)(PATIENCE_SECONDS)

    def leave_open(self, number: int, value: bytes) -> Callable[[], None]:
        producer = self._producer("open")
        producer.init_transactions(PATIENCE_SECONDS)
        producer.begin_transaction()
        producer.produce(self.topic, value, b"key", number)
        assert producer.flush(PATIENCE_SECONDS) == 0
        return lambda: producer.commit_transaction(PATIENCE_SECONDS)

    def truncate(self, number: int, start: int) -> None:
        admin = AdminClient(self.settings)
        for future in admin.delete_records([TopicPartition(self.topic, number, start)]).values():
            future.result(PATIENCE_SECONDS)

    def source(self) -> Source:
        kind = CompiledSource if self.compiled else KafkaSource
        return kind(self.settings, f"{self.prefix}.group", self.topic)


@pytest.fixture(params=["memory", "kafka", "kafka, compiled"])
def world(request: pytest.FixtureRequest) -> World:
    """Give an empty topic of the double, then one of Apache Kafka, read by each of its sources."""
    if request.param == "memory":
        return MemoryWorld()
    compiled = request.param == "kafka, compiled"
    if compiled and not COMPILED:
        pytest.skip("_consume.cpp was not built: `pip install` found no C++17 compiler")
    broker: Broker = request.getfixturevalue("kafka")
    return KafkaWorld(broker.bootstrap, request.getfixturevalue("topic_prefix"), compiled)


@pytest.fixture
def source(world: World) -> Iterator[Source]:
    """Give a source of the world's topic, not assigned yet."""
    made = world.source()
    yield made
    made.close()


def assign(world: World, source: Source, at: Mapping[int, int] | None = None) -> None:
    source.assign({Partition(world.topic, n): o for n, o in (at or {0: 0, 1: 0}).items()})


def read(
    source: Source, enough: Callable[[Rows, dict[int, int]], bool], max_records: int = 100
) -> tuple[Rows, dict[int, int]]:
    """Poll until there is enough; rows in the order in which they came, the newest ends."""
    rows: Rows = []
    ends: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not enough(rows, ends):
        assert time.monotonic() < deadline, f"only {rows} and {ends}"
        polled = source.poll(max_records, 0.1)
        assert len(polled.offsets) <= max_records
        lengths = {len(polled.partitions), len(polled.timestamps), len(polled.keys)}
        assert lengths == {len(polled.values)} == {len(polled.offsets)}
        numbers, offsets = polled.partitions.tolist(), polled.offsets.tolist()
        keys, values = polled.keys.to_pylist(), polled.values.to_pylist()
        rows += zip(numbers, offsets, values, strict=True)
        ends.update(polled.ends)
        sizes = [len(k or b"") + len(v or b"") for k, v in zip(keys, values, strict=True)]
        assert polled.nbytes == sum(sizes)
    return rows, ends


def test_records_come_in_offset_order_by_partition(world: World, source: Source) -> None:
    """Each record of each partition once, offsets ascending, with its key and timestamp."""
    world.feed(0, [b"a", b"b", None])
    world.feed(1, [b"c"])
    assign(world, source)
    rows, ends = read(source, lambda _, e: len(e) == 2)
    assert [row for row in rows if row[0] == 0] == [(0, 0, b"a"), (0, 1, b"b"), (0, 2, None)]
    assert [row for row in rows if row[0] == 1] == [(1, 0, b"c")]
    assert ends == {0: 3, 1: 1}


def test_reading_begins_at_the_position(world: World, source: Source) -> None:
    """What lies below it, and partitions that are not assigned, are not read."""
    world.feed(0, [b"a", b"b", b"c"])
    world.feed(1, [b"d"])
    assign(world, source, {0: 2})
    rows, ends = read(source, lambda _, e: bool(e))
    assert (rows, ends) == ([(0, 2, b"c")], {0: 3})


def test_a_poll_gives_no_more_than_was_asked_for(world: World, source: Source) -> None:
    """The bound holds, and nothing is lost by it."""
    world.feed(0, [b"%d" % n for n in range(20)])
    assign(world, source)
    rows, _ = read(source, lambda r, _: len(r) == 20, max_records=3)
    assert [offset for _, offset, _ in rows] == list(range(20))


def test_a_poll_that_fills_up_waits_for_all(world: World, source: Source) -> None:
    """One that does not is content with the first that come: partitions are fetched one by one."""
    world.feed(0, [b"a", b"b"])
    world.feed(1, [b"c", b"d"])
    assign(world, source)
    # Ends of partitions take the place of records, and here they follow them.
    polled = source.poll(6, PATIENCE_SECONDS, fill=True)
    assert sorted(polled.values.to_pylist()) == [b"a", b"b", b"c", b"d"]
    assert polled.ends == {0: 2, 1: 2}


def test_aborted_records_are_holes_that_the_end_passes(world: World, source: Source) -> None:
    """They are never seen; the end is the last stable offset, markers included."""
    world.feed(0, [b"a"])
    world.transact(0, [b"x", b"y"], commit=False)
    world.transact(0, [b"b"], commit=True)
    world.transact(0, [b"z"], commit=False)
    assign(world, source)
    rows, ends = read(source, lambda _, e: e.get(0) == 8)
    assert rows == [(0, 0, b"a"), (0, 4, b"b")]
    assert ends[0] == 8


def test_an_open_transaction_is_not_read_until_it_commits(world: World, source: Source) -> None:
    """The end stands before it, also for records behind it; then all come."""
    world.feed(0, [b"a"])
    commit = world.leave_open(0, b"open")
    world.feed(0, [b"behind"])
    assign(world, source)
    rows, ends = read(source, lambda _, e: 0 in e)
    assert (rows, ends[0]) == ([(0, 0, b"a")], 1)
    commit()
    rows, _ = read(source, lambda _, e: e.get(0) == 4)
    assert rows == [(0, 1, b"open"), (0, 2, b"behind")]


def test_the_end_is_told_again_after_new_records(world: World, source: Source) -> None:
    """An end is met each time, not only the first."""
    assign(world, source)
    _, ends = read(source, lambda _, e: len(e) == 2)
    assert ends == {0: 0, 1: 0}
    world.feed(1, [b"a"])
    rows, ends = read(source, lambda _, e: e.get(1) == 1)
    assert rows == [(1, 0, b"a")]


def test_headers_come_with_their_record(world: World, source: Source) -> None:
    """As pairs of name and bytes; None where no record of the poll has any."""
    world.feed(0, [b"plain"])
    assign(world, source)
    found: list[object] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(found) < 1 and time.monotonic() < deadline:
        polled = source.poll(1, 0.1)
        found += [polled.headers] if len(polled.offsets) else []
    assert found == [None]
    world.feed(0, [b"with"], [("trace", b"1"), ("none", None)])
    while len(found) < 2 and time.monotonic() < deadline:
        polled = source.poll(1, 0.1)
        found += [polled.headers] if len(polled.offsets) else []
    assert found[1] == [[("trace", b"1"), ("none", None)]]


@pytest.mark.parametrize("position", [1, 9])
def test_a_position_out_of_range_is_refused(world: World, source: Source, position: int) -> None:
    """Below what retention left, or beyond the end: an error that names the partition."""
    world.feed(0, [b"a", b"b", b"c", b"d"])
    world.truncate(0, 3)
    assign(world, source, {0: position})
    with pytest.raises(ClusterUnfit, match=f"{world.topic}/0"):
        read(source, lambda _r, _e: False)


def test_closing_never_raises(world: World) -> None:
    """Also before it was assigned."""
    world.source().close()


def test_a_fetch_that_may_wait_brings_a_lone_record_all_the_same(kafka, topic_prefix: str) -> None:
    """Once its time is up, however few bytes there are."""
    world = KafkaWorld(kafka.bootstrap, topic_prefix, compiled=COMPILED)
    source = open_source(world.settings, f"{topic_prefix}.group", world.topic, patience_ms=50)
    try:
        assign(world, source)
        world.feed(1, [b"alone"])
        rows, _ = read(source, lambda rows, _: len(rows) == 1)
        assert rows == [(1, 0, b"alone")]
    finally:
        source.close()


def test_how_long_a_fetch_may_wait_is_told_to_the_client() -> None:
    """Seen by a time that librdkafka refuses; without patience its own default stands."""
    with pytest.raises(KafkaException, match=r"fetch\.wait\.max\.ms"):
        open_source({}, "group", "topic", patience_ms=300_001)
    open_source({}, "group", "topic").close()


def test_the_users_own_fetches_stand() -> None:
    """Seen by a size that librdkafka refuses, where ours would not be."""
    with pytest.raises(KafkaException, match=r"fetch\.min\.bytes"):
        open_source({"fetch.min.bytes": "0"}, "group", "topic", patience_ms=20)
