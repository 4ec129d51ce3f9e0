"""`headrace dlq`: what lies in the dead-letter topic, and sending it back to the input once more.

A replay is a run of its own kind: its group and transactional id are `{group}.replay`, and each of
its transactions holds input records and the offsets of the letters that they were made of. So a
replay that breaks off goes on where it stopped, and sends nothing twice.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.batch import Outgoing, Partition
from pipeline.config import Config
from pipeline.control import Assignment, Layout
from pipeline.dead_letters import PREFIX
from pipeline.errors import AnotherRunTookOver, Fenced
from pipeline.ports import Sink

if TYPE_CHECKING:
    from pipeline.edges.kafka.letters import Letter

# Of one transaction: what a crash repeats the work of, and what waits in memory.
TRANSACTION_ROWS = 5000
TRANSACTION_BYTES = 16 << 20
# Messages that name what they met differ from record to record: what is kept of them is bounded.
GROUPS = 1000
BATCH_BYTES = 1_000_000
PREVIEW_BYTES = 120


@dataclass(frozen=True, order=True, slots=True)
class Reason:
    """Why letters are dead."""

    stage: str
    exception: str
    message: str


@dataclass(slots=True)
class Group:
    """Letters of one reason: how many wait for a replay, how many had theirs, and the first one.

    `example` is the position of the record in the input topic, `letter` that of the dead letter.
    """

    reason: Reason
    example: str
    letter: str
    preview: str
    waiting: int = 0
    replayed: int = 0


@dataclass(frozen=True, slots=True)
class Letters:
    """What `headrace dlq list --json` prints; `remembered` says that a replay is known of."""

    groups: tuple[Group, ...]
    waiting: int
    replayed: int
    remembered: bool


@dataclass(slots=True)
class Replayed:
    """What a replay did: records sent back, letters that are cut, and records that are none."""

    sent: int = 0
    truncated: int = 0
    foreign: int = 0


def replay_name(config: Config) -> str:
    """Group and transactional id of the job's replays."""
    return f"{config.group}.replay"


def letters(config: Config) -> Letters:
    """Group what lies in the dead-letter topic by reason, largest first.

    Raises ClusterUnfit where the topic is missing, Retriable without a broker.
    """
    from pipeline.edges.kafka.admin import KafkaAdmin, require
    from pipeline.edges.kafka.letters import KafkaLetters

    admin = KafkaAdmin(config.kafka)
    name = config.dead_letters.topic
    topic = require(admin.topics([name]), name, "dead_letters.topic")
    stored = admin.committed(replay_name(config), name)
    done = {partition: item.offset for partition, item in stored.items()}
    groups: dict[Reason, Group] = {}
    with closing(KafkaLetters(config.kafka, replay_name(config), name)) as reader:
        starts = reader.starts(topic.partitions)
        for some in reader.read(starts, admin.ends(list(starts))):
            for letter in some:
                group = _grouped(groups, letter)
                if letter.next <= done.get(letter.partition, 0):
                    group.replayed += 1
                else:
                    group.waiting += 1
    found = sorted(groups.values(), key=lambda g: (-g.waiting, -g.replayed, g.reason))
    return Letters(
        tuple(found), sum(g.waiting for g in found), sum(g.replayed for g in found), bool(stored)
    )


def _grouped(groups: dict[Reason, Group], letter: "Letter") -> Group:
    said = _said(letter)
    reason = Reason(
        said.get("errors.stage", "none of headrace"),
        said.get("errors.exception", ""),
        said.get("errors.message", ""),
    )
    if reason not in groups and len(groups) >= GROUPS:
        reason = replace(reason, message="(other messages)")
    if reason not in groups:
        groups[reason] = Group(
            reason,
            f"{said.get('errors.topic')}/{said.get('errors.partition')}@{said.get('errors.offset')}"
            if "errors.topic" in said
            else "",
            f"{letter.partition}@{letter.next - 1}",
            (letter.value or b"")[:PREVIEW_BYTES].decode("utf-8", "replace"),
        )
    return groups[reason]


def _said(letter: "Letter") -> dict[str, str]:
    """What the headers of a letter say, by their names without the prefix."""
    return {
        name.removeprefix(PREFIX): (content or b"").decode("utf-8", "replace")
        for name, content in letter.headers or []
        if name.startswith(PREFIX)
    }


