"""What a GPU replica reaches of a bare CUDA loop: `python -m benchmarks.gpu`.

Without Kafka, the same batches go through three in one process: `session.run` on arrays that are
ready, the model as a replica holds it (a ranking from lists of indices), and the whole replica,
from JSON to rows and predictions, which spends time on the CPU that the first does not. Then
several whole replicas share the GPU, as they do where `replicas.gpu` is a fraction.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa

from benchmarks import recommending, workload
from jobs import sequence_model
from pipeline import model_folder
from pipeline.batch import Batch, Partition, Span
from pipeline.config import Ranking
from pipeline.decode import DECODERS
from pipeline.edges.onnx import CPU, CUDA, OnnxModel
from pipeline.ranking import Ranker
from pipeline.recipe import signature_recipe
from pipeline.rules import read_rules
from pipeline.schema import job_schema
from pipeline.score import Model, Scorer

LARGE_MLP = (workload.FEATURES, 4096, 4096, 4096, 1)
REPLICAS = 4
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


def prepared(subject: Subject, rows: int, *, gpu: bool) -> tuple[Callable[[], object], ...]:
    """One batch, ready to go through each of CONTENDERS in this process."""
    with tempfile.TemporaryDirectory() as folder:
        files = model_folder.load_files(model_folder.resolve(subject.write(Path(folder))))
    onnx = OnnxModel(files.model, files.spec.wanted_outputs, gpu=gpu)
    tapped = _Tapped(onnx)
    model: Model = tapped
    if files.spec.ranking is not None:
        rules = read_rules(Ranking(k=recommending.K), files.spec.ranking.vocabulary)
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
    bare = _session(files.model, CUDA if gpu else CPU)
    outputs, fed = files.spec.wanted_outputs, dict(tapped.fed)
    feeds = recipe.feeds(recipe.decode(batch.values).events)
    return (
        lambda: bare.run(outputs, fed),
        lambda: model.run(feeds),
        lambda: scorer.score(batch),
    )


def measure(
    subject: Subject, rows: int, seconds: float, replicas: int, *, gpu: bool
) -> dict[str, float]:
    """Records/s of each of CONTENDERS in batches of `rows`, and of so many whole replicas at once.

    The former are medians of interleaved rounds.
    """
    actions = prepared(subject, rows, gpu=gpu)
    rates: list[list[float]] = [[] for _ in actions]
    for _ in range(ROUNDS):
        for action, found in zip(actions, rates, strict=True):
            found.append(rows / _seconds(action, seconds))
    alone = dict(zip(CONTENDERS, map(statistics.median, rates), strict=True))
    # As Ray's actors are, each in a process of its own.
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(replicas, context) as pool:
        begin = manager.Barrier(replicas)
        asked = [
            pool.submit(_whole, subject.name, rows, seconds, gpu, begin) for _ in range(replicas)
        ]
        return alone | {f"{replicas} such replicas": sum(one.result() for one in asked)}


def _whole(name: str, rows: int, seconds: float, gpu: bool, begin: Barrier) -> float:
    """Records/s of one whole replica, measured while the others are."""
    (subject,) = (one for one in SUBJECTS if one.name == name)
    *_, whole = prepared(subject, rows, gpu=gpu)
    begin.wait()
    return rows / _seconds(whole, ROUNDS * seconds)


def _session(model: bytes, provider: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=[provider])


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
    parser.add_argument("--replicas", type=int, default=REPLICAS, help="that share the GPU")
    parser.add_argument("--cpu", action="store_true", help="on the CPU: says nothing about GPUs")
    chosen = parser.parse_args(arguments)
    print(
        f"records/s on {'the CPU' if chosen.cpu else 'CUDA'}, in brackets as ratio to the first\n"
    )
    names = [*CONTENDERS, f"{chosen.replicas} such replicas"]
    print(f"| model | batch | {' | '.join(names)} |\n" + "|---" * (2 + len(names)) + "|")
    for subject in (one for one in SUBJECTS if one.name in chosen.models):
        for rows in chosen.batches:
            rates = measure(subject, rows, chosen.seconds, chosen.replicas, gpu=not chosen.cpu)
            first, *_ = rates.values()
            cells = [f"{rate:,.0f} ({rate / first:.2f})" for rate in rates.values()]
            print(f"| {subject.name} | {rows:,} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    main()
