"""The comparison with peers works in its short form; how fast anything is plays no part."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
    command = [sys.executable, "-m", "benchmarks.peers", "--short", "--task", task]
    command += ["--records", "10000", "--output", str(tmp_path), "--contenders", *contenders]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (page,) = tmp_path.glob("*.md")
    text = page.read_text(encoding="utf-8")
    for name in contenders:
        assert f"| {name} |" in text, text + done.stdout
    assert page.with_suffix(".png").stat().st_size > 0
