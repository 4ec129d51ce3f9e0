"""The journal: scored rows as Arrow chunks, commit records, roll records; encode and decode.

In one transaction stand, in this order: a roll record where a boundary comes first, the chunks of
the commit, its commit record, a roll record where a boundary follows. The archiver makes Parquet
from the journal alone, and takes file boundaries from roll records alone. Each record means the
same whatever stands around it: without transactions those of two writers mix.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.batch import Partition, runs

CHUNK, COMMIT, ROLL = "chunk", "commit", "roll"
# Reasons of rolls that begin a generation of the layout: the slot's partitions go to others, or
# its offsets were set anew.
HANDOVER, OFFSETS = "handover", "offsets"

# The broker's and librdkafka's default limit for a record is 1,000,000 bytes or a little more,
# counted before compression by the one and after it by the other.
CHUNK_BYTES = 900_000


class CommitRecord(msgspec.Struct, frozen=True):
    """What one commit holds. `spans` are `[partition, first, next]`; `chunks` precede it.

    `layout` is the generation of the layout that its writer claimed in.
    """

    writer: str
    epoch: int
    layout: int
    sequence: int
    topic: str
    spans: list[tuple[int, int, int]]
    chunks: int
    rows_in: int
    rows_out: int
    dead: int
    model_name: str
    model_version: str
    date: str


class RollRecord(msgspec.Struct, frozen=True):
    """A file boundary. `positions` are the next offsets of the slot's partitions there.

    `layout` is the generation of the records that follow. `outputs` stands only where the reason
    is "offsets", since there a generation begins whose offsets do not continue those before: by
    topic, the end of each partition of the predictions and dead-letter topics, so that whatever an
    earlier generation wrote there lies below it.
    """

    writer: str
    epoch: int
    layout: int
    reason: str
    topic: str
    positions: dict[str, int]
    outputs: dict[str, list[int]] | None = None


class Key(msgspec.Struct, frozen=True, array_like=True):
    """What a record is; travels as its key, in JSON. All but the kind are a chunk's.

    `spans` are `[partition, first, next]`: the offsets that the chunk answers for, which continue
    those of its commit so far, up to its last row in each partition.
    """

    kind: str
    writer: str = ""
    sequence: int = 0
    layout: int = 0
    date: str = ""
    spans: list[tuple[int, int, int]] = []


def split(rows: pa.RecordBatch, limit: int = CHUNK_BYTES) -> Iterator[pa.RecordBatch]:
    """The rows of each chunk: at most about `limit` bytes before compression, in order.

    A single row over the limit goes alone: the scoring has refused those that no topic takes.
    """
    if rows.nbytes > limit and rows.num_rows > 1:
        half = rows.num_rows // 2
        yield from split(rows.slice(0, half), limit)
        yield from split(rows.slice(half), limit)
    elif rows.num_rows:
        yield rows


def ends(rows: pa.RecordBatch) -> dict[int, int]:
    """The offset after the last row of each input partition; in each of them rows ascend."""
    numbers = rows.column("partition").to_numpy()
    last = np.array(runs(numbers)[1:]) - 1
    offsets = rows.column("offset").to_numpy()[last] + 1
    return dict(zip(numbers[last].tolist(), offsets.tolist(), strict=True))


def write_chunk(rows: pa.RecordBatch) -> bytes:
    """One chunk, as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def read_chunk(value: bytes) -> pa.Table:
    """The rows of one chunk, with the schema and its metadata."""
    with pa.ipc.open_stream(value) as reader:
        return reader.read_all()


COMMIT_KEY = msgspec.json.encode(Key(COMMIT))
ROLL_KEY = msgspec.json.encode(Key(ROLL))


def read_key(key: bytes) -> Key:
    """Decode the key of any record."""
    return msgspec.json.decode(key, type=Key)


def read_commit(value: bytes) -> CommitRecord:
    """Decode a commit record."""
    return msgspec.json.decode(value, type=CommitRecord)


def read_roll(value: bytes) -> RollRecord:
    """Decode a roll record."""
    return msgspec.json.decode(value, type=RollRecord)


def roll(
    writer: str,
    epoch: int,
    layout: int,
    reason: str,
    topic: str,
    positions: Mapping[Partition, int],
    outputs: Mapping[str, Sequence[int]] | None = None,
) -> bytes:
    """Encode a roll record of the layout's generation."""
    return msgspec.json.encode(
        RollRecord(
            writer=writer,
            epoch=epoch,
            layout=layout,
            reason=reason,
            topic=topic,
            positions={str(p.number): o for p, o in sorted(positions.items())},
            outputs=None if outputs is None else {t: list(ends) for t, ends in outputs.items()},
        )
    )


@dataclass(frozen=True, slots=True)
class Unrolled:
    """The rows that the newest roll record does not cover: since when, how many bytes, what date.

    Its owner is the committer, which keeps what comes out.
    """

    since: float | None = None
    nbytes: int = 0
    date: str | None = None

    def plus(self, now: float, nbytes: int, date: str) -> "Unrolled":
        """After a commit of `nbytes` at `now` with rows for the files of `date`."""
        return Unrolled(now if self.since is None else self.since, self.nbytes + nbytes, date)

    def due(self, now: float, interval: float, max_bytes: int) -> bool:
        """Whether a boundary belongs here."""
        return self.since is not None and (now - self.since >= interval or self.nbytes >= max_bytes)
