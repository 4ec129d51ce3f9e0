"""What the actors of a run are made of, each built inside its actor from a `Job`.

The job comes through Ray, so that no actor needs a file of the driver's machine.
"""

import os
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import journal, topology
from pipeline.archiver import Archiver
from pipeline.batch import Batch, Outgoing
from pipeline.batcher import Batcher, Limits
from pipeline.commit import Target
from pipeline.control import Assignment, ReplicaRef
from pipeline.dispatch import Dispatch
from pipeline.feeder import Feeder, Policies
from pipeline.job import Job, recipe_of
from pipeline.ports import Ahead, Answer, Claimed, Replicas, Sink
from pipeline.ranking import Ranker
from pipeline.score import Model, Scorer
from pipeline.stream import naming_holders

SCORES_HERE = ReplicaRef(0, None)


class SystemClock:
    """Time as this machine tells it."""

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    time = staticmethod(time.time)


def resident_bytes() -> int:
    """Memory that this process holds, 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def build_gpu_scorer(job: Job) -> Scorer:
    """What a replica that reserved a GPU is made of. Raises ConfigInvalid where CUDA fails."""
    return build_scorer(job, gpu=True)


def build_scorer(job: Job, *, gpu: bool = False) -> Scorer:
    """What a replica is made of, in its own actor or in a feeder."""
    from pipeline.edges.onnx import OnnxModel

    spec = job.files.spec
    outputs = None if job.maker else spec.wanted_outputs
    name = f"models/{spec.name}/{spec.version}"
    model: Model = OnnxModel(job.files.model, outputs, name, gpu=gpu)
    if job.rules is not None and job.maker is None:
        model = Ranker(model, spec, job.signature, job.rules)
    return Scorer(
        recipe_of(job.config, job.files, job.signature, job.maker),
        model,
        job.schema,
        name=job.files.name,
        version=job.files.version,
    )


class _LocalReplicas:
    """Scores in this process; hands what goes to isolation on to remote replicas."""

    def __init__(self, score: Callable[[Batch], Any], remote: Replicas) -> None:
        self._score = score
        self._remote = remote
        # At most the batches that dispatch keeps in flight at one replica.
        self._done: list[Answer] = []

    def send(self, replica: ReplicaRef, batch: Batch) -> None:
        """Score it now, or send it to the isolation replica."""
        if replica.handle is None:
            self._done.append(Answer(batch.id, replica.id, self._score(batch)))
        else:
            self._remote.send(replica, batch)

    def collect(self, timeout: float) -> Sequence[Answer]:
        """What was scored here, and what has come from isolation."""
        done, self._done = self._done, []
        return [*done, *self._remote.collect(0.0 if done else timeout)]

    def forget(self, replica: int) -> None:
        """Drop what the isolation replica owes."""
        self._remote.forget(replica)


def warm(*, scores: bool) -> None:
    """Import what a feeder is made of, and where it `scores` what a replica is made of."""
    import_module("pipeline.edges.kafka.transactional")
    import_module("pipeline.edges.kafka.source")
    if scores:
        import_module("pipeline.edges.onnx")


def build_feeder(job: Job, assignment: Assignment) -> Feeder:
    """Claim the slot and return the feeder that owns it."""
    from pipeline.edges.kafka.source import open_source
    from pipeline.edges.ray import RayReplicas

    config = job.config
    writer = uuid.uuid4().hex
    sink, ahead = _sink(job, assignment.slot)

    def opening(claimed: Claimed) -> list[Outgoing]:
        positions = claimed.positions
        generation = assignment.layout.generation
        value = journal.roll(
            writer, claimed.epoch, generation, "claim", config.input.topic, positions
        )
        return [Outgoing.of(config.journal.topic, assignment.slot, [journal.ROLL_KEY], [value])]

    with naming_holders(config):
        claimed = sink.claim(assignment, opening)
    # What nobody sees before its commit may come in larger fetches, up to a fifth of that later.
    patience_ms = config.commit.interval_ms // 5 if ahead is None else 0
    source = open_source(config.kafka, config.group, config.input.topic, patience_ms)
    source.assign(claimed.positions)
    batching = config.batching
    limits = Limits(
        batching.max_batch_size, batching.max_batch_bytes, batching.max_batch_delay_ms / 1000
    )
    batcher = Batcher(config.input.topic, claimed.positions, limits)
    replicas: Replicas = RayReplicas()
    if config.scores_in_feeders:
        replicas = _LocalReplicas(build_scorer(job).score, replicas)
    empty = pa.RecordBatch.from_pylist([], schema=job.schema)
    return Feeder(
        target=_target(job, assignment, claimed.epoch, writer),
        claimed=claimed,
        suspect_rows=assignment.suspect_rows,
        source=source,
        sink=sink,
        ahead=ahead,
        batcher=batcher,
        dispatch=Dispatch(replicas, empty, batcher.new_id, assignment.seconds_per_row),
        policies=Policies(config.commit, config.roll, config.dead_letters),
        # One commit at a time: the feeder never has a second one to queue.
        background=ThreadPoolExecutor(1, thread_name_prefix="commit").submit,
        clock=SystemClock(),
        memory=resident_bytes,
    )


def _sink(job: Job, slot: int) -> tuple[Sink, Ahead | None]:
    """A slot's sink, and what takes predictions ahead of their commit where they may be."""
    from pipeline.edges.kafka.clients import transactional_id
    from pipeline.edges.kafka.idempotent import IdempotentSink, KafkaAhead
    from pipeline.edges.kafka.transactional import TransactionalSink

    config = job.config
    # Predictions, dead letters and chunks of the largest commit.
    queue_rows = 4 * config.commit.max_rows
    largest = job.dead_value_bytes + topology.DEAD_LETTER_OVERHEAD
    if config.delivery == "at_least_once":
        sink = IdempotentSink(config.kafka, config.group, queue_rows, largest)
        return sink, KafkaAhead(config.kafka, queue_rows)
    name = transactional_id(config.group, slot)
    return TransactionalSink(config.kafka, config.group, name, queue_rows, largest), None


def _target(job: Job, assignment: Assignment, epoch: int, writer: str) -> Target:
    config = job.config
    return Target(
        slot=assignment.slot,
        epoch=epoch,
        layout=assignment.layout.generation,
        writer=writer,
        input_topic=config.input.topic,
        predictions_topic=config.output.topic,
        dead_topic=config.dead_letters.topic,
        journal_topic=config.journal.topic,
        ordered=assignment.layout.ordered,
        model_name=job.files.name,
        model_version=job.files.version,
        dead_value_bytes=job.dead_value_bytes,
    )


def build_archiver(job: Job, partitions: int) -> Archiver:
    """The archiver of the whole journal, also of what slots left that are gone."""
    from pipeline.edges.kafka.journal import KafkaJournal
    from pipeline.edges.parquet import LocalFiles

    config = job.config
    reader = KafkaJournal(config.kafka, config.archive_group, config.journal.topic, partitions)
    return Archiver(
        reader, LocalFiles(config.output.parquet / config.job), SystemClock(), resident_bytes
    )
