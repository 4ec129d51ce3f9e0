"""Counts what a job has answered, when the faults are over, and names every violation."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset as ds
from audit import Outcome, assert_ordered, outcome, stable
from sampler import Sampler
from steps import EXACTLY_ONCE

from pipeline.config import Config


def judged(bootstrap: str, config: Config, sampler: Sampler | None = None) -> Outcome:
    """Fail with every violation of what the job's `delivery` promises; give the counts."""
    result = outcome(config, bootstrap)
    found = [*miscounted(bootstrap, config, result), *unequal(bootstrap, config)]
    if sampler is not None:
        final = {
            (topic, record.partition, record.offset): hash(record.value)
            for topic in (config.output.topic, config.dead_letters.topic)
            for record in stable(bootstrap, topic)
        }
        found += sampler.violations(final)
    assert not found, "\n".join(found)
    if config.delivery == EXACTLY_ONCE:
        assert_ordered(result)
    return result


def miscounted(bootstrap: str, config: Config, result: Outcome) -> Iterator[str]:
    """Input records that were not answered once, and rows that were not archived once."""
    wanted = {(r.partition, r.offset) for r in stable(bootstrap, config.input.topic)}
    answered = result.predictions + result.dead
    yield from _named("lost", wanted - set(answered))
    yield from _named("answers to nothing", set(answered) - wanted)
    if config.delivery == EXACTLY_ONCE:
        yield from _named("duplicate", _repeated(answered))
    yield from _named("duplicate in Parquet", _repeated(result.parquet))
    yield from _named("lost in Parquet", set(result.predictions) - set(result.parquet))
    yield from _named("in Parquet alone", set(result.parquet) - set(result.predictions))


def _named(violation: str, places: set[tuple[int, int]]) -> Iterator[str]:
    if places:
        yield f"{violation}: {len(places)}, such as {sorted(places)[:5]}"


def _repeated(places: list[tuple[int, int]]) -> set[tuple[int, int]]:
    return set(Counter(places) - Counter(set(places)))


def unequal(bootstrap: str, config: Config) -> Iterator[str]:
    """The rows that say another thing in Parquet than in the topic."""
    rows = ds.dataset(folder_of(config), partitioning="hive").to_table(
        columns=["partition", "offset", "total"]
    )
    archived = {(row["partition"], row["offset"]): row["total"] for row in rows.to_pylist()}
    for record in stable(bootstrap, config.output.topic):
        told = json.loads(record.value)
        place = tuple(told["source"])
        if archived.get(place, told["total"]) != told["total"]:
            yield f"unequal: {place} is {told['total']}, in Parquet {archived[place]}"


def folder_of(config: Config) -> Path:
    """Where the job's Parquet files are."""
    return Path(config.output.parquet) / config.job
