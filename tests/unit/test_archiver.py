"""The archiver: the same files whatever interrupts it, nothing early, nothing twice."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import journal
from pipeline.archived import Archived, accept, decode_note, encode_note
from pipeline.archiver import Archiver, only
from pipeline.batch import Partition, Settled
from pipeline.commit import Commit, Target, records
from pipeline.errors import ClusterUnfit
from pipeline.ports import JournalRecord
from pipeline.testing import (
    ManualClock,
    MemoryFiles,
    MemoryJournal,
    MemoryLog,
    batch_of,
    score,
)
from pipeline.topology import MOST_PARTITIONS

DATE = "2026-01-31"


def target(slot: int, writer: str = "w", layout: int = 1) -> Target:
    names = ("in", "out", "dead", "journal")
    return Target(slot, 1, layout, writer, *names, True, "sample", "1", 1 << 20)


class _OneByOne(MemoryJournal):
    """Gives one record a poll, for which it takes a second."""

    clock: ManualClock

    def poll(
        self, max_records: int, timeout: float
    ) -> tuple[Sequence[JournalRecord], Mapping[int, int]]:
        self.clock.advance(1.0)
        return super().poll(min(max_records, 1), timeout)


class World:
    """A journal of `slots` partitions, the files made of it, and an archiver to run at will."""

    def __init__(self, slots: int = 1) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(self.clock.time)
        self.log.create("journal", slots)
        self.slots = slots
        self.files = MemoryFiles()
        self.sequences: Counter[str] = Counter()

    def commit(
        self,
        first: int,
        following: int,
        *,
        slot: int = 0,
        number: int | None = None,
        layout: int = 1,
        writer: str = "w",
        date: str = DATE,
        before: str | None = None,
        after: str | None = None,
        values: Sequence[bytes] | None = None,
        only: Container[str] = (journal.CHUNK, journal.COMMIT, journal.ROLL),
    ) -> None:
        """Journal one commit of one partition, whose number is the slot's if none is given."""
        place = Partition("in", slot if number is None else number)
        rows = values or [b"v%d" % o for o in range(first, following)]
        batch = batch_of(
            1,
            "in",
            [(place.number, first + i, v) for i, v in enumerate(rows)],
            {place.number: following},
        )
        self.sequences[writer] += 1
        made = Commit(
            self.sequences[writer],
            (Settled(batch, score(batch)),),
            {place: first},
            {place: following},
            date,
            before,
            after,
        )
        for one in records(made, target(slot, writer, layout)):
            if one.topic == "journal":
                for key, value in one.pairs():
                    if journal.read_key(key or b"").kind in only:
                        self.log.append(Partition("journal", slot), key, value)

    def moved(self, first: int, following: int) -> None:
        """Journal a commit over offsets that held no record."""
        self.sequences["w"] += 1
        place = Partition("in", 0)
        made = Commit(self.sequences["w"], (), {place: first}, {place: following}, DATE, None, None)
        for one in records(made, target(0)):
            for key, value in one.pairs():
                self.log.append(Partition("journal", 0), key, value)

    def roll(
        self,
        at: int,
        slot: int = 0,
        writer: str = "w",
        *,
        number: int | None = None,
        layout: int = 1,
        reason: str = "interval",
    ) -> None:
        place = Partition("in", slot if number is None else number)
        value = journal.roll(writer, 1, layout, reason, "in", {place: at})
        self.log.append(Partition("journal", slot), journal.ROLL_KEY, value)

    def archiver(self, kind: type[MemoryJournal] = MemoryJournal) -> Archiver:
        reader = kind(self.log, "job.archive", "journal", self.slots, self.clock.advance)
        if isinstance(reader, _OneByOne):
            reader.clock = self.clock
        return Archiver(reader, self.files, self.clock, lambda: 7)

    def run(self) -> Archiver:
        archiver = self.archiver()
        archiver.turn(0.1)
        return archiver

    def rows(self) -> dict[str, list[int]]:
        return {name: table["offset"].to_pylist() for name, table in self.files.visible.items()}


def name_of(offset: int, slot: int = 0, date: str = DATE) -> str:
    return f"date={date}/{slot:04d}-{offset:020d}.parquet"


