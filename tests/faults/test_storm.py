"""A run under hundreds of faults: whatever dies, wherever it stands, each record is answered once."""

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
import small_job
from audit import stable
from harness import Stage, Stream, committed, make_job, run_of, until
from sampler import Sampler
from steps import AT_LEAST_ONCE, EXACTLY_ONCE
from storm import Storm
from verdict import folder_of, judged

RATE = 250.0
# With the other long tests over 500 faults; a slow machine ends a round by its time.
FAULTS, SECONDS = 115, 270.0
SHORT_FAULTS, SHORT_SECONDS = 12, 30.0
SETTINGS = [
    (EXACTLY_ONCE, "remote"),
    (EXACTLY_ONCE, "local"),
    (AT_LEAST_ONCE, "remote"),
    (EXACTLY_ONCE, "local"),
    (EXACTLY_ONCE, "remote"),
    (AT_LEAST_ONCE, "local"),
]
ROUNDS = int(os.environ.get("HEADRACE_ROUNDS", len(SETTINGS)))
SEED = int(os.environ.get("HEADRACE_FAULT_SEED", "4"))


class Round:
    """One job, its stream, what is inflicted on it, and the count at its end."""

    def __init__(self, stage: Stage, folder: Path, job: str, delivery: str, placement: str) -> None:
        self.stage = stage
        self.folder = folder
        self.path = make_job(stage, folder, job, delivery=delivery, placement=placement)
        self.config = small_job.read(self.path)

    def play(self, faults: int, seconds: float, chance: random.Random, tally: Counter) -> None:
        """Inflict so many faults, or as many as there is time for; fail with every violation."""
        stage, config = self.stage, self.config
        stream = Stream(stage.direct, config.input.topic, RATE)
        topics = (config.output.topic, config.dead_letters.topic)
        sampler = Sampler(stage.direct, topics, folder_of(config))
        with run_of(stage, self.path, self.folder) as run:
            stream.start()
            sampler.start()
            try:
                until(lambda: run.check() or committed(stage, config) > 0, "the run has begun")
                storm = Storm(stage, config, run, chance, tally)
                storm.rage(faults, time.monotonic() + seconds)
                stream.stop()
                total = len(stable(stage.direct, config.input.topic))
                until(lambda: run.check() or committed(stage, config) >= total, "all is committed")
                run.stop()
            finally:
                stream.stop()
                sampler.stop()
                # Shown with what failed.
                print(run.log.read_text(errors="replace"))
        judged(stage.direct, config, sampler)
        assert sampler.seen
        assert sampler.files


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_each_record_is_answered_once_whatever_dies(theatre, topic_prefix, tmp_path, tally, number):
    """None is lost, none doubled, their order stands, and what a reader saw is never taken back."""
    settings = SETTINGS[number % len(SETTINGS)]
    chance = random.Random(SEED + number)
    Round(theatre, tmp_path, topic_prefix, *settings).play(FAULTS, SECONDS, chance, tally)


def test_a_short_storm_loses_and_doubles_nothing(theatre, topic_prefix, tmp_path, tally):
    """The same for half a minute, so that each change stands a few faults."""
    played = Round(theatre, tmp_path, topic_prefix, *SETTINGS[0])
    played.play(SHORT_FAULTS, SHORT_SECONDS, random.Random(), tally)
