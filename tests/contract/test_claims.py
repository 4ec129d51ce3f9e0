"""How a driver opens a layout on Apache Kafka: handed over whole, or finished by the next start."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import pytest
from confluent_kafka import Consumer, TopicPartition

from jobs.local_broker import Broker, create_topics
from pipeline import journal
from pipeline.batch import Outgoing, Partition
from pipeline.control import Assignment, Layout
from pipeline.edges.kafka.admin import KafkaAdmin
from pipeline.edges.kafka.claims import FencedLayout
from pipeline.edges.kafka.journal import KafkaJournal, newest_writer
from pipeline.edges.kafka.transactional import TransactionalSink
from pipeline.edges.kafka.unfenced import UnfencedLayout
from pipeline.errors import AnotherRunTookOver, ClusterUnfit, ConfigInvalid, Fenced, Retriable
from pipeline.layout import Stored, decode, to_layout
from pipeline.topology import Topic

PARTITIONS, SLOTS = 7, 3


class Crash(Exception):
    """Stands for the death of the driver."""


class Dying(FencedLayout):
    """A driver that dies before its transaction number `dies_at`, counted from 0."""

    dies_at = 0

    def _transact(
        self, slot: int, offsets: list[TopicPartition], rolls: Iterable[tuple[int, bytes]] = ()
    ) -> None:
        if self.dies_at == 0:
            raise Crash
        self.dies_at -= 1
        super()._transact(slot, offsets, rolls)


class World:
    """A job of `PARTITIONS` partitions in `SLOTS` slots, each at an offset of its own."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.settings = {"bootstrap.servers": bootstrap}
        self.group = prefix
        self.names = {kind: f"{prefix}.{kind}" for kind in ("events", "journal", "out")}
        counts = {"events": PARTITIONS, "journal": 5, "out": 2}
        create_topics(bootstrap, {self.names[kind]: count for kind, count in counts.items()})
        self.admin = KafkaAdmin(self.settings)
        self._begin()
        self.move(dict.fromkeys(self.topic("events").all, 0))

    def topic(self, kind: str) -> Topic:
        return self.admin.topics([self.names[kind]])[self.names[kind]]

    def claims(self, kind: type[FencedLayout] = FencedLayout) -> FencedLayout:
        return kind(self.settings, self.group, self.topic("journal"))

    def fresh(self) -> Layout:
        source = self.topic("events")
        return Layout(1, SLOTS, source.partitions, source.id, True)

    def _begin(self) -> None:
        """Open a first time; topics that were just made may still look for their leaders."""
        for _ in range(20):
            try:
                self.open()
            except Retriable:
                time.sleep(0.5)
            else:
                return
        pytest.fail("the broker does not lead its topics")

    def open(self, slots: int | None = None) -> Layout:
        with contextlib.closing(self.claims()) as claims:
            return claims.open(self.topic("events"), self.fresh(), slots, "earliest")

    def move(self, positions: Mapping[Partition, int]) -> None:
        """Commit through the slots' own sinks."""
        layout = self.layout()
        for slot in range(layout.slots):
            sink = self.sink(slot)
            sink.claim(self.assignment(layout, slot), lambda _: [])
            own = {p: at for p, at in positions.items() if p.number % layout.slots == slot}
            sink.write([], own, 1)
            sink.close()

    def layout(self) -> Layout:
        (found,) = {to_layout(m) for m in self.metadata().values()}
        return found

    def assignment(self, layout: Layout, slot: int) -> Assignment:
        source = self.topic("events")
        own = layout.owned(source.name, slot, source.partitions)
        return Assignment(slot, layout, own, source.partitions)

    def sink(self, slot: int) -> TransactionalSink:
        return TransactionalSink(self.settings, self.group, f"{self.group}.{slot:04d}", 1000)

    def stored(self) -> dict[Partition, Stored]:
        return self.admin.committed(self.group, self.names["events"])

    def metadata(self) -> dict[Partition, object]:
        return {p: decode(p, item, self.group) for p, item in self.stored().items()}

    def offsets(self) -> dict[int, int]:
        return {p.number: item.offset for p, item in sorted(self.stored().items())}

    def rolls(self) -> list[tuple[int, journal.RollRecord]]:
        """Every stable roll record, with its journal partition."""
        name = self.names["journal"]
        reader = KafkaJournal(self.settings, f"{self.group}.test", name, 5)
        reader.start()
        found = []
        left = set(range(5))
        while left:
            records, ends = reader.poll(100, 1.0)
            found += [
                (record.partition, journal.read_roll(record.value))
                for record in records
                if journal.read_key(record.key).kind == journal.ROLL
            ]
            left -= ends.keys()
        reader.close()
        return found


