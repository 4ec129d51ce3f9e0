"""A feeder or an archiver that is stopped at a step, replaced, and let go on: no trace is left."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_job
import zombie
from audit import stable
from harness import (
    HERE,
    PATIENCE_SECONDS,
    Stage,
    Stream,
    committed,
    environment,
    feed,
    make_job,
    until,
)
from proxy import END_TXN, OFFSET_COMMIT, Rule
from sampler import Sampler
from steps import AT_LEAST_ONCE, EXACTLY_ONCE, STEPS, Step, steps
from verdict import folder_of, judged

from jobs.tools import ToolFailed, run_quietly
from jobs.user_cache import made_once
from pipeline.archiver import Archiver
from pipeline.build import build_archiver
from pipeline.config import Config
from pipeline.errors import Fenced, Retriable
from pipeline.feeder import Feeder
from pipeline.job import prepare

RATE = 400.0
# In `make test`; the others belong to `make test-faults`.
SHORT = {"after begin", "after flush", "before the rename"}


def of(role: str, delivery: str) -> list:
    """The steps of a role that needs no other actor, as pytest's parameters."""
    return [
        pytest.param(step, id=step.name, marks=() if step.name in SHORT else pytest.mark.long)
        for step in steps(delivery, "local")
        if step.role == role
    ]


@contextmanager
def stopped_at(step: Step, delivery: str, stage: Stage, path: Path) -> Iterator[subprocess.Popen]:
    """An actor that has stopped itself at the step, or was stopped there by the proxy."""
    if step.side not in {"request", "answer"}:
        stage.marks.arm(step, signal.SIGSTOP)
    command = [sys.executable, str(HERE / "zombie.py"), step.role, str(path)]
    with subprocess.Popen(command, env=environment(stage.marks), stdout=subprocess.PIPE) as process:
        try:
            if step.side in {"request", "answer"}:
                stop_at_commit(step, delivery, stage, process)
            until(
                lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED,
                f"it stops at '{step.name}'",
            )
            yield process
        finally:
            process.kill()


def stop_at_commit(step: Step, delivery: str, stage: Stage, process: subprocess.Popen) -> None:
    """Stop it when its second commit goes out, or when that is answered: the first is its claim."""
    api = END_TXN if delivery == EXACTLY_ONCE else OFFSET_COMMIT

    def stop(_: int) -> None:
        process.send_signal(signal.SIGSTOP)

    claimed = Rule(api, "tell", told=lambda _: None)
    with stage.proxy.ruling(claimed):
        until(claimed.met.is_set, "it claims")
    rule = Rule(api, "tell", told=stop, at_answer=step.side == "answer")
    with stage.proxy.ruling(rule):
        until(rule.met.is_set, "it commits")


def last_word(process: subprocess.Popen) -> str:
    """What it says when it ends."""
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    return said.decode().strip()


def commit_twice(feeder: Feeder) -> None:
    """Turn until it has committed twice."""
    until(lambda: feeder.turn(zombie.TURN).commits >= 2, "the successor has committed twice")


def finish(stage: Stage, config: Config, feeder: Feeder) -> None:
    """Score what is left of a stream that has ended, drain, and make the files."""
    total = len(stable(stage.direct, config.input.topic))

    def positions() -> dict[int, int]:
        report = feeder.turn(zombie.TURN)
        return {item.partition.number: item.committed for item in report.partitions}

    until(lambda: sum(positions().values()) >= total, "all is committed")
    zombie.drain(feeder)
    archiver = build_archiver(prepare(config), 1)
    archive(archiver, total)
    archiver.close()


def archive(archiver: Archiver, total: int) -> None:
    """Have files made of this many records."""
    until(lambda: sum(archiver.turn(0.5).rolled.values()) >= total, "all is archived")


def rolling(stage: Stage, folder: Path, job: str) -> tuple[Path, Config, Feeder]:
    """A job of one slot whose files are small, and its feeder."""
    roll = {"interval_seconds": 0.3}
    path = make_job(stage, folder, job, placement="local", slots=1, roll=roll)
    config = small_job.read(path)
    zombie.open_job(config, stage.direct)
    return path, config, zombie.claim(config)


def fill_a_file(stage: Stage, config: Config, feeder: Feeder) -> None:
    """Have 400 records scored and a boundary behind them, so that an archiver finds a whole file."""
    feed(stage, config.input.topic, 400)
    until(lambda: feeder.turn(zombie.TURN).commits and committed(stage, config) >= 400, "scored")
    until(
        lambda: feeder.turn(zombie.TURN) and feeder._committer._unrolled.since is None,
        "a file is whole",
    )


@contextmanager
def flowing(stage: Stage, folder: Path, job: str, delivery: str) -> Iterator[tuple[Path, Config]]:
    """A job of one slot whose stream flows."""
    path = make_job(stage, folder, job, delivery=delivery, placement="local", slots=1)
    config = small_job.read(path)
    zombie.open_job(config, stage.direct)
    stream = Stream(stage.direct, config.input.topic, RATE)
    stream.start()
    try:
        yield path, config
    finally:
        stream.stop()