def test_a_file_holds_what_stands_between_two_rolls() -> None:
    """Its name is made of date, slot and first journal offset; its rows are the commits' rows."""
    world = World()
    world.roll(0)
    world.commit(0, 3)
    world.commit(3, 5, after="interval")
    world.commit(5, 6, after="drain")
    report = world.run().turn(0.1)
    assert world.rows() == {name_of(1): [0, 1, 2, 3, 4], name_of(6): [5]}
    assert (report.rows, report.files, report.pending_rows, report.lag) == (6, 2, 0, 0)
    assert report.rolled == {0: 6}
    assert report.memory_bytes == 7


def test_nothing_is_visible_before_its_roll() -> None:
    """Rows wait in an attempt that no reader sees; closing the archiver removes it."""
    world = World()
    world.commit(0, 3)
    archiver = world.run()
    report = archiver.turn(0.1)
    assert (world.rows(), world.files.attempts, report.pending_rows) == ({}, 1, 3)
    archiver.close()
    assert world.files.attempts == 0
    world.roll(3)
    world.run()
    assert world.rows() == {name_of(0): [0, 1, 2]}


def test_a_turn_ends_at_its_deadline_whatever_ends_it_met() -> None:
    """The end of one partition is an offset, and no time."""
    world = World(slots=2)
    world.commit(0, 2, slot=0, after="interval")
    for at in range(30):
        world.commit(at, at + 1, slot=1)
    world.archiver(_OneByOne).turn(20.0)
    assert world.clock.monotonic() == pytest.approx(20.0)


def test_a_boundary_before_a_commit_keeps_two_dates_apart() -> None:
    """Rows behind the boundary stand under the new date."""
    world = World()
    world.commit(0, 2)
    world.commit(2, 4, date="2026-02-01", before="date", after="drain")
    world.run()
    assert world.rows() == {name_of(0): [0, 1], name_of(3, date="2026-02-01"): [2, 3]}


def test_partitions_of_the_journal_go_their_own_way() -> None:
    """A slot without a roll holds no other back."""
    world = World(slots=2)
    world.commit(0, 2, slot=0, after="interval")
    world.commit(0, 2, slot=1)
    report = world.run().turn(0.1)
    assert list(world.rows()) == [name_of(0)]
    assert report.pending_rows == 2
    assert report.rolled == {0: 2}


def test_a_commit_without_accepted_rows_makes_no_file() -> None:
    """Only dead letters, then a boundary: no file, and no error."""
    world = World()
    world.commit(0, 2, values=[b"bad", b"bad"], after="interval")
    report = world.run().turn(0.1)
    assert world.rows() == {}
    assert report.rolled == {0: 2}
    assert report.oldest == 0.0


# One journal of two owners in a row: (first, next, roll after, date).
COMMITS = st.lists(
    st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), min_size=1, max_size=8
)


def journal_of(world: World, commits: Sequence[tuple[int, bool, bool]]) -> None:
    at, date = 0, 1
    world.roll(0)
    for count, rolls, next_day in commits:
        before = None
        if next_day:
            date, before = date + 1, "date"
        world.commit(
            at,
            at + count,
            date=f"2026-01-{date:02d}",
            before=before,
            after="interval" if rolls else None,
        )
        at += count
    world.roll(at)


@settings(max_examples=25, deadline=None)
@given(COMMITS, st.lists(st.integers(0, 40), max_size=3))
def test_restarts_make_the_same_files(
    commits: list[tuple[int, bool, bool]], stops: list[int]
) -> None:
    """Killed after any records, with any turns between: the same names with the same rows."""
    whole, broken = World(), World()
    journal_of(whole, commits)
    journal_of(broken, commits)
    whole.run()
    for stop in stops:
        archiver = broken.archiver(_OneByOne)
        for _ in range(stop):
            archiver.turn(0.5)
    broken.archiver().turn(1000.0)
    assert broken.files.visible.keys() == whole.files.visible.keys()
    for name, table in whole.files.visible.items():
        assert broken.files.visible[name].equals(table)


