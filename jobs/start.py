"""Start a job of this repository from its config, in the repository's root."""

import sys
from collections.abc import Sequence

from pipeline.cli import main as headrace


def start(config: str, arguments: Sequence[str] | None = None) -> int:
    """Run the job; takes `--address` and `--until-caught-up` as `headrace run` does."""
    given = sys.argv[1:] if arguments is None else arguments
    return headrace(["run", config, *given])
