"""Score card transactions: `python -m jobs.fraud` runs configs/fraud.yaml.

Start it in the repository's root, as the model's path in the config is relative to it.
"""

import sys

from jobs.start import start

CONFIG = "configs/fraud.yaml"

if __name__ == "__main__":
    sys.exit(start(CONFIG))
