"""Puts a job together: the only importer of the edges, each inside the function that needs it.

What is built here runs in three kinds of process: the driver's (`assemble`), and the actors of
feeders, replicas and the archiver (`build_*`), which get a `Job` through Ray and so need no file
of the driver's machine.
"""

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import journal, model, schema
from pipeline.archiver import Archiver
from pipeline.batch import Batch, Outgoing, Partition
from pipeline.batcher import Batcher, Limits
from pipeline.commit import Target
from pipeline.config import Config
from pipeline.control import Assignment, Layout, ReplicaRef
from pipeline.decode import DECODERS
from pipeline.dispatch import Dispatch
from pipeline.errors import ClusterUnfit, ConfigInvalid, Mistake
from pipeline.feeder import Feeder, Policies
from pipeline.fleet import Fleet
from pipeline.keeper import Archive, ArchiveKeeper
from pipeline.ports import Answer, Claimed, Replicas, Sink
from pipeline.recipe import Recipe, load_recipe, signature_recipe
from pipeline.run import Work
from pipeline.score import Scorer
from pipeline.slots import Slots
from pipeline.slots import Work as SlotWork
from pipeline.status import Status

# What a dead letter's headers and key may add to its value.
DEAD_LETTER_OVERHEAD = 64 << 10
DEFAULT_MESSAGE_BYTES = 1_048_588
SCORES_HERE = ReplicaRef(0, None)


@dataclass(frozen=True, slots=True)
class Job:
    """What every actor of a run needs: settings, model, schema, and facts of the cluster."""

    config: Config
    files: model.ModelFiles
    signature: model.Signature
    schema: pa.Schema
    dead_value_bytes: int


class SystemClock:
    """Time as this machine tells it."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


def resident_bytes() -> int:
    """Memory that this process holds, 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def prepare(config: Config) -> Job:
    """Resolve and open the model, fix the schema. Raises ConfigInvalid with every mistake."""
    from pipeline.edges.onnx import OnnxModel

    folder = model.resolve(config.model)
    files = model.load_files(folder)
    signature = OnnxModel(files.model, file=str(folder / "model.onnx")).signature
    mistakes = model.check_signature(files.spec, signature, str(folder / "model.yaml"))
    if mistakes:
        raise ConfigInvalid(mistakes)
    fields = _recipe(config, files, signature).fields
    return Job(
        config=config,
        files=files,
        signature=signature,
        schema=schema.job_schema(fields, config.output.compression),
        dead_value_bytes=DEFAULT_MESSAGE_BYTES - DEAD_LETTER_OVERHEAD,
    )


def _recipe(config: Config, files: model.ModelFiles, signature: model.Signature) -> Recipe:
    if config.recipe is not None:
        return load_recipe(config.recipe, files, signature)
    return signature_recipe(
        files.spec,
        signature,
        config.input.pass_through,
        DECODERS[config.input.format],
        config.input.event_time,
    )