@pytest.fixture
def world(kafka: Broker, topic_prefix: str) -> World:
    """Give a job that has run."""
    return World(kafka.bootstrap, topic_prefix)


@pytest.fixture
def sinks(world: World) -> Iterator[list[TransactionalSink]]:
    """Give the claimed sinks of the running feeders, one for each slot."""
    layout = world.layout()
    made = []
    for slot in range(layout.slots):
        made.append(world.sink(slot))
        made[-1].claim(world.assignment(layout, slot), lambda _: [])
    yield made
    for sink in made:
        sink.close()


def roll_of(world: World, layout: int) -> Outgoing:
    """One record for the journal, by which a zombie's write would show."""
    value = journal.roll("zombie", 9, layout, "interval", world.names["events"], {})
    return Outgoing.of(world.names["journal"], 0, [journal.ROLL_KEY], [value])


def test_another_start_moves_the_epochs_on_and_keeps_the_offsets(world: World) -> None:
    """Without another number of slots the layout is the same, and nothing is rolled."""
    before, offsets = world.metadata(), world.offsets()
    rolls = world.rolls()
    assert world.open() == world.layout()
    assert world.offsets() == offsets
    assert all(world.metadata()[p].epoch == found.epoch + 1 for p, found in before.items())
    assert world.rolls() == rolls


def test_of_two_runs_the_one_that_opened_the_job_last_owns_every_slot(
    world: World, sinks: list[TransactionalSink]
) -> None:
    """However their claims mix: the other one's commit nothing, and the owner's slots are its own."""
    older, newer = world.open(), world.open()
    assert older.run != newer.run
    for slot in range(SLOTS):
        sinks.append(world.sink(slot))
        with pytest.raises(AnotherRunTookOver, match=f"has opened slot {slot} since"):
            sinks[-1].claim(world.assignment(older, slot), lambda _: [])
        sinks.append(world.sink(slot))
        sinks[-1].claim(world.assignment(newer, slot), lambda _: [])
    assert world.admin.runs(world.group, world.assignment(newer, 0).partitions) == {newer.run}


@pytest.mark.parametrize("slots", [2, 5])
def test_each_old_slot_hands_over_with_a_boundary(
    world: World, sinks: list[TransactionalSink], slots: int
) -> None:
    """Offsets stay, the layout changes, each old journal partition is rolled, zombies are fenced."""
    offsets = world.offsets()
    layout = world.open(slots)
    assert (layout.generation, layout.slots) == (2, slots)
    assert world.layout() == layout
    assert world.offsets() == offsets
    made = [(n, roll) for n, roll in world.rolls() if roll.reason == journal.HANDOVER]
    assert {n: set(roll.positions) for n, roll in made} == {
        n: {str(p) for p in range(n, PARTITIONS, SLOTS)} for n in range(SLOTS)
    }
    assert {roll.layout for _, roll in made} == {2}
    for slot, sink in enumerate(sinks):
        own = {p: 99 for p in world.topic("events").all if p.number % SLOTS == slot}
        with pytest.raises(Fenced):
            sink.write([roll_of(world, 1)], own, 7)
    assert world.offsets() == offsets
    assert all(roll.writer != "zombie" for _, roll in world.rolls())


def test_a_feeder_that_starts_late_leaves_the_new_layout_alone(world: World) -> None:
    """It has its slot of the old layout, whose number does not exist any more."""
    old = world.layout()
    world.open(2)
    stored = world.stored()
    late = world.sink(2)
    with pytest.raises(AnotherRunTookOver, match="layout 2 with 2 slots"):
        late.claim(world.assignment(old, 2), lambda _: [roll_of(world, 1)])
    late.close()
    assert world.stored() == stored
    assert all(roll.writer != "zombie" for _, roll in world.rolls())


