"""What each command does: takes the parsed arguments, says what it did, returns the exit code."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigInvalid, Mistake
from pipeline.settings import load
from pipeline.signals import stop_signals

WATCH_SECONDS = 1.0
INTERRUPTED = 130


def say(text: str) -> None:
    """Print one line for the user."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(chosen: argparse.Namespace) -> int:
    """Score until stopped."""
    from pipeline.main import run_job
    from pipeline.status import summary

    config = load(chosen.config, os.environ)
    status = run_job(config, chosen.address, until_caught_up=chosen.until_caught_up)
    say(summary(status, config))
    return 0


def init(chosen: argparse.Namespace) -> int:
    """Write a model folder and a config, and say how to go on."""
    from pipeline import scaffold
    from pipeline.edges.onnx import OnnxModel

    try:
        content = chosen.model.read_bytes()
    except OSError as problem:
        text = f"cannot be read: {problem.strerror}"
        mistake = Mistake("model", str(chosen.model), text, "Name an ONNX file")
        raise ConfigInvalid([mistake]) from None
    signature = OnnxModel(content, file=str(chosen.model)).signature
    made = scaffold.init(chosen.model, signature, chosen.directory, chosen.job)
    for path in made.written:
        say(f"wrote {path}")
    say(f"\nAn event that the model accepts:\n  {made.event}\n\nNext, from {chosen.directory}:")
    config = Path("configs") / f"{made.job}.yaml"
    for command in ("create-topics", "check", "run"):
        say(f"  headrace {command} {config}")
    return 0


def explain(_: argparse.Namespace) -> int:
    """Describe every setting."""
    from pipeline.explain import explain as explained

    sys.stdout.write(explained())
    return 0


def check(chosen: argparse.Namespace) -> int:
    """Print facts of what is fine, warnings, and every mistake of what is not."""
    from pipeline.check import check as look

    mistakes = 0
    for path in chosen.configs:
        found = look(path, os.environ)
        mistakes += len(found.mistakes)
        if not found.mistakes:
            say(f"{path}: all is well: {', '.join(found.facts)}")
        for warning in found.warnings:
            sys.stderr.write(f"{path}: beware: {warning}\n")
        for mistake in found.mistakes:
            sys.stderr.write(f"{path}: {mistake}\n")
    return ConfigInvalid.exit_code if mistakes else 0


def create_topics(chosen: argparse.Namespace) -> int:
    """Make what is missing."""
    from pipeline.topics import create_topics as create

    for line in create(load(chosen.config, os.environ), chosen.partitions):
        say(line)
    return 0


def produce(chosen: argparse.Namespace) -> int:
    """Send records until they end, or until Ctrl-C, and say how it went."""
    from pipeline import records
    from pipeline.produce import produce as send
    from pipeline.produce import refuse_failures

    if chosen.config:
        config = load(chosen.config, os.environ)
        settings, topic = config.kafka, chosen.topic or config.input.topic
    else:
        settings, topic = {"bootstrap.servers": chosen.bootstrap}, chosen.topic
    if not topic:
        way_out = "Name one, or give --config for the input topic of a job"
        raise ConfigInvalid([Mistake("--topic", None, "is missing", way_out)])
    rows = islice(records.read(chosen.source, chosen.key, chosen.drop), chosen.limit)
    with stop_signals() as stopping:
        summary = send(rows, settings, topic, chosen.rate, _progress(), stopping)
        stopped = stopping()
    say(f"{topic}: {summary}")
    refuse_failures(summary, topic)
    return INTERRUPTED if stopped else 0


def _progress() -> Callable[[int, float], None] | None:
    if not sys.stderr.isatty():
        return None

    def show(sent: int, seconds: float) -> None:
        sys.stderr.write(f"\r{sent:,} records in {seconds:.1f} s")
        sys.stderr.flush()

    return show


def status(chosen: argparse.Namespace) -> int:
    """Show how a job stands, once or again and again."""
    import msgspec
    from rich.console import Console

    from pipeline import tables
    from pipeline.view import Board, view

    config = load(chosen.config, os.environ)
    board = Board(chosen.address, os.environ)
    console = Console()
    while True:
        found = view(config, board)
        if chosen.watch and not chosen.json:
            console.clear()
        if chosen.json:
            say(msgspec.json.encode(found).decode())
        else:
            console.print(tables.of_view(found))
        if not chosen.watch:
            return 0
        time.sleep(WATCH_SECONDS)


