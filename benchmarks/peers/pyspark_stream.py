"""Spark Structured Streaming: micro-batches scored by `mapInArrow`, written by `foreachBatch`.

    python -m benchmarks.peers.pyspark_stream JARS OPTIONS

Guarantee: at least once, to Kafka and to Parquet. Each micro-batch's offsets are in the checkpoint
before it starts; one that did not end is run again, with the same offsets. Its Kafka sink knows no
transactions. Its own Parquet sink is exactly once, but a query has one sink, and a second query
would score everything a second time; so `foreachBatch` writes the rows without that sink's log.

A micro-batch is persisted, so that it is scored once for both outputs.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import lit
from pyspark.sql.streaming import StreamingQuery

from benchmarks.contender import Run
from benchmarks.options import from_options
from benchmarks.peers.pyspark_task import COLUMNS, SCORED, scoring
from benchmarks.scoring import MODEL_NAME, MODEL_VERSION

BATCH_RECORDS = 4_000
MICRO_BATCH_RECORDS = 160_000
LOOK_SECONDS = 0.5


def main() -> None:
    """Score all that is there where a number is given, else until SIGTERM."""
    jars = sys.argv.pop(1)
    run = from_options(main.__doc__)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    # Else Spark's workers run the python3 of PATH.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = (
        SparkSession.builder.appName(run.name)
        .master("local[*]")
        .config("spark.jars", ",".join(str(path) for path in sorted(Path(jars).glob("*.jar"))))
        .config("spark.driver.memory", "2g")
        .config("spark.ui.enabled", "false")
        .config("spark.local.dir", str(run.scratch / "spark"))
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", BATCH_RECORDS)
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    query = start(spark, run)
    while not query.awaitTermination(LOOK_SECONDS):
        if stopping.is_set():
            query.stop()
    spark.stop()


def start(spark: SparkSession, run: Run) -> StreamingQuery:
    """Start the query over all partitions from their start."""
    events = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", run.bootstrap)
        .option("subscribe", run.events)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", MICRO_BATCH_RECORDS)
        # 500 ms by default, which each read of a partition's last records would wait.
        .option("kafka.fetch.max.wait.ms", "20")
        .load()
        .select("key", "value", "partition", "offset", "timestamp")
    )
    scored = events.mapInArrow(scoring(run.events, run.model), SCORED)
    names = {"topic": run.events, "model_name": MODEL_NAME, "model_version": MODEL_VERSION}

    def write(batch: DataFrame, _: int) -> None:
        batch.persist()
        (
            batch.select("key", "value", "partition")
            .write.format("kafka")
            .option("kafka.bootstrap.servers", run.bootstrap)
            .option("kafka.compression.type", "lz4")
            .option("kafka.linger.ms", "5")
            .option("topic", run.predictions)
            .save()
        )
        rows = batch.select(*COLUMNS).withColumns({key: lit(text) for key, text in names.items()})
        rows.write.mode("append").parquet(str(run.parquet))
        batch.unpersist()

    writer = (
        scored.writeStream.foreachBatch(write)
        .option("checkpointLocation", str(run.scratch / "checkpoint"))
        .queryName("scoring")
    )
    if run.records is not None:
        writer = writer.trigger(availableNow=True)
    return writer.start()


if __name__ == "__main__":
    main()
