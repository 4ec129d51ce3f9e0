"""The layout of a job under `at_least_once`: the same steps as in `claims`, and no fence.

All offsets are one commit; boundaries come after it, because what is written in a layout that has
ended is not archived. A layout is handed over only once all that was scored in it is in Parquet:
in another journal partition the archive could not tell what a predecessor had written beyond its
offsets. Whoever still runs in the older layout is not stopped: its rows stay out of Parquet, and
its offsets are refused by the next claim.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from confluent_kafka import Producer

from pipeline import handover, journal
from pipeline import layout as layouts
from pipeline.archived import decode_note
from pipeline.batch import Partition
from pipeline.control import Layout
from pipeline.edges.kafka.admin import KafkaAdmin
from pipeline.edges.kafka.clients import producer_settings, translating
from pipeline.edges.kafka.journal import KafkaJournal, newest_writer
from pipeline.edges.kafka.offsets import GroupOffsets, with_metadata
from pipeline.errors import ConfigInvalid, Mistake, Retriable
from pipeline.reset import boundaries
from pipeline.topology import Topic

FLUSH_SECONDS = 30.0


class UnfencedLayout:
    """One claim of a whole job; used once, by one thread."""

    def __init__(self, settings: Mapping[str, str], group: str, journal_topic: Topic) -> None:
        self._settings = settings
        self._group = group
        self._journal = journal_topic
        self._admin = KafkaAdmin(settings)
        self._offsets = GroupOffsets(settings, group)
        self._writer = uuid.uuid4().hex

    def open(self, topic: Topic, fresh: Layout, slots: int | None, start: str) -> Layout:
        """The layout to run in, handed over first where `slots` asks for another number.

        Raises ConfigInvalid where that must wait, ClusterUnfit, Retriable.
        """
        stored = self._offsets.read(topic.all)
        newest = layouts.stored_layout(stored, self._group)
        if newest is None:
            positions = self._admin.starting_points(topic, start)
            self._offsets.commit(with_metadata(positions, fresh, 0, 0))
            return fresh
        target = handover.aim(newest, slots, topic.partitions)
        steps = [
            step
            for step in handover.steps(stored, topic.all, self._group)
            if handover.changes(step, target)
        ]
        if steps:
            self._refuse_unarchived(stored, newest, target)
            self._hand_over(steps, target)
        return target

    def reset(
        self,
        topic: Topic,
        layout: Layout,
        outputs: Iterable[Topic],
        decide: Callable[[Mapping[Partition, layouts.Stored]], Mapping[Partition, int]],
    ) -> tuple[Mapping[Partition, layouts.Stored], Mapping[Partition, int]]:
        """Go on in `layout`, as a new generation, where `decide` says of the offsets that stand.

        Returns the offsets that stood, and the new positions. Raises ClusterUnfit, Retriable.
        """
        found = self._offsets.read(topic.all)
        generation, epoch = newest_writer(self._settings, self._group, self._journal)
        for partition, item in layouts.legible(found, self._group).items():
            known = layouts.decode(partition, item, self._group)
            generation, epoch = max(generation, known.layout), max(epoch, known.epoch)
        present = replace(layout, generation=generation + 1)
        positions = decide(found)
        ends = {one.name: list(self._admin.ends(one.all, stable=False).values()) for one in outputs}
        self._offsets.commit(with_metadata(positions, present, epoch + 1, 0))
        self._write(
            boundaries(positions, present, epoch + 1, self._writer, ends, self._journal.partitions)
        )
        return found, positions

    def _refuse_unarchived(
        self, stored: Mapping[Partition, layouts.Stored], newest: Layout, target: Layout
    ) -> None:
        archive = f"{self._group}.archive"
        with closing(
            KafkaJournal(self._settings, archive, self._journal.name, self._journal.partitions)
        ) as reader:
            progress = reader.start()
        ends = self._admin.ends(self._journal.all)
        archived = [decode_note(note) for _, note in progress.values()]
        expected = {
            number: offset
            for one in sorted(archived, key=lambda one: one.layout)
            for number, offset in one.expected.items()
        }
        read = all(progress[p.number][0] >= end for p, end in ends.items())
        if read and all(expected.get(p.number) == item.offset for p, item in stored.items()):
            return
        problem = (
            f"the job has {newest.slots} slots, and not all that they scored is in Parquet yet, "
            "without which at_least_once can't hand it over"
        )
        way_out = (
            f"Run it with slots: {newest.slots} once more, until it has drained, and change it "
            f"then; or {layouts.WAY_OUT}"
        )
        raise ConfigInvalid([Mistake("slots", target.slots, problem, way_out)])

    def _hand_over(self, steps: Sequence[handover.Step], target: Layout) -> None:
        offsets = []
        for step in steps:
            plan = step.plan
            plan.positions.update(self._offsets.starts(plan.fresh))
            offsets += with_metadata(plan.positions, target, plan.epoch, 0)
        self._offsets.commit(offsets)
        self._write(handover.boundary(step, target, self._writer) for step in steps)

    def _write(self, rolls: Iterable[tuple[int, bytes]]) -> None:
        name = self._journal.name
        failed: list[str] = []

        def on_delivery(error: object, _: object) -> None:
            if error is not None:
                failed.append(str(error))

        producer = Producer(producer_settings(self._settings, 0))
        with translating(f"writing to {name}"):
            for number, value in rolls:
                producer.produce(name, value, journal.ROLL_KEY, number, on_delivery=on_delivery)
            left = producer.flush(FLUSH_SECONDS)
        if failed or left:
            raise Retriable(f"boundaries were not written to {name}: {failed or 'no answer'}")

    def close(self) -> None:
        """Give the connections back."""
        self._offsets.close()
