"""`headrace check`: everything that would stop a run, found before one is started."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import layout as layouts
from pipeline import topology
from pipeline.config import Config
from pipeline.control import Layout
from pipeline.errors import ClusterUnfit, ConfigInvalid, Fenced, HeadraceError, Mistake
from pipeline.handover import aim
from pipeline.job import prepare
from pipeline.settings import load
from pipeline.topics import JOURNAL_SECONDS

# The `metadata.version` of Kafka 4.3.
KAFKA_4_3 = 30
# What a run does with each topic, in Kafka's words.
OPERATIONS = {
    "input.topic": ("READ", "DESCRIBE"),
    "output.topic": ("WRITE",),
    "dead_letters.topic": ("WRITE",),
    "journal.topic": ("READ", "WRITE"),
}


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of one config: mistakes, or facts and warnings where there are none."""

    path: Path
    mistakes: tuple[Mistake, ...]
    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check(path: Path, environ: Mapping[str, str]) -> Checked:
    """Look at config, model, broker, topics, permissions and folder.

    Starts nothing, leaves nothing behind, and raises nothing for what it finds.
    """
    try:
        config = load(path, environ)
    except ConfigInvalid as invalid:
        return Checked(path, invalid.mistakes)
    mistakes: list[Mistake] = []
    facts = [config.job]
    server = config.kafka["bootstrap.servers"]

    def collect(look: Callable[[], Iterator[Mistake | str]]) -> None:
        try:
            for found in look():
                if isinstance(found, Mistake):
                    mistakes.append(found)
                else:
                    facts.append(found)
        except ConfigInvalid as invalid:
            mistakes.extend(invalid.mistakes)
        except ClusterUnfit as problem:
            way_out = "Have the broker's operator mend it, or use another user"
            mistakes.append(Mistake("kafka", server, str(problem), way_out))
        except HeadraceError as problem:
            way_out = "Start the broker, or mend the address"
            mistakes.append(Mistake("kafka.bootstrap.servers", server, str(problem), way_out))

    collect(lambda: _model(config))
    collect(lambda: _cluster(config))
    collect(lambda: _folder(config.output.parquet / config.job))
    if mistakes:
        return Checked(path, tuple(mistakes))
    return Checked(path, (), tuple(facts), tuple(_warnings(config)))


def _model(config: Config) -> Iterator[Mistake | str]:
    job = prepare(config)
    yield f"model {job.files.name} version {job.files.version}"
    fields = sum(len(one.fields) for one in job.files.spec.inputs)
    width = sum(tensor.width or 0 for tensor in job.signature.inputs.values())
    ranking = job.files.spec.ranking
    if config.recipe is not None:
        yield f"recipe {config.recipe}"
    elif ranking is not None:
        yield f"the best {config.ranking.k} of {len(ranking.vocabulary.ids):,} items"
    else:
        yield f"{max(fields, width)} features"
    yield f"{len(job.schema)} columns"


# -- the cluster ---------------------------------------------------------------------------------


def _cluster(config: Config) -> Iterator[Mistake | str]:
    from pipeline.edges.kafka.admin import KafkaAdmin

    admin = KafkaAdmin(config.kafka)
    wanted = topology.names(config)
    found = admin.topics(wanted.values())
    yield from topology.missing(config, found)
    if config.input.topic in found:
        yield from _slots(config, admin, found)
    yield from _limits(config, found)
    yield from _permissions(config, admin.operations(found))
    if config.delivery == "exactly_once" and (mistake := carries_exactly_once(config)):
        yield mistake


def _slots(config: Config, admin: Any, found: Mapping[str, Any]) -> Iterator[Mistake | str]:
    source = found[config.input.topic]
    yield f"{source.partitions} partitions"
    stored = layouts.stored_layout(admin.committed(config.group, source.name), config.group)
    slots = config.slots or max(1, min(source.partitions, os.cpu_count() or 1))
    output = found.get(config.output.topic)
    ordered = output is None or output.partitions == source.partitions
    fresh = Layout(1, slots, source.partitions, source.id, ordered)
    known = fresh if stored is None else aim(stored, config.slots, source.partitions)
    yield f"{known.slots} slots" + ("" if stored or config.slots else " on as many cores as here")
    yield from topology.unfit_layout(config, known, found)


def _limits(config: Config, found: Mapping[str, Any]) -> Iterator[Mistake]:
    yield from topology.too_small(config, found)
    source, dead = found.get(config.input.topic), found.get(config.dead_letters.topic)
    if source is not None and dead is not None:
        needed = source.limit + topology.DEAD_LETTER_OVERHEAD
        if dead.limit < needed:
            problem = (
                f"takes records of {dead.limit:,} bytes at most, so that the largest "
                f"inputs would lose their ends; {needed:,} are the input's and what says why"
            )
            way_out = f"Set its max.message.bytes to {needed}"
            yield Mistake("dead_letters.topic", dead.name, problem, way_out)
    if config.journal.topic in found:
        yield from _journal_kept(config.journal.topic, found[config.journal.topic].settings)


