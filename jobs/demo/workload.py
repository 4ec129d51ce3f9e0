"""What a workload brings to the demo: its events, broken ones, and how its scores are judged."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

ROOT = Path(__file__).resolve().parents[2]

Event: TypeAlias = tuple[bytes | None, bytes]
"""Key and value of one record."""


class DemoFailed(Exception):
    """The demo cannot start, or what came out is not what went in; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An event that is wrong on purpose; `key` finds it again among the dead letters."""

    key: bytes
    what: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A small table of texts that shows single cases."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How good the scores are: a table (the first row is this run's), remarks, and a drawing.

    `draw` is given Matplotlib axes; `listings` are shown behind the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...]
    draw: Callable[[Any], None]
    listings: tuple[Listing, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload's part of the demo.

    `events(limit)` gives its first `limit` records in their order, each with its `id` field as
    key. `judge(rows)` gets the Parquet rows and returns None where they cannot be judged.
    `columns` and `highest` name what the reading examples show and order by. `settings` take the
    place of those in the config and of the demo's own.
    """

    name: str
    title: str
    story: str
    config: Path
    size: int
    events: Callable[[int], Iterator[Event]]
    broken: Callable[[], tuple[Broken, ...]]
    judge: Callable[[pa.Table], Verdict | None]
    columns: tuple[str, ...]
    highest: str
    settings: Mapping[str, Any] = field(default_factory=dict)
