"""Many slow replicas on a long lag: `python -m benchmarks.dispatching`.

Replicas that take half a second for each batch show whether the feeders keep all of them at work:
the rate is a share of what as many replicas could score that never waited for a batch. The feeders'
memory is that of the second half beside that of the first, while the lag stays long.
"""

import argparse
import statistics
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import waiting
from benchmarks.workload import CARDS, PARTITIONS, fill
from jobs.local_broker import broker, create_topics
from pipeline.main import run_job
from pipeline.settings import parse
from pipeline.status import Status

# A batch of a hundred costs a call what one of thousands does, and the processors little else.
BATCH_ROWS = 100
SLOTS = 2
# Of the start, all replicas' first batches end at once: until they have spread.
SETTLING_SECONDS = 10.0
MIB = 1 << 20


@dataclass
class Seen:
    """What a run showed since all of `replicas` were ready and had settled, for `seconds`."""

    replicas: int
    seconds: float
    ready: float | None = None
    # (seconds since the epoch, records scored so far, the feeders' memory in bytes, lag).
    points: list[tuple[float, int, int, int]] = field(default_factory=list)

    def show(self, status: Status) -> None:
        """Note one status."""
        if self.ready is None:
            ready = sum(one.state == "ready" for one in status.replicas)
            self.ready = status.at if ready >= self.replicas else None
        elif status.at >= self.ready + SETTLING_SECONDS:
            memory = sum(slot.memory_bytes for slot in status.slots)
            self.points.append((status.at, status.records_out, memory, status.lag))

    def enough(self) -> bool:
        """Whether the time is over."""
        return bool(self.points) and self.points[-1][0] - self.points[0][0] >= self.seconds

    def rate(self) -> float:
        """Records a second, between the first and the last look."""
        (first, before, *_), (last, after, *_) = self.points[0], self.points[-1]
        return (after - before) / (last - first)

    def memory(self) -> tuple[float, float]:
        """The feeders' memory in MiB: the median of the first half, and of the second."""
        half = len(self.points) // 2
        sizes = [memory / MIB for _, _, memory, _ in self.points]
        return statistics.median(sizes[:half]), statistics.median(sizes[half:])


def score(bootstrap: str, seen: Seen, records: int) -> None:
    """Fill a topic, and score of it until enough was seen."""
    name = f"dispatching-{uuid.uuid4().hex[:8]}"
    kinds = ("events", "predictions", "dead", "journal")
    create_topics(bootstrap, {f"{name}.{kind}": PARTITIONS for kind in kinds})
    seconds = fill(bootstrap, f"{name}.events", records, CARDS.events(records, 0))
    print(f"{records:,} events produced in {seconds:.1f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="headrace-dispatching-") as folder:
        config = parse(
            {
                "job": name,
                "model": str(CARDS.write_model(Path(folder))),
                "recipe": f"{waiting.__name__}:{waiting.half_second.__name__}",
                "kafka": {"bootstrap.servers": bootstrap},
                "output": {"parquet": str(Path(folder) / "out")},
                "placement": "remote",
                "slots": SLOTS,
                "replicas": seen.replicas,
                "batching": {"max_batch_size": BATCH_ROWS},
                "metrics": {"port": None},
            },
            Path(folder),
            {},
        )
        run_job(config, watch=seen.show, stopping=seen.enough)


def main(arguments: list[str] | None = None) -> None:
    """Print how close to the ideal the replicas come, and what the feeders' memory does."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dispatching", description=main.__doc__
    )
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--records", type=int, default=10_000_000, help="lag at the start")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it is watched")
    chosen = parser.parse_args(arguments)
    seen = Seen(chosen.replicas, chosen.seconds)
    with broker("kafka") as started:
        score(started.bootstrap, seen, chosen.records)
    calls, ideal = seen.rate() / BATCH_ROWS, chosen.replicas / waiting.HALF_SECOND
    before, after = seen.memory()
    print(
        f"{chosen.replicas} replicas: {calls:.1f} calls/s of {ideal:.0f} ({calls / ideal:.0%}), "
        f"feeders {before:,.0f} MiB, then {after:,.0f} MiB, "
        f"lag {seen.points[0][-1]:,} to {seen.points[-1][-1]:,}"
    )


if __name__ == "__main__":
    main()
