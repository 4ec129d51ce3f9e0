"""The ledger: whatever the order in which batches settle, each record comes out exactly once."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batch import Batch, Partition, Settled, Span
from pipeline.ledger import Ledger
from pipeline.testing import batch_of, score

TOPIC = "in"


def offsets_of(settled: Settled) -> list[tuple[int, int]]:
    numbers = [s.partition.number for s in settled.batch.spans for _ in range(s.rows)]
    return list(zip(numbers, settled.batch.offsets.to_pylist(), strict=True))


class Stream:
    """Records of three partitions with holes, and what the ledger has been told of them."""

    def __init__(self, draw: st.DataObject) -> None:
        self.draw = draw
        self.next = {number: draw.draw(st.integers(0, 3)) for number in range(3)}
        self.ledger = Ledger({Partition(TOPIC, n): at for n, at in self.next.items()})
        self.out: dict[int, Batch] = {}
        self.ids = 0
        self.entered: list[tuple[int, int]] = []
        self.taken: list[tuple[int, int]] = []
        self.unsettled: set[tuple[int, int]] = set()

    def open(self) -> None:
        rows, ends, firsts = [], {}, {}
        numbers = self.draw.draw(
            st.lists(st.integers(0, 2), unique=True, min_size=1, max_size=3).map(sorted)
        )
        for number in numbers:
            firsts[number] = offset = self.next[number]
            for _ in range(self.draw.draw(st.integers(1, 4))):
                offset += self.draw.draw(st.integers(0, 2))
                rows.append((number, offset, self.draw.draw(st.sampled_from([b"v", b"bad", None]))))
                offset += 1
            ends[number] = self.next[number] = offset + self.draw.draw(st.integers(0, 1))
        self.ids += 1
        plain = batch_of(self.ids, TOPIC, rows, ends)
        spans = tuple(
            Span(s.partition, firsts[s.partition.number], s.next, s.rows) for s in plain.spans
        )
        batch = Batch(plain.id, spans, plain.offsets, plain.timestamps, plain.keys, plain.values)
        self.ledger.open(batch)
        self.out[batch.id] = batch
        self.entered += [(n, o) for n, o, _ in rows]
        self.unsettled |= {(n, o) for n, o, _ in rows}

    def skip(self) -> None:
        number = self.draw.draw(st.integers(0, 2))
        end = self.next[number] + self.draw.draw(st.integers(1, 2))
        self.ledger.skip(Span(Partition(TOPIC, number), self.next[number], end, 0))
        self.next[number] = end

    def settle(self) -> None:
        batch = self.out.pop(self.draw.draw(st.sampled_from(sorted(self.out))))
        self.ledger.settle(score(batch))
        numbers = [s.partition.number for s in batch.spans for _ in range(s.rows)]
        self.unsettled -= set(zip(numbers, batch.offsets.to_pylist(), strict=True))

    def split(self) -> None:
        batch = self.out[self.draw.draw(st.sampled_from(sorted(self.out)))]
        if batch.rows == 1:
            return
        cut = self.draw.draw(st.integers(1, batch.rows - 1))
        del self.out[batch.id]
        parts = [batch.slice(0, cut, self.ids + 1), batch.slice(cut, batch.rows, self.ids + 2)]
        self.ids += 2
        self.ledger.split(batch, parts)
        self.out.update({part.id: part for part in parts})

    def take(self) -> None:
        settled = self.ledger.take()
        for one in settled:
            assert one.scored.rows.num_rows + len(one.scored.rejects) == one.batch.rows
            rows = offsets_of(one)
            assert not set(rows) & self.unsettled
            self.taken += rows
        for partition, position in self.ledger.positions().items():
            waiting = [o for n, o in self.unsettled if n == partition.number]
            assert position <= min(waiting, default=position)
            taken = [o for n, o in self.taken if n == partition.number]
            assert position > max(taken, default=-1)
        self.ledger.written(settled)

    def step(self, action: str) -> None:
        if action in {"settle", "split"} and not self.out:
            return
        getattr(self, action)()


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_each_record_comes_out_exactly_once_in_order(data: st.DataObject) -> None:
    """Settled, split and taken in any order: once each, in offset order, behind no unsettled one."""
    stream = Stream(data)
    actions = st.sampled_from(["open", "open", "skip", "settle", "settle", "split", "take"])
    for action in data.draw(st.lists(actions, max_size=25)):
        stream.step(action)
    while stream.out:
        stream.settle()
    stream.take()
    assert Counter(stream.taken) == Counter(stream.entered)
    for number in range(3):
        offsets = [offset for n, offset in stream.taken if n == number]
        assert offsets == sorted(offsets)
    positions = {p.number: at for p, at in stream.ledger.positions().items()}
    assert positions == stream.next
    assert stream.ledger.rows == 0


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_bytes_are_back_at_nothing_once_everything_is_written(data: st.DataObject) -> None:
    """Batches that are split, or taken partition by partition, leave no bytes behind."""
    stream = Stream(data)
    for action in data.draw(
        st.lists(st.sampled_from(["open", "settle", "split", "take"]), max_size=20)
    ):
        stream.step(action)
    while stream.out:
        stream.settle()
    stream.take()
    assert stream.ledger.nbytes == 0


def test_a_slow_batch_holds_back_its_own_partitions_only() -> None:
    """Of a batch over two partitions, the one whose turn it is comes out alone."""
    a, b = Partition(TOPIC, 0), Partition(TOPIC, 1)
    ledger = Ledger({a: 0, b: 0})
    first = batch_of(1, TOPIC, [(0, 0, b"x")])
    second = batch_of(2, TOPIC, [(0, 1, b"y"), (1, 0, b"z")])
    ledger.open(first)
    ledger.open(second)
    ledger.settle(score(second))
    assert [offsets_of(s) for s in ledger.take()] == [[(1, 0)]]
    assert ledger.positions() == {a: 0, b: 1}
    ledger.settle(score(first))
    assert [offsets_of(s) for s in ledger.take()] == [[(0, 0)], [(0, 1)]]
    assert ledger.positions() == {a: 2, b: 1}


def test_rows_count_until_they_are_written() -> None:
    """What is taken still bounds the feeder until its commit holds."""
    ledger = Ledger({Partition(TOPIC, 0): 0})
    batch = batch_of(1, TOPIC, [(0, 0, b"x"), (0, 1, b"y")])
    ledger.open(batch)
    ledger.settle(score(batch))
    taken = ledger.take()
    assert ledger.rows == 2
    ledger.written(taken)
    assert ledger.rows == 0
