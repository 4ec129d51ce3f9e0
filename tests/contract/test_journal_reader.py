"""What every journal reader promises, asked of the double and of Apache Kafka alike."""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from jobs.local_broker import Broker, create_topics
from pipeline.batch import Partition
from pipeline.edges.kafka.journal import KafkaJournal
from pipeline.errors import ClusterUnfit, HeadraceError, Retriable
from pipeline.ports import JournalReader, JournalRecord
from pipeline.testing import MemoryJournal, MemoryLog

PATIENCE_SECONDS = 20.0


class World(Protocol):
    """A journal of two partitions that a test writes to."""

    topic: str

    def transact(self, number: int, *values: bytes, commit: bool = True) -> None: ...

    def truncate(self, number: int, start: int) -> None: ...

    def reader(self) -> JournalReader: ...


class MemoryWorld:
    topic = "journal"

    def __init__(self) -> None:
        self.log = MemoryLog(time.time)
        self.log.create(self.topic, 2)

    def transact(self, number: int, *values: bytes, commit: bool = True) -> None:
        transaction = self.log.begin("t", self.log.init("t"))
        for value in values:
            self.log.append(Partition(self.topic, number), b"key", value, transaction=transaction)
        (self.log.commit if commit else self.log.abort)(transaction)

    def truncate(self, number: int, start: int) -> None:
        self.log.truncate(Partition(self.topic, number), start)

    def reader(self) -> JournalReader:
        return MemoryJournal(self.log, "job.archive", self.topic, 2)


class KafkaWorld:
    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.topic, self.prefix = f"{prefix}.journal", prefix
        self.settings = {"bootstrap.servers": bootstrap}
        self.producer: Producer | None = None
        create_topics(bootstrap, {self.topic: 2})
        self._await_coordinator()

    def _await_coordinator(self) -> None:
        """Wait until a broker that has just started looks after groups."""
        reader = self.reader()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                reader.start()
            except Retriable:
                assert time.monotonic() < deadline, "no broker looks after the group"
            else:
                break
        reader.close()

    def transact(self, number: int, *values: bytes, commit: bool = True) -> None:
        if self.producer is None:
            self.producer = Producer({**self.settings, "transactional.id": f"{self.prefix}.t"})
            self.producer.init_transactions(PATIENCE_SECONDS)
        producer = self.producer
        producer.begin_transaction()
        for value in values:
            producer.produce(self.topic, value, b"key", number)
        producer.flush(PATIENCE_SECONDS)
        (producer.commit_transaction if commit else producer.abort_transaction)(PATIENCE_SECONDS)

    def truncate(self, number: int, start: int) -> None:
        admin = AdminClient(self.settings)
        for future in admin.delete_records([TopicPartition(self.topic, number, start)]).values():
            future.result(PATIENCE_SECONDS)

    def reader(self) -> JournalReader:
        return KafkaJournal(self.settings, f"{self.prefix}.archive", self.topic, 2)


@pytest.fixture(params=["memory", "kafka"])
def world(request: pytest.FixtureRequest) -> World:
    """Give an empty journal of the double, then one of Apache Kafka."""
    if request.param == "memory":
        return MemoryWorld()
    broker: Broker = request.getfixturevalue("kafka")
    return KafkaWorld(broker.bootstrap, request.getfixturevalue("topic_prefix"))


@pytest.fixture
def readers(world: World) -> Iterator[Callable[[], JournalReader]]:
    """Give a maker of readers that are closed at the end."""
    made: list[JournalReader] = []

    def make() -> JournalReader:
        made.append(world.reader())
        return made[-1]

    yield make
    for reader in made:
        reader.close()


def read(
    reader: JournalReader, enough: Callable[[list[JournalRecord], dict[int, int]], bool]
) -> tuple[list[JournalRecord], dict[int, int]]:
    found: list[JournalRecord] = []
    met: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not enough(found, met):
        assert time.monotonic() < deadline, f"only {found} and {met}"
        records, ends = reader.poll(10, 0.1)
        assert len(records) <= 10
        for record in records:
            met.pop(record.partition, None)
        met.update(ends)
        found += records
    return found, met


def test_the_first_start_is_at_the_logs_start(
    world: World, readers: Callable[[], JournalReader]
) -> None:
    """Without progress it begins with the first record that is there, and no note."""
    world.transact(0, b"a")
    assert dict(readers().start()) == {0: (0, ""), 1: (0, "")}
    world.truncate(0, 1)
    assert dict(readers().start()) == {0: (1, ""), 1: (0, "")}


def test_stable_records_come_in_order_and_ends_are_met(
    world: World, readers: Callable[[], JournalReader]
) -> None:
    """Aborted records are never seen; each partition's end is met after its records."""
    world.transact(0, b"a", b"b")
    world.transact(0, b"x", commit=False)
    world.transact(0, b"c")
    world.transact(1, b"d")
    reader = readers()
    reader.start()
    found, met = read(reader, lambda _, met: len(met) == 2)
    assert [(r.offset, r.value) for r in found if r.partition == 0] == [
        (0, b"a"),
        (1, b"b"),
        (5, b"c"),
    ]
    assert [(r.offset, r.key, r.value) for r in found if r.partition == 1] == [(0, b"key", b"d")]
    assert all(abs(record.timestamp / 1000 - time.time()) < 60 for record in found)
    assert dict(reader.ends()) == met == {0: 7, 1: 2}


def test_a_successor_goes_on_at_the_progress_with_its_note(
    world: World, readers: Callable[[], JournalReader]
) -> None:
    """What was saved is found, partition by partition; what was not saved is read again."""
    world.transact(0, b"a", b"b", b"c")
    first = readers()
    first.start()
    read(first, lambda found, _: len(found) == 3)
    first.save({0: (2, '{"rolled":{"0":7}}')})
    second = readers()
    assert dict(second.start()) == {0: (2, '{"rolled":{"0":7}}'), 1: (0, "")}
    found, _ = read(second, lambda found, _: len(found) == 1)
    assert found[0].value == b"c"


def test_progress_below_the_log_is_refused(
    world: World, readers: Callable[[], JournalReader]
) -> None:
    """Retention removed what was not archived: rows would be missing without a word."""
    world.transact(0, b"a", b"b", b"c")
    reader = readers()
    reader.start()
    reader.save({0: (1, "")})
    world.truncate(0, 2)
    with pytest.raises(ClusterUnfit, match=f"{world.topic}/0"):
        readers().start()


def test_progress_beyond_the_log_is_refused(
    world: World, readers: Callable[[], JournalReader]
) -> None:
    """The journal was made anew under the same name."""
    reader = readers()
    reader.start()
    reader.save({1: (5, "")})
    with pytest.raises(ClusterUnfit, match=f"{world.topic}/1"):
        readers().start()


def test_a_note_that_is_too_long_is_an_error(readers: Callable[[], JournalReader]) -> None:
    """A broker keeps 4096 bytes beside an offset; what it does not keep is not taken as kept."""
    reader = readers()
    reader.start()
    with pytest.raises(HeadraceError):
        reader.save({0: (0, "x" * 5000)})
    assert dict(readers().start())[0] == (0, "")