def build_scorer(job: Job) -> Scorer:
    """What a replica is made of, in its own actor or in a feeder."""
    from pipeline.edges.onnx import OnnxModel

    outputs = None if job.config.recipe else [one.name for one in job.files.spec.outputs]
    return Scorer(
        _recipe(job.config, job.files, job.signature),
        OnnxModel(job.files.model, outputs, f"models/{job.files.name}/{job.files.version}"),
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


def build_feeder(job: Job, assignment: Assignment) -> Feeder:
    """Claim the slot and return the feeder that owns it."""
    from pipeline.edges.kafka.source import KafkaSource
    from pipeline.edges.ray import RayReplicas

    config = job.config
    writer = uuid.uuid4().hex
    sink = _sink(config, assignment.slot)

    def opening(claimed: Claimed) -> list[Outgoing]:
        positions = claimed.positions
        value = journal.roll(writer, claimed.epoch, "claim", config.input.topic, positions)
        return [Outgoing(config.journal.topic, assignment.slot, [journal.ROLL_KEY], [value])]

    claimed = sink.claim(assignment, opening)
    source = KafkaSource(config.kafka, config.group, config.input.topic)
    source.assign(claimed.positions)
    batching = config.batching
    limits = Limits(
        batching.max_batch_size, batching.max_batch_bytes, batching.max_batch_delay_ms / 1000
    )
    batcher = Batcher(config.input.topic, claimed.positions, limits)
    replicas: Replicas = RayReplicas()
    if config.placement == "local":
        replicas = _LocalReplicas(build_scorer(job).score, replicas)
    empty = pa.RecordBatch.from_pylist([], schema=job.schema)
    return Feeder(
        target=_target(job, assignment, claimed.epoch, writer),
        claimed=claimed,
        suspect_rows=assignment.suspect_rows,
        source=source,
        sink=sink,
        batcher=batcher,
        dispatch=Dispatch(replicas, empty, batcher.new_id, assignment.seconds_per_row),
        policies=Policies(config.commit, config.roll, config.dead_letters),
        # One commit at a time: the feeder never has a second one to queue.
        background=ThreadPoolExecutor(1, thread_name_prefix="commit").submit,
        clock=SystemClock(),
        memory=resident_bytes,
    )


def _sink(config: Config, slot: int) -> Sink:
    from pipeline.edges.kafka.admin import transactional_id
    from pipeline.edges.kafka.sink import IdempotentSink, TransactionalSink

    # Predictions, dead letters and chunks of the largest commit.
    queue_rows = 4 * config.commit.max_rows
    if config.delivery == "at_least_once":
        return IdempotentSink(config.kafka, config.group, queue_rows)
    name = transactional_id(config.group, slot)
    return TransactionalSink(config.kafka, config.group, name, queue_rows)


def _target(job: Job, assignment: Assignment, epoch: int, writer: str) -> Target:
    config = job.config
    return Target(
        slot=assignment.slot,
        epoch=epoch,
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


def build_archiver(job: Job, slots: int) -> Archiver:
    """The archiver of the job's journal."""
    from pipeline.edges.kafka.journal import KafkaJournal
    from pipeline.edges.parquet import LocalFiles

    config = job.config
    reader = KafkaJournal(config.kafka, f"{config.group}.archive", config.journal.topic, slots)
    return Archiver(
        reader, LocalFiles(config.output.parquet / config.job), SystemClock(), resident_bytes
    )


def assemble(
    job: Job,
    cluster: Any,
    *,
    until_caught_up: bool,
    show: Callable[[Status], None],
) -> Work:
    """Everything that a driver drives, on a connected cluster.

    Raises ClusterUnfit and ConfigInvalid where topics or the Parquet folder do not fit, Fenced
    where another run starts at the same moment, Retriable.
    """
    from pipeline.edges.kafka.admin import KafkaAdmin
    from pipeline.edges.ray import RayActors

    config = job.config
    _refuse_unshared(config, cluster.nodes)
    admin = KafkaAdmin(config.kafka)
    topics = _topics(admin, config)
    source = topics[config.input.topic]
    ordered = source.partitions == topics[config.output.topic].partitions
    slots = config.slots or max(1, min(source.partitions, int(cluster.cpus)))
    fresh = Layout(1, slots, source.partitions, source.id, ordered)
    opening = admin.open_layout if config.delivery == "exactly_once" else admin.open_layout_unfenced
    stored = opening(config.group, source, fresh, config.input.start)
    _refuse_other_layout(config, stored, ordered, topics[config.journal.topic].partitions)
    layout = replace(stored, partitions=source.partitions, topic_id=source.id)
    partitions = [Partition(source.name, number) for number in range(source.partitions)]
    dead_limit = _limit(topics[config.dead_letters.topic].settings)
    shared = cluster.share(replace(job, dead_value_bytes=dead_limit - DEAD_LETTER_OVERHEAD))
    local = config.placement == "local"
    actors, clock = RayActors(), SystemClock()
    fleet = Fleet(
        actors,
        clock,
        build_scorer,
        (shared,),
        config.replicas.cpus,
        standing=(SCORES_HERE,) if local else (),
    )
    work = SlotWork(
        layout=layout,
        build=build_feeder,
        args=(shared,),
        cpus=config.replicas.cpus if local else 0.0,
        scores_locally=local,
        max_batch_size=config.batching.max_batch_size,
        suspect_rows=2 * config.commit.max_rows,
        epoch=lambda partitions: admin.epoch(config.group, partitions),
    )
    owned = [layout.owned(source.name, slot, source.partitions) for slot in range(layout.slots)]
    retention = topics[config.journal.topic].settings.get("retention.ms", "-1")
    return Work(
        config=config,
        model=(job.files.name, job.files.version),
        actors=actors,
        clock=clock,
        fleet=fleet,
        replicas=0 if local else config.replicas.count,
        slots=Slots(actors, clock, work, owned),
        archive=ArchiveKeeper(
            actors,
            clock,
            Archive(
                build_archiver,
                (shared, layout.slots),
                float(retention) / 1000 if float(retention) > 0 else None,
            ),
        ),
        ends=lambda: admin.ends(partitions),
        targets=admin.ends(partitions) if until_caught_up else None,
        show=show,
    )


def _topics(admin: Any, config: Config) -> Mapping[str, Any]:
    wanted = {
        "input.topic": config.input.topic,
        "output.topic": config.output.topic,
        "dead_letters.topic": config.dead_letters.topic,
        "journal.topic": config.journal.topic,
    }
    found: Mapping[str, Any] = admin.topics(wanted.values())
    missing = [f"{setting} = {name}" for setting, name in wanted.items() if name not in found]
    if missing:
        raise ClusterUnfit(
            f"the broker has no such topics: {', '.join(missing)}. "
            "`headrace create-topics CONFIG` makes those that are missing"
        )
    return found


def _limit(settings: Mapping[str, str]) -> int:
    return int(settings.get("max.message.bytes", DEFAULT_MESSAGE_BYTES))


def _refuse_unshared(config: Config, nodes: int) -> None:
    if nodes > 1 and not config.output.shared:
        raise ConfigInvalid(
            [
                Mistake(
                    "output.parquet",
                    str(config.output.parquet),
                    f"is a folder of one machine, and the cluster has {nodes} nodes",
                    "Name a folder that every node mounts and set output.shared: true",
                )
            ]
        )


def _refuse_other_layout(config: Config, stored: Layout, ordered: bool, journal: int) -> None:
    mistakes = []
    if config.slots not in {None, stored.slots}:
        way_out = f"Leave it out, or set it to {stored.slots}"
        problem = f"the job was started with {stored.slots} slots, which its offsets are kept by"
        mistakes.append(Mistake("slots", config.slots, problem, way_out))
    if stored.ordered and not ordered:
        mistakes.append(
            Mistake(
                "output.topic",
                config.output.topic,
                "has another number of partitions than the input, though the job began with "
                "equal numbers and so keeps the order of each partition",
                "Give both topics equally many partitions",
            )
        )
    if journal < stored.slots:
        mistakes.append(
            Mistake(
                "journal.topic",
                config.journal.topic,
                f"has {journal} partitions, and the job has {stored.slots} slots, one for each",
                f"Add partitions up to {stored.slots}",
            )
        )
    if mistakes:
        raise ConfigInvalid(mistakes)
