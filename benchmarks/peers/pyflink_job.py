"""PyFlink: JSON parsed by SQL, scored by a vectorized (pandas) function, two SQL sinks.

    python -m benchmarks.peers.pyflink_job JARS OPTIONS

Guarantee: exactly once, to Kafka by its transactions and to Parquet by files that appear with the
checkpoint. Predictions are visible from one checkpoint to the next, each second.

Left out: the same partition number for a prediction as for its event; the sink leaves that to the
key. Flink's Python workers take Arrow batches from the JVM, so JSON is read and written there.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyflink.table import EnvironmentSettings, StatementSet, TableEnvironment
from pyflink.table.udf import FunctionContext, ScalarFunction, udf

from benchmarks.contender import Run
from benchmarks.options import from_options
from benchmarks.scoring import MODEL_NAME, MODEL_VERSION, THRESHOLD, open_session

PARALLELISM = 2
BATCH_RECORDS = 4_000
# What a worker may hold before it answers; a checkpoint waits for it.
BUNDLE_RECORDS = 20_000
CHECKPOINT_INTERVAL = "1 s"

EVENTS = """
CREATE TABLE events (
  `key` BYTES,
  id BIGINT,
  features ARRAY<FLOAT>,
  `partition` INT METADATA VIRTUAL,
  `offset` BIGINT METADATA VIRTUAL,
  event_time TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL
) WITH (
  'connector' = 'kafka',
  'topic' = '{events}',
  'properties.bootstrap.servers' = '{bootstrap}',
  'properties.group.id' = '{name}',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = '{bounded}',
  'key.format' = 'raw',
  'key.fields' = 'key',
  'value.format' = 'json',
  'value.fields-include' = 'EXCEPT_KEY'
)
"""

SCORED = """
CREATE TEMPORARY VIEW scored AS
SELECT `key`, id, `partition`, `offset`, event_time, score(features) AS score FROM events
"""

PREDICTIONS = """
CREATE TABLE predictions (
  `key` BYTES,
  source ARRAY<BIGINT>,
  model STRING,
  model_version STRING,
  id BIGINT,
  score FLOAT,
  flagged BOOLEAN
) WITH (
  'connector' = 'kafka',
  'topic' = '{predictions}',
  'properties.bootstrap.servers' = '{bootstrap}',
  'properties.compression.type' = 'lz4',
  'properties.linger.ms' = '5',
  'properties.transaction.timeout.ms' = '600000',
  'sink.delivery-guarantee' = 'exactly-once',
  'sink.transactional-id-prefix' = '{name}',
  'key.format' = 'raw',
  'key.fields' = 'key',
  'value.format' = 'json',
  'value.fields-include' = 'EXCEPT_KEY'
)
"""

ROWS = """
CREATE TABLE parquet_rows (
  topic STRING,
  `partition` INT,
  `offset` BIGINT,
  `key` BYTES,
  event_time TIMESTAMP_LTZ(3),
  scored_at TIMESTAMP_LTZ(3),
  model_name STRING,
  model_version STRING,
  id BIGINT,
  score FLOAT,
  flagged BOOLEAN
) WITH (
  'connector' = 'filesystem',
  'path' = 'file://{parquet}',
  'format' = 'parquet',
  'parquet.compression' = 'ZSTD'
)
"""

TO_PREDICTIONS = f"""
INSERT INTO predictions
SELECT `key`, ARRAY[CAST(`partition` AS BIGINT), `offset`], '{MODEL_NAME}', '{MODEL_VERSION}', id,
  score, score >= {THRESHOLD}
FROM scored
"""

TO_ROWS = f"""
INSERT INTO parquet_rows
SELECT '{{events}}', `partition`, `offset`, `key`, event_time, CURRENT_TIMESTAMP, '{MODEL_NAME}',
  '{MODEL_VERSION}', id, score, score >= {THRESHOLD}
FROM scored
"""


class Score(ScalarFunction):
    """Features to scores, a batch at a time."""

    def __init__(self, model: str) -> None:
        self._model = model

    def is_deterministic(self) -> bool:
        """It is, but the planner would then call it anew wherever its result is used."""
        return False

    def open(self, function_context: FunctionContext) -> None:  # noqa: ARG002
        """Load the model, once in each worker."""
        self._session: Any = open_session(Path(self._model))

    def eval(self, features: "pd.Series[Any]") -> "pd.Series[Any]":
        """One batch: a series of arrays to a series of numbers."""
        matrix = np.array(features.tolist(), np.float32)
        scores = self._session.run(["probability"], {"features": matrix})[0][:, 0]
        return pd.Series(scores)


def main() -> None:
    """Score all that is there where a number is given, else until SIGTERM."""
    jars = Path(sys.argv.pop(1))
    run = from_options(main.__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    # For the workers, which import this package.
    os.environ["PYTHONPATH"] = str(Path.cwd())
    job(run, jars).execute().wait()


def job(run: Run, jars: Path) -> StatementSet:
    """Both insertions as one job, so that the scores are computed once."""
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    settings = {
        "parallelism.default": str(PARALLELISM),
        "pipeline.jars": ";".join(path.as_uri() for path in sorted(jars.glob("*.jar"))),
        "pipeline.object-reuse": "true",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.fn-execution.arrow.batch.size": str(BATCH_RECORDS),
        "python.fn-execution.bundle.size": str(BUNDLE_RECORDS),
        "execution.checkpointing.interval": CHECKPOINT_INTERVAL,
        "execution.checkpointing.dir": (run.scratch / "checkpoints").as_uri(),
        # Else each sink scores for itself.
        "table.optimizer.reuse-optimize-block-with-digest-enabled": "true",
        "table.local-time-zone": "UTC",
    }
    for key, value in settings.items():
        tables.get_config().set(key, value)
    score = udf(Score(str(run.model)), result_type="FLOAT", func_type="pandas")
    tables.create_temporary_function("score", score)
    fields = {
        "name": run.name,
        "bootstrap": run.bootstrap,
        "events": run.events,
        "predictions": run.predictions,
        "parquet": run.parquet,
        "bounded": "unbounded" if run.records is None else "latest-offset",
    }
    for statement in (EVENTS, PREDICTIONS, ROWS, SCORED):
        tables.execute_sql(statement.format(**fields))
    both = tables.create_statement_set()
    both.add_insert_sql(TO_PREDICTIONS)
    both.add_insert_sql(TO_ROWS.format(**fields))
    return both


if __name__ == "__main__":
    main()
