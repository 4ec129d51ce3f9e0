"""Two processes of one group that run the same program: `python -m benchmarks.peers.pair MODULE`.

Each has a Parquet folder of its own. They are stopped once the group has committed all offsets.
"""

import sys
from collections.abc import Callable
from dataclasses import replace

from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from benchmarks.contender import Run
from benchmarks.options import from_options, to_options
from benchmarks.peers.together import together

PROCESSES = 2


def main() -> int:
    """Run both until all records are scored, or until SIGTERM."""
    module = sys.argv.pop(1)
    run = from_options(main.__doc__)
    runs = [
        replace(run, parquet=run.parquet / str(number), records=None) for number in range(PROCESSES)
    ]
    command = [sys.executable, "-m", module]
    return together([[*command, *to_options(one)] for one in runs], all_committed(run))


def all_committed(run: Run) -> Callable[[], bool]:
    """Whether the group has committed as many offsets as the run has records; never without."""
    admin = AdminClient({"bootstrap.servers": run.bootstrap})

    def done() -> bool:
        if run.records is None:
            return False
        asked = ConsumerGroupTopicPartitions(run.name)
        (found,) = admin.list_consumer_group_offsets([asked]).values()
        partitions = found.result().topic_partitions
        return bool(sum(max(one.offset, 0) for one in partitions) >= run.records)

    return done


if __name__ == "__main__":
    sys.exit(main())
