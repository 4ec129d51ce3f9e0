"""What every file store promises, asked of the double and of a local disk alike."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.edges.parquet import LocalFiles, VisibleFiles
from pipeline.errors import ClusterUnfit
from pipeline.ports import Attempt, FileStore, ParquetFiles, Unreadable
from pipeline.testing import MemoryFiles

SCHEMA = pa.schema(
    [pa.field("n", pa.int64()), pa.field("name", pa.dictionary(pa.int32(), pa.string()))],
    metadata={"headrace.format": "1"},
)
NAME = "date=2026-01-31/0000-00000000000000000007.parquet"


class World(Protocol):
    """A store, and what a reader of it sees."""

    store: FileStore
    reader: ParquetFiles

    def tear(self, name: str) -> None: ...

    def visible(self) -> dict[str, pa.Table]: ...

    def leftovers(self) -> int: ...

    def refuse(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.store = self.reader = MemoryFiles()

    def tear(self, name: str) -> None:
        self.store.torn.add(name)

    def visible(self) -> dict[str, pa.Table]:
        return dict(self.store.visible)

    def leftovers(self) -> int:
        return self.store.attempts

    def refuse(self) -> None:
        self.store.full = True


class LocalWorld:
    def __init__(self, folder: Path) -> None:
        self.root = folder / "out" / "fraud"
        self.store = LocalFiles(self.root)
        self.reader = VisibleFiles(self.root)

    def tear(self, name: str) -> None:
        """As after a write that stopped before the footer."""
        path = self.root / name
        path.write_bytes(path.read_bytes()[:-20])

    def visible(self) -> dict[str, pa.Table]:
        """As a reader of the whole folder beside it would find them."""
        paths = [
            path
            for path in self.root.parent.rglob("*.parquet")
            if not any(part.startswith(".") for part in path.relative_to(self.root.parent).parts)
        ]
        return {str(path.relative_to(self.root)): pq.ParquetFile(path).read() for path in paths}

    def leftovers(self) -> int:
        return sum(1 for path in (self.root.parent / ".fraud.attempts").glob("*"))

    def refuse(self) -> None:
        """Put a file where the folder of attempts belongs: no user, root included, gets past it."""
        hidden = self.root.parent / ".fraud.attempts"
        if hidden.exists():
            hidden.rmdir()
        hidden.write_bytes(b"")


@pytest.fixture(params=[MemoryWorld, LocalWorld], ids=["memory", "local"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Give an empty store of the double, then one on the local disk."""
    make: Callable[..., World] = request.param
    return make() if make is MemoryWorld else make(tmp_path)


def table(*numbers: int) -> pa.Table:
    names = pa.array([str(n) for n in numbers], pa.string()).dictionary_encode()
    return pa.Table.from_arrays([pa.array(numbers, pa.int64()), names], schema=SCHEMA)


def written(world: World, *groups: tuple[int, ...], name: str = NAME) -> None:
    attempt = world.store.attempt(name, SCHEMA, "zstd")
    for numbers in groups:
        attempt.write(table(*numbers))
    attempt.publish()


def test_nothing_is_visible_until_published_and_then_all_of_it(world: World) -> None:
    """Rows of every group, in order, under the name, with the schema and its metadata."""
    attempt = world.store.attempt(NAME, SCHEMA, "zstd")
    attempt.write(table(1, 2))
    assert world.visible() == {}
    attempt.write(table(3))
    assert world.visible() == {}
    attempt.publish()
    ((name, found),) = world.visible().items()
    assert name == NAME
    assert found["n"].to_pylist() == [1, 2, 3]
    assert found["name"].to_pylist() == ["1", "2", "3"]
    assert found.schema.metadata[b"headrace.format"] == b"1"
    assert world.leftovers() == 0


def test_what_is_visible_is_read_back(world: World) -> None:
    """In the order of its rows, all columns or those that are asked for, and by sorted names."""
    later = NAME.replace("7.parquet", "8.parquet")
    written(world, (6,), name=later)
    written(world, tuple(range(9)), (9, 10))
    in_the_making = world.store.attempt(NAME.replace("7.parquet", "9.parquet"), SCHEMA, "zstd")
    in_the_making.write(table(1))
    assert world.reader.names() == [NAME, later]
    found = pa.concat_tables(world.reader.rows(NAME))
    assert found["n"].to_pylist() == list(range(11))
    assert found["name"].to_pylist() == [str(n) for n in range(11)]
    assert pa.concat_tables(world.reader.rows(NAME, ["n"])).column_names == ["n"]
    in_the_making.abandon()


