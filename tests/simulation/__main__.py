"""`python -m tests.simulation SEED`: play one seed again and print every effect of it."""

import argparse
import sys

from tests.simulation.play import play
from tests.simulation.switches import SWITCHES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--at-least-once", action="store_true")
    parser.add_argument("--without", choices=sorted(SWITCHES), help="a protection to turn off")
    asked = parser.parse_args()
    exactly_once, parts = not asked.at_least_once, None
    if asked.without:
        switch = SWITCHES[asked.without]
        exactly_once, parts = switch.exactly_once, switch.parts
    outcome = play(asked.seed, exactly_once=exactly_once, parts=parts, tracing=True)
    print("\n".join(outcome.trace))
    print(f"seed {outcome.seed}: {outcome.faults} faults, {outcome.steps} steps")
    print(outcome.violation or "nothing lost, nothing twice")
    return 1 if outcome.violation else 0


if __name__ == "__main__":
    sys.exit(main())