@settings(max_examples=20, deadline=None)
@given(COMMITS, st.integers(0, 6))
def test_a_crash_between_publish_and_progress_makes_the_file_again(
    commits: list[tuple[int, bool, bool]], crash_at: int
) -> None:
    """A file that is visible and not yet noted is written once more, equal in name and rows."""
    world = World()
    journal_of(world, commits)
    saves = iter(range(1000))

    class Crash(Exception):
        pass

    def hook(effect: str, moment: str) -> None:
        if (effect, moment) == ("commit_offsets", "before") and next(saves) == crash_at:
            raise Crash

    world.log._hook = hook
    archiver = world.archiver(_OneByOne)
    try:
        for _ in range(60):
            archiver.turn(0.5)
    except Crash:
        before = dict(world.files.visible)
        world.archiver().turn(1000.0)
        for name, table in before.items():
            assert world.files.visible[name].equals(table)
    offsets = [o for offsets in world.rows().values() for o in offsets]
    assert sorted(offsets) == list(range(sum(count for count, _, _ in commits)))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_overlaps_and_zombies_leave_each_row_once(data: st.DataObject) -> None:
    """At least once: owners that start where offsets stood, and write on side by side."""
    world = World()
    committed = 0
    owners: list[tuple[str, int]] = []
    durable = 0
    for number in range(data.draw(st.integers(1, 3))):
        owners.append((f"w{number}", committed))
        world.roll(committed, writer=f"w{number}")
        for _ in range(data.draw(st.integers(1, 4))):
            index = data.draw(st.integers(0, len(owners) - 1))
            writer, at = owners[index]
            following = at + data.draw(st.integers(1, 4))
            world.commit(at, following, writer=writer)
            durable = max(durable, following)
            owners[index] = (writer, following)
            if data.draw(st.booleans()):
                committed = following
            if data.draw(st.booleans()):
                world.roll(following, writer=writer)
    world.roll(durable)
    for _ in range(data.draw(st.integers(0, 2))):
        archiver = world.archiver(_OneByOne)
        for _ in range(data.draw(st.integers(0, 12))):
            archiver.turn(0.5)
    world.archiver().turn(1000.0)
    offsets = [offset for found in world.rows().values() for offset in found]
    assert sorted(offsets) == list(range(durable))


def test_chunks_count_without_their_commit() -> None:
    """Under at least once a crash may leave chunks alone: what the successor repeats is dropped."""
    world = World()
    world.commit(0, 3, writer="old", only={journal.CHUNK})
    world.roll(0, writer="new")
    world.commit(0, 4, writer="new", after="interval")
    world.run()
    assert list(world.rows().values()) == [[0, 1, 2], [3]]


def test_a_boundary_within_a_commit_loses_none_of_it() -> None:
    """A successor's roll comes between a zombie's chunk and commit, and goes on behind them."""
    world = World()
    world.commit(0, 3, writer="old", only={journal.CHUNK})
    world.roll(0, writer="new")
    world.sequences["old"] -= 1
    world.commit(0, 3, writer="old", only={journal.COMMIT})
    world.roll(3, writer="newest")
    world.commit(3, 5, writer="newest", after="interval")
    world.run()
    assert list(world.rows().values()) == [[0, 1, 2], [3, 4]]


SPANS = st.dictionaries(
    st.integers(0, 2), st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=3
)


@given(st.lists(SPANS, max_size=20))
def test_what_is_accepted_continues_what_was(commits: list[dict[int, tuple[int, int]]]) -> None:
    """Per partition without gap and without overlap, and everything that reaches further."""
    expected: dict[int, int] = {}
    for spans in commits:
        listed = [(number, first, first + count) for number, (first, count) in spans.items()]
        accepted = accept(expected, listed)
        for number, (first, count) in spans.items():
            due = expected.get(number, first)
            reaches = first <= due < first + count
            assert (number in accepted) == reaches
            if reaches:
                assert accepted[number] == (due, first + count)
        expected.update({number: following for number, (_, following) in accepted.items()})


