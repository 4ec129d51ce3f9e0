"""One actor without a driver, in a process of its own: `python zombie.py feeder|archiver CONFIG`.

A feeder claims slot 0 and scores in its own process. It turns until an error ends it, which is its
last word, or until SIGTERM, which has a feeder drain.
"""

import signal
import sys
from pathlib import Path

from pipeline.batch import Partition
from pipeline.build import SCORES_HERE, build_archiver, build_feeder
from pipeline.config import Config
from pipeline.control import Assignment, Layout, Orders
from pipeline.edges.kafka.admin import KafkaAdmin
from pipeline.edges.kafka.offsets import GroupOffsets, with_metadata
from pipeline.errors import HeadraceError
from pipeline.feeder import Feeder
from pipeline.job import prepare
from pipeline.settings import load

TURN = Orders(0.2, (SCORES_HERE,))
LAST_TURN = Orders(0.2, (SCORES_HERE,), drain=True)
ENDED = "Ended"


def open_job(config: Config, bootstrap: str) -> None:
    """The first start of a job with one slot: its layout at the beginning of each partition."""
    layout, owned = _owned(config, bootstrap)
    offsets = GroupOffsets({"bootstrap.servers": bootstrap}, config.group)
    offsets.commit(with_metadata(dict.fromkeys(owned, 0), layout, 0, 0))
    offsets.close()


def _owned(config: Config, bootstrap: str) -> tuple[Layout, tuple[Partition, ...]]:
    topic = config.input.topic
    found = KafkaAdmin({"bootstrap.servers": bootstrap}).topics([topic])[topic]
    layout = Layout(1, 1, found.partitions, found.id, True)
    return layout, layout.owned(topic, 0, found.partitions)


def claim(config: Config) -> Feeder:
    """Claim slot 0 and give its feeder."""
    layout, owned = _owned(config, config.kafka["bootstrap.servers"])
    return build_feeder(prepare(config), Assignment(0, layout, owned, len(owned)))


def drain(feeder: Feeder) -> None:
    """Have it finish, commit and roll what it holds."""
    while not feeder.turn(LAST_TURN).drained:
        pass
    feeder.close()


def main() -> str:
    """Turn until the end; returns the last word."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    role, path = sys.argv[1:]
    config = load(Path(path), {})
    try:
        if role == "archiver":
            archiver = build_archiver(prepare(config), 1)
            while not asked:
                archiver.turn(TURN.seconds)
            archiver.close()
        else:
            feeder = claim(config)
            while not asked:
                feeder.turn(TURN)
            drain(feeder)
    except HeadraceError as problem:
        return f"{type(problem).__name__}: {problem}"
    return ENDED


if __name__ == "__main__":
    print(main(), flush=True)
