"""The layout of a job under `exactly_once`: opened by its driver, set anew by `headrace offsets`.

All of it happens under the fences of the slots. `pipeline.handover` says in which order, and why
each old id commits its own partitions.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from confluent_kafka import Producer, TopicPartition

from pipeline import handover, journal
from pipeline import layout as layouts
from pipeline.batch import Partition
from pipeline.control import Layout
from pipeline.edges.kafka.admin import KafkaAdmin
from pipeline.edges.kafka.clients import (
    producer_settings,
    send_offsets,
    transactional_id,
    translating,
)
from pipeline.edges.kafka.journal import newest_writer
from pipeline.edges.kafka.offsets import GroupOffsets, with_metadata
from pipeline.errors import Fenced, Retriable
from pipeline.reset import boundaries
from pipeline.topology import Topic

CALL_SECONDS = 10.0
FENCE_SECONDS = 30.0
# Each is a client with a thread for each broker.
FENCES_AT_ONCE = 16
# How long a run that has fenced this one has to move an epoch on.
TAKE_OVER_SECONDS = 5.0


class FencedLayout:
    """One claim of a whole job; used once, by one thread."""

    def __init__(self, settings: Mapping[str, str], group: str, journal_topic: Topic) -> None:
        self._settings = settings
        self._group = group
        self._journal = journal_topic
        self._admin = KafkaAdmin(settings)
        self._offsets = GroupOffsets(settings, group)
        self._run = uuid.uuid4().hex
        self._fenced = 0
        # Producers that have ended no transaction yet, by slot.
        self._fresh: dict[int, Producer] = {}
        # The offsets as they stand unless somebody else has fenced us.
        self._stored: dict[Partition, layouts.Stored] = {}

    def open(self, topic: Topic, fresh: Layout, slots: int | None, start: str) -> Layout:
        """The layout to run in: of `slots` slots, all fenced, each offset marked as this run's.

        The fences end what dead owners left open, which would block offsets and readers; the marks
        tell the feeders of another run at once that they have a successor. At the first
        start commits `fresh` with the positions that `start` means, under the first slot's id in
        one transaction, so that of two first starts only one succeeds.
        Raises Fenced where another run has taken over; ClusterUnfit; Retriable, also where two
        starts have fenced each other in different slots. Another start finishes what one began.
        """
        try:
            return self._open(topic, fresh, slots, start)
        except Fenced as problem:
            time.sleep(TAKE_OVER_SECONDS)
            if self._offsets.read(topic.all) != self._stored:
                raise
            raise Retriable(f"{problem}, by one that has not gone on since") from problem

    def _open(self, topic: Topic, fresh: Layout, slots: int | None, start: str) -> Layout:
        self._fence_all(topic, 1)
        newest = layouts.stored_layout(self._stored, self._group)
        if newest is None:
            fresh = replace(fresh, run=self._run)
            positions = self._admin.starting_points(topic, start)
            self._transact(0, with_metadata(positions, fresh, 0, 0))
            return fresh
        target = replace(handover.aim(newest, slots, topic.partitions), run=self._run)
        self._hand_over(handover.steps(self._stored, topic.all, self._group), target)
        return target

    def reset(
        self,
        topic: Topic,
        layout: Layout,
        outputs: Iterable[Topic],
        decide: Callable[[Mapping[Partition, layouts.Stored]], Mapping[Partition, int]],
    ) -> tuple[Mapping[Partition, layouts.Stored], Mapping[Partition, int]]:
        """Go on in `layout`, as a new generation, where `decide` says of the offsets that stand.

        First what stands is handed over to a layout that nobody knows, so that no feeder of a
        running job can claim any more; then all offsets and boundaries are one transaction, with
        the ends of `outputs`. Returns the offsets that stood, and the new positions.
        Raises Fenced, ClusterUnfit, Retriable: no offset has moved until the last step.
        """
        # Where metadata is lost, a slot may have had any partition of the journal.
        self._fence_all(topic, self._journal.partitions)
        found = dict(self._stored)
        stored = layouts.legible(found, self._group)
        generation, epoch = newest_writer(self._settings, self._group, self._journal)
        newest = layouts.stored_layout(stored, self._group)
        if newest is not None:
            generation = 1 + max(generation, newest.generation)
            steps = handover.steps(stored, tuple(stored), self._group)
            epoch = self._hand_over(steps, replace(newest, generation=generation), epoch)
        present = replace(layout, generation=generation + 1)
        positions = decide(found)
        ends = {one.name: list(self._admin.ends(one.all, stable=False).values()) for one in outputs}
        self._transact(
            0,
            with_metadata(positions, present, epoch + 1, 0),
            boundaries(positions, present, epoch + 1, self._run, ends, self._journal.partitions),
        )
        return found, positions

    def _fence_all(self, topic: Topic, least: int) -> None:
        """Fence every slot that the offsets name, `least` slots at least, and read them then.

        The first look does not wait for open transactions, which only the fences end.
        """
        self._stored = self._admin.committed(self._group, topic.name)
        while True:
            known = layouts.legible(self._stored, self._group)
            needed = max(least, handover.fenced_slots(known, self._group))
            if self._fenced >= needed:
                return
            slots = range(self._fenced, needed)
            # A fence takes long to find its coordinator, and a job may have many.
            with ThreadPoolExecutor(FENCES_AT_ONCE) as pool:
                self._fresh |= zip(slots, pool.map(self._fence, slots), strict=True)
            self._fenced = needed
            self._stored = self._offsets.read(topic.all)

    def _fence(self, slot: int) -> Producer:
        """Fence whoever holds the slot's id, which also ends its open transaction."""
        name = transactional_id(self._group, slot)
        producer = Producer({**producer_settings(self._settings, 0), "transactional.id": name})
        with translating(f"fencing {name}"):
            producer.init_transactions(FENCE_SECONDS)
        return producer

    def _hand_over(self, steps: Iterable[handover.Step], target: Layout, epoch: int = 0) -> int:
        """Make the steps, all of them planned before the first one is written.

        Returns the newest epoch, `epoch` at least.
        """
        for step in list(steps):
            plan = step.plan
            plan.positions.update(self._offsets.starts(plan.fresh))
            changed = handover.changes(step, target)
            rolls = [handover.boundary(step, target, self._run)] if changed else []
            offsets = with_metadata(plan.positions, target, plan.epoch, 0)
            self._transact(step.slot, offsets, rolls)
            epoch = max(epoch, plan.epoch)
        return epoch

    def _transact(
        self, slot: int, offsets: list[TopicPartition], rolls: Iterable[tuple[int, bytes]] = ()
    ) -> None:
        producer = self._fresh.pop(slot, None) or self._fence_again(slot)
        with translating(f"committing the layout of group {self._group}"):
            producer.begin_transaction()
            for number, value in rolls:
                producer.produce(self._journal.name, value, journal.ROLL_KEY, number)
            send, group = producer.send_offsets_to_transaction, self._offsets.group_metadata()
            send_offsets(send, offsets, group, CALL_SECONDS)
            producer.commit_transaction(FENCE_SECONDS)
        for item in offsets:
            stored = layouts.Stored(item.offset, item.metadata)
            self._stored[Partition(item.topic, item.partition)] = stored

    def _fence_again(self, slot: int) -> Producer:
        """A new producer for an id whose last transaction a late request could still end.

        It also fences another run that has fenced us since, so the offsets are read once more:
        such a run has moved an epoch on, which shows, or ends at its own step under this id.
        """
        producer = self._fence(slot)
        if self._offsets.read(tuple(self._stored)) != self._stored:
            raise Fenced(f"group {self._group}: another run has moved its offsets meanwhile")
        return producer

    def close(self) -> None:
        """Give the connections back."""
        self._offsets.close()
