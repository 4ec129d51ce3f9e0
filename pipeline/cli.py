"""The command `headrace`: what it takes; what each command does is in `pipeline.commands`."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import commands, shapes
from pipeline.errors import HeadraceError
from pipeline.reset import SKIP_GAP

INTERRUPTED = 130

CONFIG_HELP = "the job's YAML file"
ADDRESS_HELP = "a Ray cluster to join; a local one is started without it"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, 0 where all went well."""
    parser = argparse.ArgumentParser(
        prog="headrace",
        description="Scores Kafka streams with ONNX models on Ray, exactly once.",
    )
    parser.add_argument("--version", action="version", version=f"headrace {version('headrace')}")
    known = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_init,
        _add_explain,
        _add_create_topics,
        _add_check,
        _add_produce,
        _add_run,
        _add_status,
        _add_offsets,
        _add_verify,
        _add_dlq,
        _add_submit,
    ):
        add(known)
    given, flags = _split(sys.argv[1:] if arguments is None else arguments)
    chosen = parser.parse_args(given)
    if flags and chosen.command != "submit":
        parser.error("flags after -- belong to submit, which hands them to run")
    chosen.flags = flags
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    try:
        return int(chosen.action(chosen))
    except HeadraceError as problem:
        for line in str(problem).splitlines():
            print(f"headrace: {line}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        print("headrace: interrupted", file=sys.stderr)
        return INTERRUPTED


def _split(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """What comes before and after `--`."""
    at = given.index("--") if "--" in given else len(given)
    return list(given[:at]), list(given[at + 1 :])


def _command(known: Any, name: str, text: str, action: Callable[..., int]) -> Any:
    parser = known.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(action=action)
    return parser


def _add_config(parser: Any) -> None:
    parser.add_argument("config", type=Path, help=CONFIG_HELP)


def _add_run(known: Any) -> None:
    text = "score a stream in the foreground, until stopped"
    parser = _command(known, "run", text, commands.run)
    _add_config(parser)
    parser.add_argument("--address", help=ADDRESS_HELP)
    parser.add_argument(
        "--until-caught-up",
        action="store_true",
        help="end once the lag found at the start is scored and in Parquet",
    )


def _add_init(known: Any) -> None:
    text = "write a model folder and a config for an ONNX model"
    parser = _command(known, "init", text, commands.init)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--job", help="the job's name; the file's name without it")
    parser.add_argument("--directory", type=Path, default=Path(), help="where to write; here")


def _add_explain(known: Any) -> None:
    _command(known, "explain", "describe every setting of a config", commands.explain)


def _add_check(known: Any) -> None:
    text = "look for everything that would stop a run, without starting one"
    parser = _command(known, "check", text, commands.check)
    parser.add_argument("configs", type=Path, nargs="+", metavar="CONFIG", help=CONFIG_HELP)


def _add_create_topics(known: Any) -> None:
    text = "make those topics of a job that are missing"
    parser = _command(known, "create-topics", text, commands.create_topics)
    _add_config(parser)
    parser.add_argument(
        "--partitions",
        type=_positive,
        default=8,
        help="of an input topic that is made; predictions and journal get as many (8)",
    )


def _add_produce(known: Any) -> None:
    text = "send the rows of a file, or of a generator, to a topic as JSON"
    parser = _command(known, "produce", text, commands.produce)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a .parquet or .ndjson file, or generator:module:function, which yields dicts",
    )
    parser.add_argument("--topic", help="the topic; that of --config's input without it")
    to = parser.add_mutually_exclusive_group(required=True)
    to.add_argument("--bootstrap", metavar="HOST:PORT", help="the brokers to begin with")
    to.add_argument("--config", type=Path, help="a job's YAML file, for its kafka settings")
    parser.add_argument("--rate", type=_rate, help="records per second, as 5000 or 5000/s")
    parser.add_argument("--key", metavar="FIELD", help="the field that is the record's key")
    parser.add_argument("--limit", type=_positive, help="how many records at most")
    parser.add_argument(
        "--drop",
        type=lambda text: tuple(filter(None, text.split(","))),
        default=(),
        metavar="FIELD,...",
        help="fields to leave out",
    )


def _add_status(known: Any) -> None:
    text = "show a job's offsets and lag, and how its run stands"
    parser = _command(known, "status", text, commands.status)
    _add_config(parser)
    parser.add_argument(
        "--address", help="the Ray cluster of the run; RAY_ADDRESS or this machine's without it"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    parser.add_argument("--watch", action="store_true", help="again each second, until Ctrl-C")


def _add_offsets(known: Any) -> None:
    text = "set where a job goes on: after lost offsets, or to score records again"
    parser = _command(known, "offsets", text, commands.offsets)
    _add_config(parser)
    parser.add_argument(
        "--to",
        type=_place,
        required=True,
        metavar="earliest|latest|TIME|skip-gap",
        help="the log's start, its end, the first record since an ISO 8601 time with its zone, or "
        "the log's start only where records at the offset are gone",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _add_verify(known: Any) -> None:
    text = "prove that a job's outputs are exactly what its input asks for"
    parser = _command(known, "verify", text, commands.verify)
    _add_config(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def _add_dlq(known: Any) -> None:
    parser = known.add_parser("dlq", help="look at dead letters, and send them back")
    actions = parser.add_subparsers(dest="dlq", required=True, metavar="ACTION")
    listing = _command(actions, "list", "group dead letters by reason", commands.dlq_list)
    _add_config(listing)
    listing.add_argument("--json", action="store_true", help="one JSON object, for programs")
    text = "send dead letters that were not sent back yet to the input topic"
    replay = _command(actions, "replay", text, commands.dlq_replay)
    _add_config(replay)
    replay.add_argument("--yes", action="store_true", help="do not ask")


def _add_submit(known: Any) -> None:
    text = "run a job on a Ray cluster; what follows -- goes to run, such as --until-caught-up"
    parser = _command(known, "submit", text, commands.submit)
    _add_config(parser)
    parser.add_argument(
        "--address", required=True, help="the dashboard of the head, as http://host:8265"
    )
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME",
        help="an environment variable to pass along, which the dashboard shows; repeat for more",
    )
    parser.add_argument(
        "--wait", action="store_true", help="follow the log, and end as the job ends"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is no number of at least 1")
    return value


def _place(text: str) -> str:
    if text != SKIP_GAP:
        try:
            shapes.start(text)
        except shapes.WrongError as problem:
            raise argparse.ArgumentTypeError(f"{text} {problem}") from None
    return text


def _rate(text: str) -> float:
    value = float(text.removesuffix("/s"))
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no rate above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
