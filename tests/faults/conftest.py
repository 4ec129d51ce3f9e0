"""What the fault tests share: a broker and a Ray of their own, and the count of what they did."""

from collections import Counter
from collections.abc import Iterator

import pytest
from harness import Stage, stage
from storm import table

from jobs.kafka_jars import BrokerUnavailable

# How often each (role, fault) was inflicted.
TALLY = pytest.StashKey[Counter]()


@pytest.fixture(scope="package")
def whole_stage(tmp_path_factory) -> Iterator[Stage]:
    """Give a broker that may be killed, behind its proxy, and a Ray whose actors may."""
    try:
        with stage(tmp_path_factory.mktemp("marks")) as made:
            yield made
    except BrokerUnavailable as error:
        pytest.skip(f"needs a broker of its own: {error}")


@pytest.fixture
def theatre(whole_stage) -> Stage:
    """Give the stage with its broker up, whatever the test before has left behind."""
    process = whole_stage.broker.process
    if process is not None and process.pid is None:
        process.start()
    return whole_stage


@pytest.fixture(scope="session")
def tally(request) -> Counter:
    """Give the count of faults, which is printed at the end."""
    return request.config.stash.setdefault(TALLY, Counter())


def pytest_terminal_summary(terminalreporter, config) -> None:
    """Print how many faults of each kind there were, and how many tests found a violation."""
    tally = config.stash.get(TALLY, None)
    if tally:
        failed = len(terminalreporter.stats.get("failed", ()))
        terminalreporter.write_line(f"{table(tally)}, {failed} tests failed")
