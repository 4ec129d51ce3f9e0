"""A run as command line options, for contenders that are Python programs."""

import argparse
from pathlib import Path

from benchmarks.contender import Run


def to_options(run: Run) -> list[str]:
    """The options that `from_options` understands."""
    options = {
        "--name": run.name,
        "--bootstrap": run.bootstrap,
        "--events": run.events,
        "--predictions": run.predictions,
        "--parquet": str(run.parquet),
        "--scratch": str(run.scratch),
        "--model": str(run.model),
    }
    if run.records is not None:
        options["--records"] = str(run.records)
    return [text for pair in options.items() for text in pair]


def from_options(description: str | None) -> Run:
    """The run that this program was started for; ends the program where an option is missing."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("--name", "--bootstrap", "--events", "--predictions"):
        parser.add_argument(name, required=True)
    for name in ("--parquet", "--scratch", "--model"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--records", type=int)
    return Run(**vars(parser.parse_args()))