@pytest.mark.parametrize(
    ("dies_at", "then"), [(0, None), (0, 2), (1, None), (1, 3), (2, 2), (2, 5)]
)
def test_a_hand_over_that_broke_off_is_finished(
    world: World, dies_at: int, then: int | None
) -> None:
    """Whatever the next start asks for, it leaves one layout, every offset, and every boundary."""
    offsets, zombies = world.offsets(), [world.sink(slot) for slot in range(SLOTS)]
    old = world.layout()
    for slot, sink in enumerate(zombies):
        sink.claim(world.assignment(old, slot), lambda _: [])
    driver = world.claims(Dying)
    driver.dies_at = dies_at
    with pytest.raises(Crash):
        driver.open(world.topic("events"), world.fresh(), 2, "earliest")
    assert len({to_layout(m) for m in world.metadata().values()}) == (2 if dies_at else 1)
    layout = world.open(then)
    wanted = then or (2 if dies_at else SLOTS)
    assert (world.layout(), layout.slots) == (layout, wanted)
    assert world.offsets() == offsets
    rolled = {n for n, roll in world.rolls() if roll.reason == journal.HANDOVER}
    assert rolled == (set() if layout.generation == 1 else set(range(SLOTS)))
    for slot, sink in enumerate(zombies):
        own = {p: 99 for p in world.topic("events").all if p.number % SLOTS == slot}
        with pytest.raises(Fenced):
            sink.write([roll_of(world, 1)], own, 7)
        sink.close()
    assert world.offsets() == offsets


class Overtaken(FencedLayout):
    """A driver after whose fences another one does something."""

    overtake: Callable[[], object]

    def _fence_all(self, topic: Topic, least: int) -> None:
        super()._fence_all(topic, least)
        self.overtake()


def test_a_start_that_was_fenced_in_one_slot_only_tries_again(world: World) -> None:
    """Who fenced it has died or was fenced as well; where it has gone on, it has taken over."""
    source = world.topic("events")
    driver = world.claims(Overtaken)
    driver.overtake = lambda: world.claims()._fence(1)
    with pytest.raises(Retriable, match="has not gone on since"):
        driver.open(source, world.fresh(), None, "earliest")
    driver = world.claims(Overtaken)
    driver.overtake = world.open
    with pytest.raises(Fenced):
        driver.open(source, world.fresh(), None, "earliest")


def test_a_dead_slots_open_transaction_holds_no_start_up(
    world: World, sinks: list[TransactionalSink]
) -> None:
    """The driver fences before it waits for stable offsets: those of slots but the first one too."""
    last = sinks[-1]._producer
    last.begin_transaction()
    last.queue(Outgoing.of(world.names["journal"], 2, [journal.ROLL_KEY], [b"half"]), 0)
    last.send_offsets_to_transaction(
        [TopicPartition(world.names["events"], 2, 99)], sinks[-1]._offsets.group_metadata(), 10
    )
    offsets = world.offsets()
    assert world.open(2).slots == 2
    assert world.offsets() == offsets


def test_the_journal_knows_the_newest_generation_and_epoch(world: World) -> None:
    """They count where the offsets are gone."""
    assert newest_writer(world.settings, world.group, world.topic("journal"))[0] == 0
    world.open(2)
    generation, epoch = newest_writer(world.settings, world.group, world.topic("journal"))
    assert generation == 2
    assert epoch == max(found.epoch for found in world.metadata().values())


# -- resets --------------------------------------------------------------------------------------


def reset(world: World, to: int, claims: FencedLayout | None = None, slots: int = SLOTS) -> None:
    source = world.topic("events")
    with contextlib.closing(claims or world.claims()) as driver:
        driver.reset(
            source,
            replace(world.fresh(), slots=slots),
            [world.topic("out")],
            lambda _: dict.fromkeys(source.all, to),
        )


def test_a_reset_is_one_step_behind_every_fence(
    world: World, sinks: list[TransactionalSink]
) -> None:
    """A newer layout, all positions at once, a boundary with the outputs' ends in each journal."""
    reset(world, 42)
    assert set(world.offsets().values()) == {42}
    layout = world.layout()
    assert (layout.generation, layout.slots) == (3, SLOTS)
    made = {n: roll for n, roll in world.rolls() if roll.layout == layout.generation}
    assert [made[n].reason for n in range(5)] == [journal.OFFSETS] * 3 + [journal.HANDOVER] * 2
    assert made[1].positions == {"1": 42, "4": 42}
    assert made[1].outputs == {world.names["out"]: [0, 0]}
    assert made[4].positions == {}
    for slot, sink in enumerate(sinks):
        own = {p: 99 for p in world.topic("events").all if p.number % SLOTS == slot}
        with pytest.raises(Fenced):
            sink.write([], own, 7)
    late = world.sink(1)
    with pytest.raises(AnotherRunTookOver):
        late.claim(world.assignment(world.fresh(), 1), lambda _: [])
    late.close()
    assert set(world.offsets().values()) == {42}
    assert world.open() == layout


