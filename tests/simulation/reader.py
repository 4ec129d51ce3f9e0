"""Whoever reads the outputs while the seed is played, and what they may rely on."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.batch import Partition
from pipeline.testing import MemoryFiles
from tests.simulation.watched import DEAD, INPUT, OUTPUT, Violation, WatchedLog, rows_of


@dataclass
class Reader:
    """Whoever reads the outputs meanwhile: what it saw once must stay, be backed, and come once."""

    log: WatchedLog
    files: MemoryFiles
    _at: dict[Partition, int] = field(default_factory=dict)
    predictions: dict[Partition, list[tuple[int, int]]] = field(default_factory=dict)
    letters: list[tuple[int, int]] = field(default_factory=list)
    tables: dict[str, pa.Table] = field(default_factory=dict)
    archived: dict[tuple[int, int], str] = field(default_factory=dict)
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def look(self) -> None:
        """Read on, as `read_committed`, and list the files."""
        for number in range(len(self.log._topics[OUTPUT])):
            place = Partition(OUTPUT, number)
            for record in self._next(place):
                source, offset = (int(part) for part in (record.value or b"").split(b"/"))
                self.predictions.setdefault(place, []).append((source, offset))
                self._one(place, source, offset)
        for record in self._next(Partition(DEAD, 0)):
            headers = dict(record.headers or [])
            source = int(headers["__dlq.errors.partition"])
            offset = int(headers["__dlq.errors.offset"])
            self.letters.append((source, offset))
            self._one(Partition(DEAD, 0), source, offset)
        self._list()

    def _next(self, place: Partition) -> list[Any]:
        found, self._at[place] = self.log.read(place, self._at.get(place, 0), 1000)
        return found

    def _one(self, place: Partition, source: int, offset: int) -> None:
        if not self.log.fenced:
            return
        if (source, offset) in self._seen:
            raise Violation(f"duplicate: {source}/{offset} stands in {place} a second time")
        self._seen.add((source, offset))
        self._backed(f"{place}", source, offset)

    def _backed(self, where: str, source: int, offset: int) -> None:
        committed, _ = self.log.decided.get(Partition(INPUT, source), (0, (0, 0)))
        if self.log.fenced and offset >= committed:
            raise Violation(
                f"aborted read: {source}/{offset} is visible in {where}, and only what is below "
                f"{committed} is committed"
            )

    def _list(self) -> None:
        visible = self.files.visible
        for name, table in self.tables.items():
            if name not in visible:
                raise Violation(f"taken back: {name} was visible and is gone")
            if visible[name] is not table and not visible[name].equals(table):
                found = f"{rows_of(table)}, now {rows_of(visible[name])}"
                raise Violation(f"torn: {name} was visible with {found}")
        for name in [name for name in visible if name not in self.tables]:
            self.tables[name] = visible[name]
            self._file(name, visible[name])

    def _file(self, name: str, table: pa.Table) -> None:
        columns = [table[column].to_pylist() for column in ("partition", "offset", "length")]
        last: dict[int, int] = {}
        for source, offset, length in zip(*columns, strict=True):
            if (source, offset) in self.archived:
                other = self.archived[source, offset]
                raise Violation(f"duplicate: {source}/{offset} stands in {name} and in {other}")
            if offset < last.get(source, 0):
                raise Violation(f"reordered: {source}/{offset} comes late in {name}")
            if self.log.length(source, offset) != length:
                raise Violation(f"{source}/{offset} has a row of another record in {name}")
            self.archived[source, offset] = name
            last[source] = offset
            self._backed(name, source, offset)