def offsets(chosen: argparse.Namespace) -> int:
    """Show what would change, ask, then set the offsets."""
    from rich.console import Console

    from pipeline import offsets as resets
    from pipeline import tables

    config = load(chosen.config, os.environ)
    console = Console()
    console.print(tables.of_reset(resets.look(config, chosen.to)))
    say(_reset_warning(config))
    if not chosen.yes and not _agreed():
        say("nothing was changed")
        return 1
    done = resets.apply(config, chosen.to)
    moved = sum(move.before != move.after for move in done.moves)
    say(f"{moved} of {len(done.moves)} partitions of {config.input.topic} go on elsewhere")
    return 0


def _reset_warning(config: Any) -> str:
    if config.delivery == "at_least_once":
        return (
            "Stop the job before you go on: under at_least_once nothing fences a run, and one that "
            "goes on keeps its rows out of Parquet and makes the next start refuse its offsets."
        )
    return "A run of the job that is at work ends with exit code 3; start it again afterwards."


def verify(chosen: argparse.Namespace) -> int:
    """Hold a job's outputs to its promise, and say what was looked at and what was found."""
    import msgspec
    from rich.console import Console
    from rich.progress import Progress

    from pipeline import tables
    from pipeline.verification import EXIT_CODES
    from pipeline.verify import verify as hold

    config = load(chosen.config, os.environ)
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("")

        def show(what: str, done: int, total: int) -> None:
            progress.update(bar, description=what, completed=done, total=total)

        found = hold(config, show)
    if chosen.json:
        say(msgspec.json.encode(found).decode())
    else:
        Console().print(tables.of_verification(found))
    return EXIT_CODES[found.result]


def dlq_list(chosen: argparse.Namespace) -> int:
    """Group dead letters by reason."""
    import msgspec

    from pipeline import tables
    from pipeline.replay import letters

    found = letters(load(chosen.config, os.environ))
    if chosen.json:
        say(msgspec.json.encode(found).decode())
    elif not found.groups:
        say("no dead letters")
    else:
        say(tables.of_letters(found))
    return 0


def dlq_replay(chosen: argparse.Namespace) -> int:
    """Ask, then send back what waits."""
    from pipeline import replay

    config = load(chosen.config, os.environ)
    found = replay.letters(config)
    if not found.waiting:
        say(
            f"no dead letters wait in {config.dead_letters.topic}; {found.replayed:,} were replayed"
        )
        return 0
    say(_warning(config, found))
    if not chosen.yes and not _agreed():
        say("nothing was sent")
        return 1
    done = replay.Replayed()
    for done in replay.replay(config):
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done.sent:,} sent back")
    say(f"{done.sent:,} records sent back to {config.input.topic}")
    if done.truncated:
        say(f"{done.truncated:,} letters were passed over: their values were cut to fit the topic")
    if done.foreign:
        say(f"{done.foreign:,} records were passed over: they are no dead letters of headrace")
    return 0


def _warning(config: Any, found: Any) -> str:
    first = (
        f"{found.waiting:,} dead letters go back to {config.input.topic}, at its end: whoever else "
        "reads that topic sees them again, and their order to later records is lost."
    )
    lines = [first]
    if config.delivery == "at_least_once":
        lines.append("This job's delivery is at_least_once: after a failure some may go twice.")
    elif not found.remembered:
        lines.append(
            "No earlier replay is remembered; Kafka forgets one 7 days after its last letter by "
            "default (offsets.retention.minutes). Letters that were replayed before go again."
        )
    return "\n".join(lines)


def _agreed() -> bool:
    sys.stdout.write("Go on? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def submit(chosen: argparse.Namespace) -> int:
    """Hand the run to a cluster."""
    from pipeline.submit import submit as hand_over

    made = hand_over(chosen.config, chosen.address, os.environ, chosen.env, chosen.flags)
    address = f"--address {chosen.address}"
    say(f"submitted {made.id}")
    say(f"  follow it:  ray job logs {address} --follow {made.id}")
    say(f"  stop it:    ray job stop {address} {made.id}    (it drains first)")
    return made.wait(sys.stdout.write) if chosen.wait else 0