def test_only_keeps_the_rows_of_the_accepted_ranges() -> None:
    """By partition and offset; nothing accepted keeps nothing."""
    rows = score(batch_of(1, "in", [(0, n, b"v") for n in range(4)] + [(1, 2, b"v")])).rows
    table = pa.Table.from_batches([rows])
    kept = only(table, {0: (1, 3)})
    assert kept["offset"].to_pylist() == [1, 2]
    assert set(kept["partition"].to_pylist()) == {0}
    assert only(table, {}).num_rows == 0


def test_the_age_of_what_waits_is_reported() -> None:
    """Seconds since the oldest journal record whose rows no reader sees yet."""
    world = World()
    world.commit(0, 2)
    world.clock.advance(30.0)
    report = world.run().turn(0.1)
    assert report.oldest == pytest.approx(30.0, abs=1.0)


def test_a_full_disk_stops_it_without_losing_rows() -> None:
    """What could not be written is written by the next archiver that can."""
    world = World()
    world.commit(0, 2, after="interval")
    world.files.full = True
    with pytest.raises(ClusterUnfit, match=r"output\.parquet"):
        world.run()
    world.files.full = False
    world.run()
    assert list(world.rows().values()) == [[0, 1]]


def test_progress_out_of_the_journals_range_is_refused() -> None:
    """Retention removed what was not archived: an error, never a silent gap."""
    world = World()
    world.commit(0, 2, after="interval")
    world.run()
    world.commit(2, 4)
    world.log.truncate(Partition("journal", 0), 5)
    with pytest.raises(ClusterUnfit):
        world.run()


def test_idle_progress_is_kept_alive() -> None:
    """An archiver without work commits its progress within the hour."""
    world = World()
    world.commit(0, 2, after="interval")
    archiver = world.run()
    group = ("job.archive", [Partition("journal", 0)])
    before = world.log.committed(*group)
    saved: list[str] = []
    world.log._hook = lambda effect, moment: saved.append(f"{moment} {effect}")
    world.clock.advance(3601.0)
    archiver.turn(0.1)
    assert "after commit_offsets" in saved
    assert world.log.committed(*group) == before


def test_a_foreign_note_is_refused() -> None:
    """Another client's commit under the archive's group is named, not guessed at."""
    from pipeline.layout import Stored

    world = World()
    world.log.commit_offsets("job.archive", {Partition("journal", 0): Stored(0, "hello")})
    with pytest.raises(ClusterUnfit, match="'hello'"):
        world.run()


def test_commits_without_rows_are_not_what_waits() -> None:
    """Positions that moved over markers leave no age behind, however long no roll follows."""
    world = World()
    world.commit(0, 2, after="interval")
    world.moved(2, 5)
    world.clock.advance(100.0)
    report = world.run().turn(0.1)
    assert (report.oldest, report.pending_rows, report.lag) == (0.0, 0, 0)
    world.commit(5, 6, after="drain")
    world.run()
    assert world.rows() == {name_of(0): [0, 1], name_of(4): [5]}


def test_a_slot_may_own_many_partitions() -> None:
    """The note of as many as a slot may own fits what a broker keeps beside an offset."""
    world = World()
    positions = {Partition("in", 10 * n): 10**11 + n for n in range(MOST_PARTITIONS)}
    value = journal.roll("w", 1, 1, "drain", "in", positions)
    world.log.append(Partition("journal", 0), journal.ROLL_KEY, value)
    world.run()


def test_a_partition_goes_to_another_slot_and_back_without_a_gap() -> None:
    """Each generation begins anew: what an older one expected here would refuse all that follows."""
    world = World(slots=3)
    world.roll(0, slot=1, number=4, reason="claim")
    world.commit(0, 2, slot=1, number=4)
    world.roll(2, slot=1, number=4, layout=2, reason="handover")
    world.roll(2, slot=0, number=4, layout=2, reason="claim")
    world.commit(2, 5, slot=0, number=4, layout=2)
    world.roll(5, slot=0, number=4, layout=3, reason="handover")
    world.roll(5, slot=1, number=4, layout=3, reason="claim")
    world.commit(5, 6, slot=1, number=4, layout=3, after="drain")
    report = world.run().turn(0.1)
    assert sorted(world.rows().values()) == [[0, 1], [2, 3, 4], [5]]
    assert report.rolled == {4: 6}
    assert report.oldest_layout is None


