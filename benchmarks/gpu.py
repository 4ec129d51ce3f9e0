"""What a GPU replica reaches of a bare CUDA loop: `python -m benchmarks.gpu`.

In one process and without Kafka, the same batches go through three: `session.run` on arrays that
are ready, the model as a replica holds it (bound; a ranking from lists of indices), and the whole
replica, from JSON to rows and predictions, which spends time on the CPU that the first does not.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa

from benchmarks import recommending, workload
from jobs import sequence_model
from pipeline import model_folder
from pipeline.batch import Batch, Partition, Span
from pipeline.decode import DECODERS
from pipeline.edges.onnx import CPU, CUDA, OnnxModel
from pipeline.ranking import Ranker, Rules
from pipeline.recipe import signature_recipe
from pipeline.schema import job_schema
from pipeline.score import Model, Scorer

LARGE_MLP = (workload.FEATURES, 4096, 4096, 4096, 1)
ROUNDS = 5
SECONDS = 1.0
CONTENDERS = ("bare loop", "the model in a replica", "a whole replica, from JSON")


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, how its folder is written, and the events that it scores."""

    name: str
    write: Callable[[Path], Path]
    events: Callable[[int], Iterator[tuple[bytes, bytes, int]]]


def _write_sequence(folder: Path) -> Path:
    shape = sequence_model.Shape(recommending.ITEMS)
    graph = sequence_model.export(sequence_model.initial(shape, 0))
    form = f"form: padded, newest: {shape.length}, pad: 0, side: left"
    return recommending.write_ranker(folder, "sequence", graph, form, first=1)


def _write_large_mlp(folder: Path) -> Path:
    return workload.write_model(folder, LARGE_MLP)


SUBJECTS = (
    Subject("sequence", _write_sequence, recommending.events),
    Subject("large mlp", _write_large_mlp, workload.events),
    Subject("small mlp", workload.write_model, workload.events),
)


class _Tapped:
    """Hands on to a model, and keeps what it was last fed."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.fed: Mapping[str, Any] = {}

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.fed = feeds
        return self._model.run(feeds)


def measure(subject: Subject, rows: int, seconds: float, *, gpu: bool) -> dict[str, float]:
    """Records/s of each of CONTENDERS in batches of `rows`: medians of interleaved rounds."""
    with tempfile.TemporaryDirectory() as folder:
        files = model_folder.load_files(model_folder.resolve(subject.write(Path(folder))))
    onnx = OnnxModel(files.model, files.spec.wanted_outputs, gpu=gpu)
    tapped = _Tapped(onnx)
    model: Model = tapped
    if files.spec.ranking is not None:
        barred = np.zeros(files.spec.ranking.vocabulary.size, np.bool_)
        rules = Rules(recommending.K, exclude_seen=True, barred=barred)
        model = Ranker(tapped, files.spec, onnx.signature, rules)
    recipe = signature_recipe(files.spec, onnx.signature, {"id": "int64"}, DECODERS["json"])
    schema = job_schema(recipe.fields)
    scorer = Scorer(recipe, model, schema, name=files.name, version=files.version)
    batch = _batch(islice(subject.events(rows), rows))
    # The first run chooses algorithms and takes memory; it also shows what the graph is fed.
    scorer.score(batch)
    if max(map(len, tapped.fed.values())) != rows:
        raise ValueError(
            f"a replica runs {subject.name} in parts of less than {rows}: ask for less"
        )
    bare = onnxruntime.InferenceSession(files.model, providers=[CUDA if gpu else CPU])
    outputs, fed = files.spec.wanted_outputs, dict(tapped.fed)
    feeds = recipe.feeds(recipe.decode(batch.values.to_pylist()).events)
    actions: tuple[Callable[[], object], ...] = (
        lambda: bare.run(outputs, fed),
        lambda: model.run(feeds),
        lambda: scorer.score(batch),
    )
    rates: list[list[float]] = [[] for _ in actions]
    for _ in range(ROUNDS):
        for action, found in zip(actions, rates, strict=True):
            found.append(rows / _seconds(action, seconds))
    return dict(zip(CONTENDERS, map(statistics.median, rates), strict=True))


def _seconds(action: Callable[[], object], least: float) -> float:
    """Seconds that one call takes, over as many as fit into `least`, one at least."""
    began, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - began < least:
        action()
        calls += 1
    return (time.perf_counter() - began) / calls


def _batch(events: Iterator[tuple[bytes, bytes, int]]) -> Batch:
    keys, values, _ = zip(*events, strict=True)
    rows = len(values)
    return Batch(
        id=0,
        spans=(Span(Partition("events", 0), 0, rows, rows),),
        offsets=pa.array(np.arange(rows)),
        timestamps=pa.array(np.zeros(rows, np.int64)),
        keys=pa.array(keys, pa.binary()),
        values=pa.array(values, pa.binary()),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a Markdown table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = [one.name for one in SUBJECTS]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 2048], help="rows of each")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each round")
    parser.add_argument("--cpu", action="store_true", help="on the CPU: says nothing about GPUs")
    chosen = parser.parse_args(arguments)
    print(
        f"records/s on {'the CPU' if chosen.cpu else 'CUDA'}, in brackets as ratio to the first\n"
    )
    print(f"| model | batch | {' | '.join(CONTENDERS)} |\n" + "|---" * 5 + "|")
    for subject in (one for one in SUBJECTS if one.name in chosen.models):
        for rows in chosen.batches:
            rates = measure(subject, rows, chosen.seconds, gpu=not chosen.cpu)
            first = rates[CONTENDERS[0]]
            cells = [f"{rate:,.0f} ({rate / first:.2f})" for rate in rates.values()]
            print(f"| {subject.name} | {rows:,} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    main()
