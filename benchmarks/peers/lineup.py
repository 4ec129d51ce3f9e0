"""Who takes part beside what one would use instead, by task.

A further peer is a function that returns its `Contender`, or raises PeerUnavailable, and a line
here.
"""

from functools import partial

from benchmarks.comparison import Lineup
from benchmarks.crayfish import CRAYFISH
from benchmarks.ours import headrace, slots_alone
from benchmarks.peers import in_python, jvm
from benchmarks.unguarded import bare_loop
from benchmarks.workload import CARDS

PEERS: dict[str, Lineup] = {
    CARDS.name: {
        "bare loop": partial(bare_loop, CARDS.loop),
        "bare loop, two processes": partial(in_python.two_bare_loops, CARDS.loop),
        "headrace exactly_once local": partial(headrace, "exactly_once", "local"),
        "headrace exactly_once remote": partial(headrace, "exactly_once", "remote"),
        "plain Java": jvm.plain_java,
        "Flink": jvm.flink,
        "Bytewax": in_python.bytewax,
        "Quix Streams": in_python.quix,
        "Ray Data": in_python.ray_data,
        "PySpark": in_python.pyspark,
        "PyFlink": in_python.pyflink,
    },
    CRAYFISH.name: {
        "Kafka Streams, parallelism 1": partial(jvm.kafka_streams, 1),
        "headrace, parallelism 1": partial(slots_alone, 1),
        "headrace, parallelism 1, batch 32": partial(slots_alone, 1, 32),
        "headrace, parallelism 1, batch 128": partial(slots_alone, 1, 128),
        "headrace, parallelism 1, batch 512": partial(slots_alone, 1, 512),
        "Kafka Streams, parallelism 2": partial(jvm.kafka_streams, 2),
        "headrace, parallelism 2": partial(slots_alone, 2),
    },
}