@given(st.lists(st.integers(0, 30), max_size=3))
@settings(max_examples=15, deadline=None)
def test_restarts_around_a_hand_over_make_the_same_files(stops: list[int]) -> None:
    """A journal partition that nobody rolls any more is read to its end like the others."""
    world = World(slots=2)
    for slot in (0, 1):
        world.roll(0, slot=slot, reason="claim")
        world.commit(0, 3, slot=slot)
        world.roll(3, slot=slot, layout=2, reason="handover")
    world.roll(3, slot=0, number=1, layout=2, reason="claim")
    world.commit(3, 5, slot=0, number=1, layout=2, after="interval")
    world.commit(5, 6, slot=0, number=1, layout=2, after="drain")
    for stop in stops:
        archiver = world.archiver(_OneByOne)
        for _ in range(stop):
            archiver.turn(0.5)
    world.archiver().turn(1000.0)
    assert sorted(world.rows().values()) == [[0, 1, 2], [0, 1, 2], [3, 4], [5]]


def test_a_reset_is_the_new_expectation_forwards_and_backwards() -> None:
    """Rows that are scored again are archived again; a gap that was skipped is none."""
    world = World()
    world.commit(0, 4)
    world.roll(1, layout=2, reason="offsets")
    world.commit(1, 3, layout=2)
    world.roll(90, layout=3, reason="offsets")
    world.commit(90, 92, layout=3, after="drain")
    report = world.run().turn(0.1)
    assert list(world.rows().values()) == [[0, 1, 2, 3], [1, 2], [90, 91]]
    assert report.rolled == {0: 92}


def test_a_zombie_of_an_older_layout_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """Its rows are scored by others since the hand-over; its boundaries bound nothing. It is said."""
    world = World()
    world.roll(0, reason="claim")
    world.commit(0, 2)
    world.roll(2, layout=2, reason="handover")
    world.commit(2, 4, writer="zombie", after="interval")
    world.clock.advance(100.0)
    report = world.run().turn(0.1)
    assert list(world.rows().values()) == [[0, 1]]
    assert (report.oldest, report.pending_rows, report.rolled) == (0.0, 0, {})
    assert "2 rows of a feeder of layout 1" in caplog.text


def test_what_an_older_layout_left_is_told_until_it_is_archived() -> None:
    """A run waits for it before it says that all is in Parquet."""
    world = World(slots=2)
    world.commit(0, 2, slot=1)
    world.roll(2, slot=0, number=1, layout=2, reason="claim")
    assert world.run().turn(0.1).oldest_layout == 1
    world.roll(2, slot=1, layout=2, reason="handover")
    assert world.run().turn(0.1).oldest_layout is None


def test_progress_goes_on_over_the_marker_behind_a_boundary() -> None:
    """Else retention, which removes the marker too, would leave the progress out of range."""
    world = World()
    transaction = world.log.begin("t", world.log.init("t"))
    value = journal.roll("w", 1, 1, "drain", "in", {Partition("in", 0): 0})
    place = Partition("journal", 0)
    world.log.append(place, journal.ROLL_KEY, value, transaction=transaction)
    world.log.commit(transaction)
    world.run()
    assert world.log.committed("job.archive", [place])[place].offset == 2
    world.log.truncate(place, 2)
    world.run()


def test_progress_stays_before_what_waits_for_its_boundary() -> None:
    """The end of the journal is no boundary: rows that are not in a file are read again."""
    world = World()
    world.roll(0)
    world.commit(0, 2)
    archiver = world.run()
    world.clock.advance(3601.0)
    archiver.turn(0.1)
    world.roll(2)
    world.run()
    assert list(world.rows().values()) == [[0, 1]]


@given(st.integers(0, 99), SPANS.map(lambda s: {n: at for n, (at, _) in s.items()}))
def test_a_note_reads_back(layout: int, offsets: dict[int, int]) -> None:
    """Layout, what is expected and what is rolled, each as it was."""
    archived = Archived(layout, {**offsets, 7: 3}, offsets)
    assert decode_note(encode_note(archived)) == archived
