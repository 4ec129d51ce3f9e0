"""The comparison with peers works in its short form; how fast anything is plays no part."""

import shutil
from pathlib import Path

import pytest
from program import run_benchmark

from jobs.local_broker import Broker

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        shutil.which("javac") is None or shutil.which("mvn") is None,
        reason="the peers in Java want a JDK and Maven",
    ),
]
LIMIT_SECONDS = 800


@pytest.mark.parametrize(
    ("task", "contenders"),
    [
        ("cards", ["plain Java", "Flink"]),
        ("crayfish", ["headrace, parallelism 1, batch 128", "Kafka Streams, parallelism 2"]),
    ],
)
def test_peers_in_java_do_the_job(
    kafka: Broker, tmp_path: Path, task: str, contenders: list[str]
) -> None:
    """Each writes the right predictions, and Parquet where it says so, and has its row."""
    options = ["--task", task, "--records", "10000", "--output", str(tmp_path)]
    options += ["--contenders", *contenders]
    said = run_benchmark("benchmarks.peers", kafka.bootstrap, *options, seconds=LIMIT_SECONDS)
    (page,) = tmp_path.glob("*.md")
    text = page.read_text(encoding="utf-8")
    for name in contenders:
        assert f"| {name} |" in text, text + said
    assert page.with_suffix(".png").stat().st_size > 0
