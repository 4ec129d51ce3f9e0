"""Recommend items to people: `python -m jobs.recommend` runs configs/recommend.yaml.

Start it in the repository's root, as the model's path in the config is relative to it.
"""

import sys

from jobs.start import start

CONFIG = "configs/recommend.yaml"

if __name__ == "__main__":
    sys.exit(start(CONFIG))
