"""What a run does before its feeders start: fence every slot, and hand over where S changes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline import handover, journal, layout
from pipeline.batch import Partition
from pipeline.control import Layout
from pipeline.layout import Stored
from tests.simulation.scheduler import Process
from tests.simulation.watched import GROUP, JOURNAL
from tests.simulation.world import World


def driver(world: World, process: Process, slots: int) -> None:
    """Open the layout for a run that asks for so many slots."""
    if world.plan.exactly_once:
        world.reach(Driver(world, process.name).open(slots))
    else:
        world.reach(_open_unfenced(world, slots))


@dataclass
class Driver:
    """One opening on the log, in the steps of `pipeline.edges.kafka.claims`."""

    world: World
    name: str
    fences: list[int] = field(default_factory=list)

    def open(self, slots: int) -> Layout:
        """The layout, with every slot fenced and every epoch moved on."""
        stored = self._fenced()
        newest = layout.stored_layout(stored, GROUP)
        if newest is None:
            fresh = _fresh(self.world, slots)
            self._transact(0, fresh, 0, dict.fromkeys(self.world.input, 0))
            return fresh
        target = handover.aim(newest, slots, self.world.partitions)
        for step in list(handover.steps(stored, self.world.input, GROUP)):
            plan = step.plan
            plan.positions.update({p: self.world.log.start(p) for p in plan.fresh})
            rolls = []
            if handover.changes(step, target) and self.world.parts.rolls_at_hand_over:
                rolls.append(handover.boundary(step, target, self.name))
            self._transact(step.slot, target, plan.epoch, plan.positions, rolls)
        return target

    def _fenced(self) -> dict[Partition, Stored]:
        """The offsets, once every slot that they name is fenced."""
        log = self.world.log
        stored = log.latest(GROUP, self.world.input)
        while True:
            needed = max(1, handover.fenced_slots(stored, GROUP))
            if len(self.fences) >= needed:
                return stored
            for slot in range(len(self.fences), needed):
                self.fences.append(log.init(self.world.parts.transactional_id(slot, self.name)))
            stored = log.committed(GROUP, self.world.input)

    def _transact(
        self,
        slot: int,
        target: Layout,
        epoch: int,
        positions: Mapping[Partition, int],
        rolls: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        log = self.world.log
        name = self.world.parts.transactional_id(slot, self.name)
        transaction = log.begin(name, self.fences[slot])
        for number, value in rolls:
            place = Partition(JOURNAL, number)
            log.append(place, journal.ROLL_KEY, value, transaction=transaction)
        metadata = layout.encode(target, epoch, 0)
        offsets = {p: Stored(offset, metadata) for p, offset in positions.items()}
        log.send_offsets(transaction, GROUP, offsets)
        log.commit(transaction)


def _fresh(world: World, slots: int) -> Layout:
    return Layout(1, slots, world.partitions, "id", True)


def _open_unfenced(world: World, slots: int) -> Layout:
    fresh = _fresh(world, slots)
    stored = world.log.committed(GROUP, world.input)
    if not stored:
        first = Stored(0, layout.encode(fresh, 0, 0))
        world.log.commit_offsets(GROUP, dict.fromkeys(world.input, first))
    return layout.stored_layout(stored, GROUP) or fresh
