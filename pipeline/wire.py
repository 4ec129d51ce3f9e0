"""Puts a job together: the only importer of the edges, each inside the function that needs it.

What is built here runs in three kinds of process: the driver's (`assemble`), and the actors of
feeders, replicas and the archiver (`build_*`), which get a `Job` through Ray and so need no file
of the driver's machine.
"""

import os
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import journal, model, model_folder, schema, topology
from pipeline.archiver import Archiver
from pipeline.batch import Batch, Outgoing
from pipeline.batcher import Batcher, Limits
from pipeline.commit import Target
from pipeline.config import Config
from pipeline.control import Assignment, ReplicaRef
from pipeline.decode import DECODERS
from pipeline.dispatch import Dispatch
from pipeline.errors import ConfigInvalid, Mistake
from pipeline.feeder import Feeder, Policies, Send
from pipeline.fleet import Fleet, Kind
from pipeline.keeper import Archive, ArchiveKeeper
from pipeline.ports import Answer, Claimed, Replicas, Sink
from pipeline.ranking import Ranker, Rules
from pipeline.recipe import Maker, Recipe, find_maker, make_recipe, signature_recipe
from pipeline.rules import read_rules
from pipeline.run import Work
from pipeline.scale import Decide
from pipeline.scaler import scaler_of
from pipeline.score import Model, Scorer
from pipeline.signature import check_signature
from pipeline.slots import Slots
from pipeline.slots import Work as SlotWork
from pipeline.status import Status
from pipeline.stream import Input, naming_holders, opened, refuse, unfit

SCORES_HERE = ReplicaRef(0, None)


@dataclass(frozen=True, slots=True)
class Job:
    """What every actor of a run needs: settings, model, schema, and facts of the cluster."""

    config: Config
    files: model.ModelFiles
    signature: model.Signature
    schema: pa.Schema
    maker: Maker | None
    rules: Rules | None
    dead_value_bytes: int


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


def prepare(config: Config) -> Job:
    """Resolve and open the model, fix the schema. Raises ConfigInvalid with every mistake."""
    from pipeline.edges.onnx import OnnxModel

    folder = model_folder.resolve(config.model)
    files = model_folder.load_files(folder)
    signature = OnnxModel(files.model, file=str(folder / "model.onnx")).signature
    mistakes = check_signature(files.spec, signature, str(folder / "model.yaml"))
    if mistakes:
        raise ConfigInvalid(mistakes)
    maker = find_maker(config.recipe) if config.recipe else None
    fields = _recipe(config, files, signature, maker).fields
    ranking = files.spec.ranking
    if ranking is None and (config.ranking.allow or config.ranking.deny):
        way_out = "Leave it out, or describe the ranking in model.yaml"
        mistake = Mistake("ranking", str(folder), "is set for a model that does not rank", way_out)
        raise ConfigInvalid([mistake])
    return Job(
        config=config,
        files=files,
        signature=signature,
        schema=schema.job_schema(fields, config.output.compression),
        maker=maker,
        rules=None if ranking is None else read_rules(config.ranking, ranking.vocabulary),
        dead_value_bytes=topology.DEFAULT_MESSAGE_BYTES - topology.DEAD_LETTER_OVERHEAD,
    )


def _recipe(
    config: Config, files: model.ModelFiles, signature: model.Signature, maker: Maker | None
) -> Recipe:
    if maker is not None:
        return make_recipe(maker, files, signature)
    return signature_recipe(
        files.spec,
        signature,
        config.input.pass_through,
        DECODERS[config.input.format],
        config.input.event_time,
    )


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
        _recipe(job.config, job.files, job.signature, job.maker),
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
    import_module("pipeline.edges.kafka.sink")
    import_module("pipeline.edges.kafka.source")
    if scores:
        import_module("pipeline.edges.onnx")


def build_feeder(job: Job, assignment: Assignment) -> Feeder:
    """Claim the slot and return the feeder that owns it."""
    from pipeline.edges.kafka.source import open_source
    from pipeline.edges.ray import RayReplicas

    config = job.config
    writer = uuid.uuid4().hex
    sink, send_ahead = _sink(job, assignment.slot)

    def opening(claimed: Claimed) -> list[Outgoing]:
        positions = claimed.positions
        generation = assignment.layout.generation
        value = journal.roll(
            writer, claimed.epoch, generation, "claim", config.input.topic, positions
        )
        return [Outgoing(config.journal.topic, assignment.slot, [journal.ROLL_KEY], [value])]

    with naming_holders(config):
        claimed = sink.claim(assignment, opening)
    source = open_source(config.kafka, config.group, config.input.topic)
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
        send_ahead=send_ahead,
        batcher=batcher,
        dispatch=Dispatch(replicas, empty, batcher.new_id, assignment.seconds_per_row),
        policies=Policies(config.commit, config.roll, config.dead_letters),
        # One commit at a time: the feeder never has a second one to queue.
        background=ThreadPoolExecutor(1, thread_name_prefix="commit").submit,
        clock=SystemClock(),
        memory=resident_bytes,
    )


