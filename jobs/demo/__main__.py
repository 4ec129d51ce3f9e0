"""`python -m jobs.demo`: all of Headrace in a minute, without Docker and without Java."""

import argparse
import signal
import sys
from pathlib import Path

from jobs.demo import fraud
from jobs.demo.story import FAILURES, tell
from jobs.demo.workload import Workload
from pipeline.errors import HeadraceError

# Fewer leave no steady part to speak of.
FEWEST_RECORDS = 1000
INTERRUPTED = 130


def _fraud(_: bool) -> Workload:
    return fraud.workload()


def _recommend(generated: bool) -> Workload:
    # It trains a model, which the other workload need not wait for.
    from jobs import interactions
    from jobs.demo import recommend

    return recommend.workload(interactions.generated() if generated else interactions.load())


WORKLOADS = {"fraud": _fraud, "recommend": _recommend}


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo", description=__doc__)
    parser.add_argument(
        "workload", nargs="?", choices=list(WORKLOADS), default="fraud", help="what is scored"
    )
    parser.add_argument(
        "--generated", action="store_true", help="recommend: a made-up set instead of MovieLens"
    )
    parser.add_argument(
        "--broker",
        choices=["embedded", "kafka"],
        default="embedded",
        help="what to start where KAFKA_BOOTSTRAP_SERVERS names none (default: embedded)",
    )
    parser.add_argument("--records", type=int, help="only the first so many (default: all)")
    parser.add_argument(
        "--rate", type=float, default=2000, help="records/s of the steady part (default: 2000)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("out/demo"), help="where files go (default: out/demo)"
    )
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        workload = WORKLOADS[chosen.workload](chosen.generated)
        records = workload.size if chosen.records is None else chosen.records
        if not FEWEST_RECORDS <= records <= workload.size:
            parser.error(f"--records {records}: give {FEWEST_RECORDS:,} to {workload.size:,}")
        if chosen.rate <= 0:
            parser.error(f"--rate {chosen.rate}: give records per second above 0")
        tell(workload, chosen.broker, chosen.output.resolve(), records, chosen.rate)
    except FAILURES as problem:
        lines = [f"✗ {problem}", *getattr(problem, "__notes__", ())]
        print("\n".join(lines), file=sys.stderr)
        return problem.exit_code if isinstance(problem, HeadraceError) else 1
    except KeyboardInterrupt:
        print("stopped before the end", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