@pytest.mark.parametrize("step", of("feeder", EXACTLY_ONCE))
def test_a_feeder_that_comes_back_is_fenced_and_leaves_no_trace(
    theatre, topic_prefix, tmp_path, tally, step
):
    """Its last word is that it was fenced; what its successor and it have written counts once.

    Only one that was stopped before its init owns the slot when it comes back: it is the newer one.
    """
    with (
        flowing(theatre, tmp_path, topic_prefix, EXACTLY_ONCE) as (path, config),
        stopped_at(step, EXACTLY_ONCE, theatre, path) as process,
    ):
        successor = zombie.claim(config)
        commit_twice(successor)
        process.send_signal(signal.SIGCONT)
        tally[step.role, f"stopped {step.name}"] += 1
        if step.name == "claim, before init":
            # Between two owners the broker may know no better than that the transaction is lost.
            with pytest.raises((Fenced, Retriable)):
                until(lambda: successor.turn(zombie.TURN) is None, "it is fenced")
            process.terminate()
            assert last_word(process) == zombie.ENDED
            successor = zombie.claim(config)
        else:
            assert last_word(process).startswith("Fenced: ")
    finish(theatre, config, successor)
    judged(theatre.direct, config)


@pytest.mark.parametrize("step", of("feeder", AT_LEAST_ONCE))
def test_at_least_once_a_feeder_that_comes_back_repeats_records_and_parquet_does_not(
    theatre, topic_prefix, tmp_path, tally, step
):
    """Nothing fences it: it writes beyond its successor, which writes the same again."""
    with (
        flowing(theatre, tmp_path, topic_prefix, AT_LEAST_ONCE) as (path, config),
        stopped_at(step, AT_LEAST_ONCE, theatre, path) as process,
    ):
        successor = zombie.claim(config)
        commit_twice(successor)
        before = committed(theatre, config)
        process.send_signal(signal.SIGCONT)
        tally[step.role, f"stopped {step.name}"] += 1
        until(lambda: committed(theatre, config) > before, "it has written beyond its successor")
        process.terminate()
        assert last_word(process) == zombie.ENDED
    finish(theatre, config, successor)
    judged(theatre.direct, config)


@pytest.mark.parametrize("step", of("archiver", EXACTLY_ONCE))
def test_an_archiver_that_comes_back_makes_the_same_files(
    theatre, topic_prefix, tmp_path, tally, step
):
    """What it still writes is equal to what its successor wrote, whatever a reader has seen of it."""
    path, config, feeder = rolling(theatre, tmp_path, topic_prefix)
    sampler = Sampler(theatre.direct, (config.output.topic,), folder_of(config))
    sampler.start()
    fill_a_file(theatre, config, feeder)
    with stopped_at(step, EXACTLY_ONCE, theatre, path) as old:
        successor = build_archiver(prepare(config), 1)
        archive(successor, 400)
        old.send_signal(signal.SIGCONT)
        tally[step.role, f"stopped {step.name}"] += 1
        feed(theatre, config.input.topic, 400)
        until(lambda: feeder.turn(zombie.TURN) and committed(theatre, config) >= 800, "scored")
        zombie.drain(feeder)
        archive(successor, 800)
        old.terminate()
        assert last_word(old) == zombie.ENDED
    successor.close()
    sampler.stop()
    judged(theatre.direct, config, sampler)


OTHER_PYARROW = "25.0.1"


@pytest.fixture
def other_pyarrow() -> Path:
    """Give a folder with another release of pyarrow than ours, installed the first time."""
    assert pa.__version__ != OTHER_PYARROW

    def install(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        options = ["--no-deps", "--only-binary=:all:", "--target", str(folder)]
        run_quietly([*pip, *options, f"pyarrow=={OTHER_PYARROW}"], 300.0)

    try:
        return made_once(f"pyarrow-{OTHER_PYARROW}-python{sys.version_info.minor}", install)
    except ToolFailed as problem:
        pytest.skip(f"pyarrow {OTHER_PYARROW} cannot be installed: {problem}")


@pytest.mark.long
def test_an_archiver_with_another_pyarrow_makes_the_same_file_again(
    theatre, topic_prefix, tmp_path, tally, other_pyarrow
):
    """The rows under the name that a reader may have seen stay what they were."""
    path, config, feeder = rolling(theatre, tmp_path, topic_prefix)
    fill_a_file(theatre, config, feeder)
    (step,) = [step for step in STEPS if step.name == "after the rename"]
    command = [sys.executable, str(HERE / "zombie.py"), "archiver", str(path)]
    variables = environment(theatre.marks)
    theatre.marks.arm(step, signal.SIGKILL)
    subprocess.run(command, env=variables, stdout=subprocess.PIPE, timeout=60.0, check=False)
    tally[step.role, step.name] += 1
    (file,) = folder_of(config).glob("date=*/*.parquet")
    maker, rows = pq.read_metadata(file).created_by, pq.read_table(file)

    variables["PYTHONPATH"] = os.pathsep.join([str(other_pyarrow), variables["PYTHONPATH"]])
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE) as other:
        try:
            until(lambda: pq.read_metadata(file).created_by != maker, "it is made again")
            other.terminate()
            assert last_word(other) == zombie.ENDED
        finally:
            other.kill()
    assert OTHER_PYARROW in pq.read_metadata(file).created_by
    assert pq.read_table(file).equals(rows)
    finish(theatre, config, feeder)
    judged(theatre.direct, config)
