"""Judge the recommendations over several splits, from the Parquet that the pipeline wrote.

    python -m jobs.judge_recommend --seeds 5

For each seed a model is trained on one split and one event a person goes through the broker, the
job and back. Slow for what it measures: the point is that nothing is measured but what came out.
"""

import argparse
import statistics
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.dataset as ds

from jobs import interactions
from jobs.demo import recommend
from jobs.demo.story import FAILURES, PARTITIONS, configured
from jobs.interactions import Interactions
from jobs.local_broker import Broker, broker
from jobs.ranking_metrics import Quality, judge, most_popular
from pipeline.check import carries_exactly_once
from pipeline.main import run_job
from pipeline.produce import produce, refuse_failures
from pipeline.topics import create_topics


def judged(data: Interactions, seed: int, found: Broker, output: Path) -> Mapping[str, Quality]:
    """One split through the pipeline: the quality of its lists, and of the base line's."""
    held = recommend.Held(data, interactions.split(data, seed))
    workload = recommend.workload(data, seed)
    job = f"judge-{seed}-{uuid.uuid4().hex[:6]}"
    config = configured(workload, found.bootstrap, job, output)
    if carries_exactly_once(config) is not None:
        config = replace(config, delivery="at_least_once")
    for _ in create_topics(config, PARTITIONS):
        pass
    people = [recommend.event(number, *one) for number, one in enumerate(held.people())]
    refuse_failures(produce(people, config.kafka, config.input.topic), config.input.topic)
    run_job(config, until_caught_up=True)
    rows = ds.dataset(output / job).to_table()
    if rows.num_rows != len(people):
        raise RuntimeError(f"{rows.num_rows} rows of {len(people)} people: see the log above")
    lists, _ = recommend.lists_of(rows, data.shape[0])
    training, relevant = data.matrix(held.training), data.matrix(~held.training) > 0
    return {
        "Headrace, EASE": judge(lists, training, relevant),
        "the most popular": judge(most_popular(training, recommend.K), training, relevant),
    }


def table(runs: Sequence[Mapping[str, Quality]]) -> str:
    """The means over the seeds as a Markdown table, the nDCG with its lowest and highest."""
    names = list(asdict(next(iter(runs[0].values()))))
    lines = ["| model | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for model in runs[0]:
        columns = {name: [asdict(run[model])[name] for run in runs] for name in names}
        cells = [f"{statistics.mean(values):.4f}" for values in columns.values()]
        cells[0] += f" ({min(columns['ndcg']):.4f} to {max(columns['ndcg']):.4f})"
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Judge and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs.judge_recommend", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=5, help="splits to judge by (5)")
    parser.add_argument("--generated", action="store_true", help="the generated set, not MovieLens")
    parser.add_argument("--broker", choices=["embedded", "kafka"], default="embedded")
    chosen = parser.parse_args()
    data = interactions.generated() if chosen.generated else interactions.load()
    try:
        with broker(chosen.broker) as found, tempfile.TemporaryDirectory() as folder:
            runs = [judged(data, seed, found, Path(folder)) for seed in range(chosen.seeds)]
    except FAILURES as problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"{data.name}, means of {len(runs)} splits, from Parquet:\n\n{table(runs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
