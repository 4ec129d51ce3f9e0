"""The peers in Python as contenders.

Each function raises PeerUnavailable where its packages or its jars cannot be had.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from benchmarks.contender import Contender, Process, Run
from benchmarks.options import to_options
from benchmarks.peers.environment import jars_of, python_of

PROGRAMS = __package__

Command: TypeAlias = Callable[[Run], list[str]]


def two_bare_loops(module: str) -> Contender:
    """The bare loop in two processes; `module` is the one that the bare loop runs."""
    command = _program(Path(sys.executable), f"{PROGRAMS}.pair", module)
    return _in_two("bare loop, two processes", "none", command, "loop")


def bytewax() -> Contender:
    """Bytewax in two processes."""
    command = _program(python_of("bytewax"), f"{PROGRAMS}.bytewax_flow")
    return _in_two("Bytewax", "at least once", command, "worker")


def quix() -> Contender:
    """Quix Streams in two processes."""
    command = _program(python_of("quix"), f"{PROGRAMS}.pair", f"{PROGRAMS}.quix_app")
    guarantee = "exactly once to Kafka, at least once to Parquet"
    return _in_two("Quix Streams", guarantee, command, "worker")


def ray_data() -> Contender:
    """Ray Data in a loop."""
    return Contender(
        name="Ray Data",
        guarantee="at least once",
        command=_program(python_of("ray_data"), f"{PROGRAMS}.ray_data_loop"),
        kind=_ray_kind,
        memory_of="task",
    )


def pyspark() -> Contender:
    """Spark Structured Streaming with scoring in Python."""
    return _on_jvm("PySpark", "at least once", "pyspark", "pyspark_stream")


def pyflink() -> Contender:
    """Flink's SQL with scoring in a pandas function."""
    return _on_jvm("PyFlink", "exactly once", "pyflink", "pyflink_job")


def _in_two(name: str, guarantee: str, command: Command, kind: str) -> Contender:
    """A program that starts two processes of the same `kind`."""
    return Contender(
        name=name,
        guarantee=guarantee,
        command=command,
        kind=lambda process: "starter" if process.is_first else kind,
        memory_of=kind,
    )


def _on_jvm(name: str, guarantee: str, peer: str, program: str) -> Contender:
    """A peer whose Python works beside a JVM, which has the most of its memory."""
    return Contender(
        name=name,
        guarantee=guarantee,
        command=_program(python_of(peer), f"{PROGRAMS}.{program}", str(jars_of(peer))),
        kind=_jvm_kind,
        memory_of="JVM",
    )


def _program(python: Path, module: str, *arguments: str) -> Command:
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


def _jvm_kind(process: Process) -> str:
    if process.is_first:
        return "driver"
    return "JVM" if process.title.split(" ", 1)[0].endswith("java") else "Python"
