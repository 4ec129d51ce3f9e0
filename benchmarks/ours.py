"""Headrace as a contender, started as its users start it."""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.contender import Contender, Process, Run

SLOTS = 2
JOURNAL_PARTITIONS = 4
# Ray's title of an actor's process is its class.
ROLES = {"ray::Feeder": "feeder", "ray::Replica": "replica", "ray::Archiver": "archiver"}


def headrace(delivery: str, placement: str) -> Contender:
    """Headrace with two slots: `delivery` and `placement` as in its config."""
    return _contender(f"headrace {delivery} {placement}", delivery, placement, SLOTS, {})


def slots_alone(slots: int, max_batch_size: int | None = None) -> Contender:
    """Headrace exactly once with so many slots, each of which scores in a thread of its own."""
    name = f"headrace, parallelism {slots}"
    if max_batch_size is None:
        return _contender(name, "exactly_once", "local", slots, {})
    changed = {"batching": {"max_batch_size": max_batch_size}}
    return _contender(f"{name}, batch {max_batch_size}", "exactly_once", "local", slots, changed)


def commit_every(milliseconds: int) -> Contender:
    """Headrace exactly once, scoring in its two feeders, with this interval between commits."""
    # What a commit holds is then bounded by its age alone.
    commit = {"interval_ms": milliseconds, "max_rows": 1_000_000, "max_bytes": 1 << 30}
    name = f"every {milliseconds} ms"
    return _contender(name, "exactly_once", "local", SLOTS, {"commit": commit})


def _contender(
    name: str, delivery: str, placement: str, slots: int, changed: Mapping[str, object]
) -> Contender:
    def command(run: Run) -> list[str]:
        return _command(run, delivery, placement, slots, changed)

    return Contender(
        name=name,
        guarantee="exactly once" if delivery == "exactly_once" else "at least once",
        command=command,
        kind=_kind,
        memory_of="feeder",
        topics=lambda run: {f"{run.name}.dead": 1, f"{run.name}.journal": JOURNAL_PARTITIONS},
        writes_behind=frozenset({"archiver"}),
    )


def _command(
    run: Run, delivery: str, placement: str, slots: int, changed: Mapping[str, object]
) -> list[str]:
    settings: dict[str, object] = {
        "job": run.name,
        "model": str(run.model),
        "kafka": {"bootstrap.servers": run.bootstrap},
        "input": {"topic": run.events, "pass_through": {"id": "int64"}},
        "output": {"topic": run.predictions, "parquet": str(run.parquet)},
        "delivery": delivery,
        "placement": placement,
        "slots": slots,
        "replicas": slots,
        "metrics": {"port": None},
        **changed,
    }
    config = run.scratch / "job.yaml"
    # JSON is YAML.
    config.write_text(json.dumps(settings, indent=2))
    installed = str(Path(sys.executable).parent)
    script = shutil.which("headrace", path=installed)
    if script is None:
        raise FileNotFoundError(
            f"{installed} has no command `headrace`: install it with `pip install -e '.[bench]'`"
        )
    until = ["--until-caught-up"] if run.records is not None else []
    return [script, "run", str(config), *until]


def _kind(process: Process) -> str:
    if process.is_first:
        return "driver"
    for name in ("raylet", "gcs_server"):
        if f"/{name}" in process.title.split(" ", 1)[0]:
            return name
    return ROLES.get(process.title.split(" ", 1)[0].split(".", 1)[0], "other Ray")
