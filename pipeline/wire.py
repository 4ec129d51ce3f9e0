"""Puts a run together for its driver."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline import topology
from pipeline.build import (
    SCORES_HERE,
    SystemClock,
    build_archiver,
    build_feeder,
    build_gpu_scorer,
    build_scorer,
    warm,
)
from pipeline.config import Config
from pipeline.errors import ConfigInvalid, Mistake
from pipeline.fleet import Fleet, Kind
from pipeline.job import Job
from pipeline.keeper import Archive, ArchiveKeeper
from pipeline.run import Work
from pipeline.scale import Decide
from pipeline.scaler import scaler_of
from pipeline.slots import Slots
from pipeline.slots import Work as SlotWork
from pipeline.status import Status
from pipeline.stream import Input, opened, refuse, unfit


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
        runs=lambda partitions: admin.runs(config.group, partitions),
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
        # One for each question: that of the partitions may wait long for a controller.
        background=ThreadPoolExecutor(2, thread_name_prefix="questions").submit,
        targets=stream.ends() if until_caught_up else None,
        show=show,
    )


def _refuse_unshared(config: Config, nodes: int) -> None:
    if nodes > 1 and not config.output.shared:
        problem = f"is a folder of one machine, and the cluster has {nodes} nodes"
        way_out = "Name a folder that every node mounts and set output.shared: true"
        folder = str(config.output.parquet)
        raise ConfigInvalid([Mistake("output.parquet", folder, problem, way_out)])