@pytest.mark.parametrize("dies_at", [1, SLOTS])
def test_a_reset_that_broke_off_has_moved_no_offset(world: World, dies_at: int) -> None:
    """The next start goes on where the job stood; the same command again does all of it."""
    offsets = world.offsets()
    driver = world.claims(Dying)
    driver.dies_at = dies_at
    with pytest.raises(Crash):
        reset(world, 42, driver)
    assert world.offsets() == offsets
    world.open()
    assert world.offsets() == offsets
    reset(world, 42)
    assert set(world.offsets().values()) == {42}


def test_a_run_that_starts_under_a_reset_keeps_its_offsets(world: World) -> None:
    """Between the two steps of a reset it has fenced it, though both use the first slot's id."""
    source, offsets = world.topic("events"), world.offsets()

    def decide(_: Mapping[Partition, Stored]) -> dict[Partition, int]:
        world.open()
        return dict.fromkeys(source.all, 42)

    with contextlib.closing(world.claims()) as driver, pytest.raises(Fenced):
        driver.reset(source, world.fresh(), [world.topic("out")], decide)
    assert world.offsets() == offsets


@pytest.mark.parametrize("loss", ["expired", "wiped"])
def test_a_reset_mends_lost_offsets_in_a_generation_of_their_own(world: World, loss: str) -> None:
    """Also then no generation is used twice: the journal says which was the last."""
    world.open(2)
    before = world.layout().generation
    world.admin.delete_group(world.group)
    if loss == "wiped":
        with contextlib.closing(Consumer({**world.settings, "group.id": world.group})) as tool:
            places = [TopicPartition(*p, 5) for p in world.topic("events").all]
            tool.commit(offsets=places, asynchronous=False)
        with pytest.raises(ClusterUnfit, match="headrace offsets CONFIG --to skip-gap"):
            world.open()
    reset(world, 7, slots=4)
    layout = world.layout()
    assert (layout.generation, layout.slots) == (before + 1, 4)
    assert set(world.offsets().values()) == {7}
    assert world.open() == layout


# -- at least once -------------------------------------------------------------------------------


def unfenced(world: World) -> UnfencedLayout:
    return UnfencedLayout(world.settings, world.group, world.topic("journal"))


def test_without_fences_a_layout_is_handed_over_once_all_is_archived(world: World) -> None:
    """Before that the refusal says how to get there; then offsets stay and journals are rolled."""
    source = world.topic("events")
    expected = r"slots = 2: the job has 3 slots.*Run it with slots: 3 once more"
    with pytest.raises(ConfigInvalid, match=expected):
        unfenced(world).open(source, world.fresh(), 2, "earliest")
    from pipeline.archived import Archived, encode_note

    name = world.names["journal"]
    archive = KafkaJournal(world.settings, f"{world.group}.archive", name, 5)
    archive.start()
    ends = world.admin.ends(world.topic("journal").all)
    note = encode_note(Archived(1, world.offsets(), world.offsets()))
    archive.save({p.number: (at, note) for p, at in ends.items()})
    archive.close()
    offsets = world.offsets()
    layout = unfenced(world).open(source, world.fresh(), 2, "earliest")
    assert (world.layout(), world.offsets()) == (layout, offsets)
    rolled = {n for n, roll in world.rolls() if roll.reason == journal.HANDOVER}
    assert rolled == set(range(SLOTS))


def test_without_fences_a_reset_is_one_commit_and_its_boundaries(world: World) -> None:
    """Of the next generation, as with fences."""
    source = world.topic("events")
    unfenced(world).reset(
        source, world.fresh(), [world.topic("out")], lambda _: dict.fromkeys(source.all, 9)
    )
    assert set(world.offsets().values()) == {9}
    assert world.layout().generation == 2
    reasons = [roll.reason for _, roll in sorted(world.rolls(), key=lambda r: r[0])]
    assert reasons == [journal.OFFSETS] * 3 + [journal.HANDOVER] * 2
