"""The peers in Java as contenders, compiled once into the user's cache.

Each function raises PeerUnavailable where Java, its compiler or its jars cannot be had.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.contender import Contender, Run
from benchmarks.options import to_options
from benchmarks.peers.environment import PeerUnavailable, jars_of
from jobs.kafka_jars import java
from jobs.user_cache import made_once

SOURCES = Path(__file__).parent / "java"
COMPILE_SECONDS = 300.0
# Two cores: the collector that shares the work costs less than the one that runs beside it. Half
# of the heap is for what is in flight, the other for what comes of it.
FLAGS = ("-Xms1g", "-Xmx1g", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
# Flink's own start scripts open these to it.
OPENED = ("java.base/java.lang", "java.base/java.util", "java.base/java.time")


def plain_java() -> Contender:
    """A consumer loop tuned by hand."""
    return _contender("plain Java", "exactly once", "PlainLoop", "java", writes_parquet=False)


def flink() -> Contender:
    """Flink with an operator that scores in batches."""
    return _contender("Flink", "exactly once", "FlinkJob", "flink")


def kafka_streams(threads: int) -> Contender:
    """Kafka Streams with so many threads, which scores record by record."""
    return _contender(
        f"Kafka Streams, parallelism {threads}",
        "exactly once",
        "StreamsApp",
        "java",
        "--threads",
        str(threads),
        writes_parquet=False,
    )


def _contender(
    name: str,
    guarantee: str,
    program: str,
    jars: str,
    *arguments: str,
    writes_parquet: bool = True,
) -> Contender:
    """`program` is a class of `java/`, `jars` the file in `requirements/` that it needs."""
    start = program_command(program, jars)

    def command(run: Run) -> list[str]:
        return [*start, *arguments, *to_options(run)]

    return Contender(
        name=name,
        guarantee=guarantee,
        command=command,
        kind=lambda _: "JVM",
        memory_of="JVM",
        writes_parquet=writes_parquet,
    )


def program_command(program: str, jars: str) -> list[str]:
    """How a program of `java/` is started, which is compiled the first time.

    Raises PeerUnavailable.
    """
    folder = jars_of(jars)
    sources = sorted(SOURCES.glob("*.java"))
    classes = made_once(
        f"peer-{program}-{fingerprint([*sources, *sorted(folder.glob('*.jar'))])}",
        lambda made: _compile(program, folder, made),
    )
    opened = [f"--add-opens={one}=ALL-UNNAMED" for one in OPENED]
    return [java(), *FLAGS, *opened, "-cp", f"{classes}{os.pathsep}{folder}/*", program]


def fingerprint(files: list[Path]) -> str:
    """Short for the content of sources and the names of jars, which carry their versions."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        if file.suffix == ".java":
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _compile(program: str, jars: Path, classes: Path) -> None:
    beside = Path(java()).parent / "javac"
    compiler = str(beside) if beside.is_file() else shutil.which("javac")
    if compiler is None:
        raise PeerUnavailable(
            f"no javac beside {beside} nor in PATH: install a JDK, not only a JRE"
        )
    command = [compiler, "-nowarn", "-encoding", "UTF-8", "-cp", f"{jars}/*"]
    command += ["-sourcepath", str(SOURCES), "-d", str(classes), str(SOURCES / f"{program}.java")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=COMPILE_SECONDS
    )
    if done.returncode != 0:
        raise PeerUnavailable(f"{program} does not compile: {done.stderr}")
