"""`headrace verify`: whether a job's outputs are what it promises, read by independent clients.

The independent clients are kafka-python and pyarrow; `pipeline.audit_job` says what must be true.
"""

from collections.abc import Mapping
from contextlib import closing

from pipeline import layout, topology
from pipeline.audit import Promise
from pipeline.audit_job import JobAudit, Show, View
from pipeline.batch import Partition
from pipeline.config import Config
from pipeline.edges.kafka_python import KafkaReader, Position, partition_of
from pipeline.edges.parquet import VisibleFiles
from pipeline.errors import ClusterUnfit, NotCheckable
from pipeline.topology import Topic
from pipeline.verification import Verification, verification


def verify(config: Config, show: Show) -> Verification:
    """Read everything that the job wrote, and hold it to its promise.

    Raises NotCheckable where nothing can be said at all, ConfigInvalid where the Kafka settings do
    not suit the independent client, ClusterUnfit.
    """
    with closing(KafkaReader(config.kafka)) as reader:
        topics = reader.topics(list(topology.names(config).values()))
        missing = list(topology.missing(config, topics))
        if missing:
            raise ClusterUnfit("\n".join(map(str, missing)))
        unknown = _compacted(config, topics)
        source, output = topics[config.input.topic], topics[config.output.topic]
        view, stored = _fix(config, reader, topics)
        if view.files is None and any(view.archived.values()):
            folder = config.output.parquet / config.job
            unknown.append(f"output.parquet: there is no {folder} here: run where it is mounted")
        promise = Promise(
            input_topic=source.name,
            predictions_topic=output.name,
            dead_topic=config.dead_letters.topic,
            exactly_once=config.delivery == "exactly_once",
            ordered=next(iter(stored.values())).ordered,
            partition_of=lambda key: partition_of(key, output.partitions),
            input_whole=_policy(source) == "delete",
        )
        held = JobAudit(promise, view, reader, show)
        held.run(lambda: _offsets(_committed(config, reader, source), source))
    return verification(config, held, unknown)


def _compacted(config: Config, topics: Mapping[str, Topic]) -> list[str]:
    """What compaction makes unknown; raises NotCheckable where that is everything."""
    names = topology.names(config)
    found = {
        setting: f"{setting} = {name} has cleanup.policy={_policy(topics[name])}: what compaction "
        "removes cannot be told from what is lost"
        for setting, name in names.items()
        if _policy(topics[name]) != "delete"
    }
    if found.keys() - {"input.topic"}:
        raise NotCheckable("\n".join(found.values()))
    return list(found.values())


def _fix(
    config: Config, reader: KafkaReader, topics: Mapping[str, Topic]
) -> tuple[View, dict[int, layout.Metadata]]:
    source, log = topics[config.input.topic], topics[config.journal.topic]
    archived = reader.committed(f"{config.group}.archive", log.name, log.partitions)
    root = config.output.parquet / config.job
    files = VisibleFiles(root) if root.is_dir() else None
    names = files.names() if files else []
    committed = _committed(config, reader, source)
    stored = _metadata(config, source, committed)
    view = View(
        journal_topic=log.name,
        archived={number: one.offset for number, one in archived.items()},
        files=files,
        names=names,
        committed=_offsets(committed, source),
        epochs={number: one.epoch for number, one in stored.items()},
        bounds={
            topic.name: reader.bounds(topic.name, topic.partitions) for topic in topics.values()
        },
    )
    return view, stored


def _committed(config: Config, reader: KafkaReader, source: Topic) -> dict[int, Position]:
    found = reader.committed(config.group, source.name, source.partitions)
    if not found:
        raise NotCheckable(
            f"group {config.group} has no committed offsets on {source.name}: the job has not run, "
            "or they expired, so that nothing says how far it has come"
        )
    return found


def _metadata(
    config: Config, source: Topic, committed: Mapping[int, Position]
) -> dict[int, layout.Metadata]:
    found = {}
    for number, one in committed.items():
        place = Partition(source.name, number)
        try:
            stored = layout.Stored(one.offset, one.metadata)
            found[number] = layout.decode(place, stored, config.group)
        except ClusterUnfit as problem:
            raise NotCheckable(str(problem)) from problem
        if found[number].topic_id != source.id:
            raise NotCheckable(
                f"topic {source.name} was deleted and made again since group {config.group} "
                f"committed (id {found[number].topic_id}, now {source.id}): its offsets mean other "
                "records"
            )
    known = min(one.partitions for one in found.values())
    lost = [number for number in range(known) if number not in committed]
    if lost:
        raise NotCheckable(
            f"group {config.group} has no committed offset for partitions {lost} of {source.name}, "
            "though it had one: it expired or was deleted"
        )
    return found


def _offsets(committed: Mapping[int, Position], source: Topic) -> dict[int, int]:
    """By partition; a new one that is not committed yet stands below its first offset."""
    return {n: committed[n].offset if n in committed else -1 for n in range(source.partitions)}


def _policy(topic: Topic) -> str:
    return topic.settings.get("cleanup.policy", "unknown to this user (DESCRIBE_CONFIGS)")