def _sink(job: Job, slot: int) -> tuple[Sink, Send | None]:
    """A slot's sink, and how predictions are sent ahead of their commit where they may be."""
    from pipeline.edges.kafka.clients import transactional_id
    from pipeline.edges.kafka.sink import IdempotentSink, TransactionalSink

    config = job.config
    # Predictions, dead letters and chunks of the largest commit.
    queue_rows = 4 * config.commit.max_rows
    largest = job.dead_value_bytes + topology.DEAD_LETTER_OVERHEAD
    if config.delivery == "at_least_once":
        sink = IdempotentSink(config.kafka, config.group, queue_rows, largest)
        return sink, sink.send
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


def assemble(
    job: Job,
    cluster: Any,
    *,
    until_caught_up: bool,
    show: Callable[[Status], None],
    decide: Decide,
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
    topics = admin.topics(topology.names(config).values())
    refuse(list(topology.missing(config, topics)), unfit)
    refuse(list(topology.too_small(config, topics)), unfit)
    source = topics[config.input.topic]
    stored = opened(config, admin, topics, cluster.cores)
    stream = Input(config, admin, stored, source)
    dead_limit = topics[config.dead_letters.topic].limit
    dead_value_bytes = dead_limit - topology.DEAD_LETTER_OVERHEAD
    if job.maker is not None:
        cluster.carry(job.maker)
    shared = cluster.share(replace(job, dead_value_bytes=dead_value_bytes))
    local = config.scores_in_feeders
    actors, clock = RayActors(), SystemClock()
    on_cpu = Kind(build_scorer, config.replicas.cpus)
    on_gpu = Kind(build_gpu_scorer, config.replicas.cpus, config.replicas.gpu)
    fleet = Fleet(
        actors,
        clock,
        (shared,),
        on_gpu if config.replicas.gpu else on_cpu,
        # A record that kills its replica is found on any node.
        build_isolated=build_scorer,
        beside={on_cpu: config.replicas.cpu_replicas} if config.replicas.gpu else {},
        standing=(SCORES_HERE,) if local else (),
    )
    work = SlotWork(
        layout=stored,
        topic_partitions=source.partitions,
        build=build_feeder,
        args=(shared,),
        # A Ray of our own was told of cores enough, and what reserves nothing may take a spare.
        cpus=config.replicas.cpus if local and not cluster.local else 0.0,
        max_batch_size=config.batching.max_batch_size,
        suspect_rows=2 * config.commit.max_rows,
        epoch=lambda partitions: admin.epoch(config.group, partitions),
        # After one that scores itself an isolation replica is needed too.
        spares=("feeder", "replica") if local else ("feeder",),
        warm=partial(warm, scores=local),
    )
    owned = [stored.owned(source.name, slot, source.partitions) for slot in range(stored.slots)]
    retention = topics[config.journal.topic].settings.get("retention.ms", "-1")
    return Work(
        config=config,
        model=(job.files.name, job.files.version),
        actors=actors,
        clock=clock,
        fleet=fleet,
        scaler=scaler_of(config, stored.slots, job.files.version, decide),
        reserve=lambda count: cluster.reserve(count, config.replicas.cpus, config.replicas.gpu),
        slots=Slots(actors, clock, work, owned),
        archive=ArchiveKeeper(
            actors,
            clock,
            Archive(
                build_archiver,
                (shared, topics[config.journal.topic].partitions),
                float(retention) / 1000 if float(retention) > 0 else None,
                stored.generation,
            ),
        ),
        ends=stream.ends,
        partitions=stream.look,
        targets=stream.ends() if until_caught_up else None,
        show=show,
    )


def _refuse_unshared(config: Config, nodes: int) -> None:
    if nodes > 1 and not config.output.shared:
        problem = f"is a folder of one machine, and the cluster has {nodes} nodes"
        way_out = "Name a folder that every node mounts and set output.shared: true"
        folder = str(config.output.parquet)
        raise ConfigInvalid([Mistake("output.parquet", folder, problem, way_out)])
