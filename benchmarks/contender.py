"""What a contender is: how its topics are made, how it is started, what its processes are called.

A further contender is one module with one function that returns a `Contender`, and one line in
`benchmarks.lineup` or `benchmarks.peers.lineup`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contender; `name` is its group, and no other run has it.

    `predictions` is the topic that it writes to, `parquet` the folder, `scratch` a folder for its
    own files, all made for this run alone. It ends by itself once it has scored `records` records,
    or at SIGTERM where `records` is None.
    """

    name: str
    bootstrap: str
    events: str
    predictions: str
    parquet: Path
    scratch: Path
    model: Path
    records: int | None


@dataclass(frozen=True, slots=True)
class Process:
    """What can be seen of a process from outside; `title` is its command line."""

    is_first: bool
    title: str


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to score the stream.

    `topics` gives the partitions of topics that it needs beside the input and the predictions.
    `command` may write files into `run.scratch`; a prediction must be a JSON object with `id` and
    `score`. `kind` names a process for the table; kinds in `writes_behind` still work when the
    last prediction is out, so that their CPU is counted up to their end. The memory of the
    kind `memory_of` is what the table shows. `writes_parquet` is whether it does that part of the
    job too; where it does not, the table says so.
    """

    name: str
    guarantee: str
    command: Callable[[Run], list[str]]
    kind: Callable[[Process], str]
    memory_of: str
    topics: Callable[[Run], Mapping[str, int]] = lambda _: {}
    writes_behind: frozenset[str] = frozenset()
    writes_parquet: bool = True

    @property
    def promise(self) -> str:
        """The guarantee, and what is left out of the job."""
        return self.guarantee if self.writes_parquet else f"{self.guarantee}, no Parquet"
