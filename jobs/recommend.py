"""Recommend items: `python -m jobs.recommend` runs configs/recommend.yaml.

Start it in the repository's root, as the model's path in the config is relative to it.
"""

import sys
from collections.abc import Sequence

from pipeline.cli import main as headrace

CONFIG = "configs/recommend.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; takes `--address` and `--until-caught-up` as `headrace run` does."""
    given = sys.argv[1:] if arguments is None else arguments
    return headrace(["run", CONFIG, *given])


if __name__ == "__main__":
    sys.exit(main())