def replay(config: Config) -> Iterator[Replayed]:
    """Send what waits back to the input topic; yields the sums after each transaction.

    A letter goes back under its key, value and headers, to the partition that it came from.
    Letters with a cut value, and records that are no letters of ours, are passed over for good.
    Exactly once, or at least once where the job's delivery is.
    Raises AnotherRunTookOver, ClusterUnfit, OutcomeUnknown, Retriable: start it again after these,
    and it goes on where it stopped.
    """
    from pipeline.edges.kafka.admin import KafkaAdmin, require
    from pipeline.edges.kafka.letters import KafkaLetters

    admin = KafkaAdmin(config.kafka)
    dead = config.dead_letters.topic
    found = admin.topics([dead, config.input.topic])
    topic = require(found, dead, "dead_letters.topic")
    source = require(found, config.input.topic, "input.topic")
    # A layout of no partitions says that each without an offset is new, and begins at its start.
    layout = Layout(1, 1, 0, topic.id, ordered=False)
    asked = tuple(Partition(dead, number) for number in range(topic.partitions))
    with closing(_sink(config, source.limit)) as sink:
        try:
            claimed = sink.claim(Assignment(0, layout, asked, layout.partitions), lambda _: ())
            with closing(KafkaLetters(config.kafka, replay_name(config), dead)) as reader:
                # Retention may have removed letters that were never sent back.
                positions = {
                    partition: max(low, claimed.positions.get(partition, 0))
                    for partition, low in reader.starts(topic.partitions).items()
                }
                read = reader.read(positions, admin.ends(asked))
                yield from _replayed(source.name, source.partitions, read, sink)
        except Fenced as problem:
            raise AnotherRunTookOver(f"another replay of job {config.job} took over") from problem


def _sink(config: Config, largest: int) -> Sink:
    from pipeline.edges.kafka.idempotent import IdempotentSink
    from pipeline.edges.kafka.transactional import TransactionalSink

    name = replay_name(config)
    # The broker applies the topic's limit to whole batches.
    settings = {**config.kafka, "batch.size": str(max(1, min(BATCH_BYTES, largest)))}
    if config.delivery == "at_least_once":
        return IdempotentSink(settings, name, TRANSACTION_ROWS, largest)
    return TransactionalSink(settings, name, name, TRANSACTION_ROWS, largest)


def _replayed(
    topic: str, partitions: int, read: Iterator[list["Letter"]], sink: Sink
) -> Iterator[Replayed]:
    total = Replayed()
    waiting: list[Letter] = []
    for some in read:
        waiting.extend(some)
        if len(waiting) >= TRANSACTION_ROWS or _nbytes(waiting) >= TRANSACTION_BYTES:
            total = _write(topic, partitions, waiting, sink, total)
            yield total
            waiting = []
    if waiting:
        yield _write(topic, partitions, waiting, sink, total)


def _nbytes(some: list["Letter"]) -> int:
    return sum(len(letter.value or b"") for letter in some)


def _write(
    topic: str, partitions: int, some: list["Letter"], sink: Sink, total: Replayed
) -> Replayed:
    """One transaction of letters and their offsets."""
    records: dict[int | None, list[tuple[Any, Any, Any]]] = {}
    positions: dict[Partition, int] = {}
    after = replace(total)
    for letter in some:
        positions[letter.partition] = letter.next
        said = _said(letter)
        if "errors.stage" not in said:
            after.foreign += 1
        elif "value.truncated" in said:
            after.truncated += 1
        else:
            after.sent += 1
            kept = [(k, v) for k, v in letter.headers or [] if not k.startswith(PREFIX)]
            number = _origin(said, topic, partitions)
            records.setdefault(number, []).append((letter.key, letter.value, kept))
    outgoing = (
        Outgoing.of(topic, number, *zip(*rows, strict=True)) for number, rows in records.items()
    )
    sink.write(outgoing, positions, after.sent)
    return after


def _origin(said: Mapping[str, str], topic: str, partitions: int) -> int | None:
    """The partition that a record came from, None where that is another topic's by now."""
    number = said.get("errors.partition", "")
    if said.get("errors.topic") == topic and number.isdecimal() and int(number) < partitions:
        return int(number)
    return None
