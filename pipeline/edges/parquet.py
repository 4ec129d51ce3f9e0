"""Parquet files on a local or mounted disk: durable first, then visible, whole, in one step."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ClusterUnfit
from pipeline.ports import Unreadable

# An attempt this old belongs to nobody; a younger one may be a paused archiver's.
ABANDONED_SECONDS = 24 * 3600.0
READ_ROWS = 16_384


def hidden_beside(root: Path) -> Path:
    """Where files are made: out of readers' sight, on the mount of their place."""
    return root.parent / f".{root.name}.attempts"


class LocalAttempt:
    """A file in the hidden folder, on the same mount as its place; see `pipeline.ports.Attempt`."""

    def __init__(self, hidden: Path, final: Path, schema: pa.Schema, compression: str) -> None:
        self._final = final
        self._path = hidden / f"{uuid.uuid4().hex}.parquet"
        with _refusing(self._path):
            hidden.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
            self._writer = pq.ParquetWriter(self._file, schema, compression=compression)

    def write(self, table: pa.Table) -> None:
        """Append one row group."""
        with _refusing(self._path):
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))

    def publish(self) -> None:
        """Footer, fsync, rename, fsync of the folder."""
        with _refusing(self._final):
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._final.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(self._final)
            folder = os.open(self._final.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def abandon(self) -> None:
        """Remove the file; what cannot be removed is cleared away a day later."""
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


class LocalFiles:
    """Files below `root`, made in a hidden folder beside it; see `pipeline.ports.FileStore`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._hidden = hidden_beside(root)
        with _refusing(root):
            root.mkdir(parents=True, exist_ok=True)
            self._clear()

    def _clear(self) -> None:
        if not self._hidden.is_dir():
            return
        for path in self._hidden.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()

    def attempt(self, name: str, schema: pa.Schema, compression: str) -> LocalAttempt:
        """Begin the file `name`."""
        return LocalAttempt(self._hidden, self._root / name, schema, compression)


class VisibleFiles:
    """What a reader of `root` sees; see `pipeline.ports.ParquetFiles`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        """All Parquet files but those that readers pass over: their path begins with _ or a dot."""
        found = (path.relative_to(self._root) for path in self._root.rglob("*.parquet"))
        return sorted(
            path.as_posix()
            for path in found
            if not any(part.startswith(("_", ".")) for part in path.parts)
        )

    def rows(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows, at most `READ_ROWS` at a time."""
        wanted = None if columns is None else list(columns)
        try:
            with pq.ParquetFile(self._root / name) as file:
                for batch in file.iter_batches(READ_ROWS, columns=wanted):
                    yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowException) as problem:
            raise Unreadable(str(problem)) from problem


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as problem:
        raise ClusterUnfit(
            f"output.parquet: {path} cannot be written ({problem}). Free space or mend the "
            "permissions; the rows are safe in the journal and follow at the next start"
        ) from problem