def test_a_torn_file_is_told_from_a_whole_one(world: World) -> None:
    """Whoever reads it learns that it is none, before or in the middle of its rows."""
    written(world, (1, 2, 3))
    world.tear(NAME)
    with pytest.raises(Unreadable):
        list(world.reader.rows(NAME))


def test_what_is_abandoned_leaves_nothing(world: World) -> None:
    """With or without rows, and abandoning twice is no error."""
    for rows in ((), (1, 2)):
        attempt = world.store.attempt(NAME, SCHEMA, "zstd")
        if rows:
            attempt.write(table(*rows))
        attempt.abandon()
        attempt.abandon()
    assert (world.visible(), world.leftovers()) == ({}, 0)


def test_publishing_again_gives_the_same_content(world: World) -> None:
    """The second takes the place of the first in one step."""
    written(world, (1, 2), (3,))
    before = world.visible()
    written(world, (1, 2), (3,))
    after = world.visible()
    assert list(after) == [NAME]
    assert after[NAME].equals(before[NAME])


def test_two_attempts_at_one_name_do_not_meet(world: World) -> None:
    """A paused archiver and its successor write the same file side by side."""
    one = world.store.attempt(NAME, SCHEMA, "zstd")
    two = world.store.attempt(NAME, SCHEMA, "zstd")
    one.write(table(1))
    two.write(table(1))
    two.publish()
    one.publish()
    assert world.visible()[NAME]["n"].to_pylist() == [1]


@pytest.mark.parametrize("compression", ["zstd", "snappy", "lz4", "gzip", "none"])
def test_every_compression_of_the_config_is_known(world: World, compression: str) -> None:
    """What `output.compression` offers can be written and read."""
    attempt = world.store.attempt(NAME, SCHEMA, compression)
    attempt.write(table(1))
    attempt.publish()
    assert world.visible()[NAME]["n"].to_pylist() == [1]


def test_a_store_that_refuses_says_so_as_the_operators_matter(world: World) -> None:
    """ClusterUnfit names the setting; nothing becomes visible."""
    world.refuse()
    with pytest.raises(ClusterUnfit, match=r"output\.parquet"):
        written(world, (1,))
    assert world.visible() == {}


def fill(attempt: Attempt) -> None:
    for _ in range(100):
        attempt.write(table(*range(10_000)))
    attempt.publish()


def test_a_disk_that_fills_up_refuses_and_shows_nothing(tmp_path: Path) -> None:
    """`/dev/full` takes no byte: the attempt fails with the operator's error, and can be abandoned."""
    world = LocalWorld(tmp_path)
    attempt = world.store.attempt(NAME, SCHEMA, "none")
    with Path("/dev/full").open("wb", buffering=0) as full:
        os.dup2(full.fileno(), attempt._file.fileno())
        with pytest.raises(ClusterUnfit, match=r"output\.parquet"):
            fill(attempt)
    attempt.abandon()
    assert (world.visible(), world.leftovers()) == ({}, 0)


def test_a_folder_that_no_file_can_be_made_in_is_refused_at_the_start(tmp_path: Path) -> None:
    """The run ends before a record is scored."""
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(ClusterUnfit, match=r"output\.parquet"):
        LocalFiles(tmp_path / "out" / "fraud")


def test_only_old_attempts_are_cleared_away(tmp_path: Path) -> None:
    """A young one may belong to a paused archiver, whose file is then still whole."""
    world = LocalWorld(tmp_path)
    young = world.store.attempt(NAME, SCHEMA, "zstd")
    young.write(table(1))
    old = world.root.parent / ".fraud.attempts" / "old.parquet"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    LocalFiles(world.root)
    assert not old.exists()
    young.publish()
    assert world.visible()[NAME]["n"].to_pylist() == [1]
