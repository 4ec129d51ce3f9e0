"""What the benchmark's peers are installed from, and how they are told what to do."""

import re
import sys
from pathlib import Path

import pytest

from benchmarks.contender import Process, Run
from benchmarks.options import from_options, to_options
from benchmarks.peers import environment, in_python
from benchmarks.peers.environment import PeerUnavailable, jars_of, python_of
from jobs.environment import fingerprint

PEERS = ("bytewax", "quix", "ray_data", "pyspark", "pyflink")


@pytest.mark.parametrize("records", [None, 1_000])
def test_options_carry_a_run(monkeypatch: pytest.MonkeyPatch, records: int | None) -> None:
    """A program reads from its command line the run that it was started for."""
    run = Run(
        name="bench-1",
        bootstrap="127.0.0.1:9092",
        events="events",
        predictions="predictions",
        parquet=Path("/out/parquet"),
        scratch=Path("/out"),
        model=Path("/models/mlp"),
        records=records,
    )
    monkeypatch.setattr(sys, "argv", ["program", *to_options(run)])
    assert from_options(None) == run


@pytest.mark.parametrize("peer", PEERS)
def test_each_package_is_pinned(peer: str) -> None:
    """An environment is the same tomorrow: each line names one version of one package."""
    lines = (environment.REQUIREMENTS / f"{peer}.txt").read_text().splitlines()
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_other_requirements_have_another_environment(tmp_path: Path) -> None:
    """The fingerprint follows the content of a file, not its name."""
    first, second, third = (tmp_path / name for name in ("a", "b", "c"))
    first.write_text("numpy==2.4.6\n")
    second.write_text("numpy==2.4.6\n")
    third.write_text("numpy==2.4.5\n")
    assert fingerprint(first) == fingerprint(second) != fingerprint(third)


def test_a_peer_without_its_packages_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where pip cannot install, the reason is pip's own, and nothing is left in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(environment, "REQUIREMENTS", tmp_path)
    (tmp_path / "peer.txt").write_text(
        f"thing @ {(tmp_path / 'thing-1-py3-none-any.whl').as_uri()}\n"
    )
    with pytest.raises(PeerUnavailable, match=r"thing-1-py3-none-any"):
        python_of("peer")
    assert list((tmp_path / "headrace").iterdir()) == []


def test_a_peer_of_the_jvm_needs_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Java the peer is left out with that reason."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PeerUnavailable, match="pyspark needs Java 17"):
        jars_of("pyspark")


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("python -m benchmarks.peers.ray_data_loop", "driver"),
        ("/x/ray/raylet/raylet --node", "raylet"),
        ("/x/ray/gcs/gcs_server --log", "gcs_server"),
        ("ray::MapBatches(scored)", "task"),
        ("ray::IDLE", "task"),
        ("/x/python -u /x/log_monitor.py", "other Ray"),
    ],
)
def test_processes_of_ray_have_their_kind(title: str, kind: str) -> None:
    """Ray's tasks are told from what Ray itself runs."""
    assert in_python._ray_kind(Process(kind == "driver", title)) == kind
