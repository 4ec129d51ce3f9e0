"""The journal: chunks hold the rows, records read back as they were written."""

import msgspec
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import journal
from pipeline.batch import Partition
from pipeline.testing import batch_of, score

# The schema with its metadata and the frame of an Arrow stream, around a chunk's columns.
FRAME_BYTES = 6000


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=300), max_size=60),
    st.integers(300, 5000),
    st.integers(0, 20),
)
def test_chunks_together_are_the_rows_each_under_the_limit(
    values: list[bytes], limit: int, skip: int
) -> None:
    """In order and whole, also for rows that are a slice of others; none but a single row is over."""
    rows = pa.RecordBatch.from_pydict(
        {
            "offset": pa.array(range(len(values)), pa.int64()),
            "value": pa.array(values, pa.binary()),
            "list": pa.array([list(v[:9]) for v in values], pa.list_(pa.uint8())),
        }
    ).slice(skip)
    parts = [journal.write_chunk(part) for part in journal.split(rows, limit)]
    tables = [journal.read_chunk(part) for part in parts]
    if rows.num_rows == 0:
        assert parts == []
        return
    assert pa.concat_tables(tables).equals(pa.Table.from_batches([rows]))
    for part, table in zip(parts, tables, strict=True):
        assert table.num_rows == 1 or len(part) <= limit + FRAME_BYTES
        assert table.num_rows == 1 or table.nbytes <= limit


def test_a_chunk_keeps_the_schema_and_its_metadata() -> None:
    """The archiver needs nothing beside the chunk to write Parquet."""
    rows = score(batch_of(1, "in", [(0, 0, b"x")])).rows
    (part,) = journal.split(rows)
    assert journal.read_chunk(journal.write_chunk(part)).schema.equals(
        rows.schema, check_metadata=True
    )


def test_a_full_chunk_fits_a_record_of_the_default_size() -> None:
    """Rows just under the split come out under 1,000,000 bytes with all that frames them."""
    values = [bytes([n % 251]) * 990 for n in range(3000)]
    rows = pa.RecordBatch.from_pydict({"value": pa.array(values, pa.binary())})
    assert max(len(journal.write_chunk(part)) for part in journal.split(rows)) <= 1_000_000


def test_the_ends_of_rows_are_those_of_their_partitions() -> None:
    """The offset after the last row of each; none of no rows."""
    rows = score(batch_of(1, "in", [(0, 4, b"a"), (0, 9, b"b"), (3, 7, b"c")])).rows
    assert journal.ends(rows) == {0: 10, 3: 8}
    assert journal.ends(rows.slice(0, 1)) == {0: 5}


NAMES = st.text(min_size=1, max_size=10)
OFFSETS = st.integers(0, 2**62)
SPANS = st.lists(st.tuples(st.integers(0, 99), OFFSETS, OFFSETS), max_size=3)


@given(
    st.builds(
        journal.CommitRecord,
        writer=NAMES,
        epoch=OFFSETS,
        layout=OFFSETS,
        sequence=OFFSETS,
        topic=NAMES,
        spans=SPANS,
        chunks=st.integers(0, 9),
        rows_in=OFFSETS,
        rows_out=OFFSETS,
        dead=OFFSETS,
        model_name=NAMES,
        model_version=NAMES,
        date=st.just("2026-01-31"),
    )
)
def test_a_commit_record_reads_back(record: journal.CommitRecord) -> None:
    """What is encoded is decoded, field by field."""
    import msgspec

    assert journal.read_commit(msgspec.json.encode(record)) == record


@given(
    NAMES,
    OFFSETS,
    st.dictionaries(st.integers(0, 99), OFFSETS, max_size=4),
    st.none() | st.dictionaries(NAMES, st.lists(OFFSETS, max_size=4), max_size=2),
)
def test_a_roll_record_reads_back(
    writer: str, epoch: int, positions: dict[int, int], outputs: dict[str, list[int]] | None
) -> None:
    """Positions are by partition number; where outputs began stands only where it was given."""
    given = {Partition("in", n): o for n, o in positions.items()}
    value = journal.roll(writer, epoch, 3, "offsets", "in", given, outputs)
    expected = {str(n): o for n, o in positions.items()}
    assert journal.read_roll(value) == journal.RollRecord(
        writer, epoch, 3, "offsets", "in", expected, outputs
    )


@given(st.builds(journal.Key, kind=st.just("chunk"), writer=NAMES, spans=SPANS))
def test_keys_tell_the_kinds_apart(key: journal.Key) -> None:
    """A chunk's key says what it answers for; commit and roll have keys of their own."""
    assert journal.read_key(msgspec.json.encode(key)) == key
    assert journal.read_key(journal.COMMIT_KEY).kind == journal.COMMIT
    assert journal.read_key(journal.ROLL_KEY).kind == journal.ROLL


def test_a_boundary_is_due_by_age_or_bytes_and_never_without_rows() -> None:
    """The age counts from the first commit after the last boundary."""
    empty = journal.Unrolled()
    assert not empty.due(1e9, 60.0, 0)
    some = empty.plus(10.0, 100, "2026-01-31").plus(40.0, 50, "2026-01-31")
    assert (some.since, some.nbytes, some.date) == (10.0, 150, "2026-01-31")
    assert not some.due(69.9, 60.0, 151)
    assert some.due(70.0, 60.0, 151)
    assert some.due(11.0, 60.0, 150)
