"""The peers in Python as contenders.

Each function raises PeerUnavailable where its packages cannot be had.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.contender import Contender, Process, Run
from benchmarks.options import to_options
from benchmarks.peers.environment import python_of

HERE = __package__


def two_bare_loops(module: str) -> Contender:
    """The bare loop in two processes; `module` is the one that the bare loop runs."""
    return Contender(
        name="bare loop, two processes",
        guarantee="none",
        command=_program(Path(sys.executable), f"{HERE}.pair", module),
        kind=lambda process: "starter" if process.is_first else "loop",
        memory_of="loop",
    )


def bytewax() -> Contender:
    """Bytewax in two processes."""
    return Contender(
        name="Bytewax",
        guarantee="at least once",
        command=_program(python_of("bytewax"), f"{HERE}.bytewax_flow"),
        kind=lambda process: "starter" if process.is_first else "worker",
        memory_of="worker",
    )


def quix() -> Contender:
    """Quix Streams in two processes."""
    return Contender(
        name="Quix Streams",
        guarantee="exactly once to Kafka, at least once to Parquet",
        command=_program(python_of("quix"), f"{HERE}.pair", f"{HERE}.quix_app"),
        kind=lambda process: "starter" if process.is_first else "worker",
        memory_of="worker",
    )


def ray_data() -> Contender:
    """Ray Data in a loop."""
    return Contender(
        name="Ray Data",
        guarantee="at least once",
        command=_program(python_of("ray_data"), f"{HERE}.ray_data_loop"),
        kind=_ray_kind,
        memory_of="task",
    )


def _program(python: Path, module: str, *arguments: str) -> Callable[[Run], list[str]]:
    return lambda run: [str(python), "-m", module, *arguments, *to_options(run)]


def _ray_kind(process: Process) -> str:
    if process.is_first:
        return "driver"
    command = process.title.split(" ", 1)[0]
    for name in ("raylet", "gcs_server"):
        if command.endswith(f"/{name}"):
            return name
    # An idle process is one between two tasks.
    return "task" if command.startswith("ray::") else "other Ray"