def _journal_kept(name: str, settings: Mapping[str, str]) -> Iterator[Mistake]:
    """The journal is the only place of rows that are not in Parquet yet."""
    policy = settings.get("cleanup.policy", "delete")
    if policy != "delete":
        problem = f"has cleanup.policy={policy}, which removes rows before they are in Parquet"
        yield Mistake("journal.topic", name, problem, "Set its cleanup.policy to delete")
    kept = int(settings.get("retention.ms", "-1")) / 1000
    if 0 <= kept < JOURNAL_SECONDS:
        problem = f"keeps records for {kept / 3600:,.1f} hours, and 7 days are asked for"
        way_out = f"Set its retention.ms to {JOURNAL_SECONDS * 1000} or more, or to -1"
        yield Mistake("journal.topic", name, problem, way_out)
    if (size := int(settings.get("retention.bytes", "-1"))) >= 0:
        problem = f"has retention.bytes={size:,}, which may remove rows before they are in Parquet"
        yield Mistake("journal.topic", name, problem, "Set its retention.bytes to -1")


def _permissions(config: Config, allowed: Mapping[str, frozenset[str]]) -> Iterator[Mistake]:
    for setting, name in topology.names(config).items():
        told = allowed.get(name)
        # A broker without an authorizer may tell nothing at all.
        missing = [one for one in OPERATIONS[setting] if told and not told & {one, "ALL"}]
        if missing:
            problem = f"this user lacks {' and '.join(missing)} on it"
            yield Mistake(setting, name, problem, "Have the broker's operator add the permission")


def carries_exactly_once(config: Config) -> Mistake | None:
    """Try, on a topic and a group of its own, whether the broker carries transactions.

    None where it does, and where this user may not make such a topic, so that it can't be tried.
    Raises Retriable without a broker.
    """
    from pipeline.edges.kafka.admin import KafkaAdmin
    from pipeline.edges.kafka.probe import broken_promise

    admin = KafkaAdmin(config.kafka)
    name, topic = f"{config.group}.check", f"{config.job}.check.{uuid.uuid4().hex[:8]}"
    way_out = "Set delivery: at_least_once, or use Apache Kafka"
    try:
        admin.create(topic, 1, {})
    except ClusterUnfit:
        return None
    try:
        broken = broken_promise(config.kafka, name, topic)
    except Fenced:
        broken, way_out = "another check of this job runs now", "Run one at a time"
    except HeadraceError as problem:
        broken = f"a transaction failed: {problem}"
    finally:
        for clean_up in (lambda: admin.delete(topic), lambda: admin.delete_group(name)):
            _quietly(clean_up)
    if broken is None:
        return None
    return Mistake("delivery", config.delivery, f"the broker does not carry it: {broken}", way_out)


def _warnings(config: Config) -> Iterator[str]:
    """What stops no run, and may break its promise."""
    from pipeline.edges import kafka_python

    if config.delivery != "exactly_once":
        return
    try:
        newest = kafka_python.metadata_version(config.kafka)
    except HeadraceError:
        # kafka-python does not know each way to connect that librdkafka does.
        return
    if newest == KAFKA_4_3:
        yield (
            "the broker is of Kafka 4.3: 4.3.0 and 4.3.1 lose commits that they have acknowledged "
            "when they die at once. Use 4.2 until a release has mended it"
        )


def _quietly(clean_up: Callable[[], None]) -> None:
    """An empty topic or group that stays behind harms nobody, and may be all that is allowed."""
    try:
        clean_up()
    except HeadraceError:
        return


# -- the folder ----------------------------------------------------------------------------------


def _folder(root: Path) -> Iterator[Mistake]:
    """Make, write and rename as the archiver does, and leave nothing behind."""
    from pipeline.edges.parquet import hidden_beside

    hidden = hidden_beside(root)
    made: list[Path] = []
    trial = f".check-{uuid.uuid4().hex}"
    try:
        for folder in (root, hidden):
            missing = [one for one in (folder, *folder.parents) if not one.exists()]
            for one in reversed(missing):
                one.mkdir()
                made.append(one)
        try:
            (hidden / trial).write_bytes(b"headrace check")
            (hidden / trial).replace(root / trial)
        finally:
            (hidden / trial).unlink(missing_ok=True)
            (root / trial).unlink(missing_ok=True)
    except OSError as problem:
        text = f"cannot be written as the archiver does it ({problem})"
        way_out = "Mend the permissions, or name another folder, on one mount with its parent"
        yield Mistake("output.parquet", str(root), text, way_out)
    finally:
        for one in reversed(made):
            one.rmdir()
