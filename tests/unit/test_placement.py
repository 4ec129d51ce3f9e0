"""Where records are scored: in the feeders until a batch holds them for too long."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.capacity import BySize, timed
from pipeline.control import Timing
from pipeline.placement import (
    FIRST_ROWS,
    GROWTH,
    HOP,
    LOOKS_TO_LEAVE,
    LOOKS_TO_RETURN,
    RETURN_SHARE,
    Limits,
    Memory,
    choose,
    first,
)

HELD = 0.2
BATCH = 8192
LIMITS = Limits(BATCH, HELD)


def look(*batches: tuple[int, float]) -> BySize:
    """What was scored since the last look: (rows, seconds)."""
    return timed(Timing(1, rows, seconds, seconds) for rows, seconds in batches)


def of(fixed: float, full: float) -> "Model":
    return Model(fixed, (full - fixed) / BATCH)


class Model:
    """A model whose batches take the time of a line, under a backlog that fills each of them."""

    def __init__(self, fixed: float, per_row: float) -> None:
        self.fixed, self.per_row = fixed, per_row
        self.memory = first(LIMITS)
        # Rows and seconds of the batches that held a feeder.
        self.here: list[tuple[int, float]] = []

    def seconds(self, rows: int) -> float:
        return self.fixed + self.per_row * rows

    def looks(self, count: int) -> Memory:
        for _ in range(count):
            rows = self.memory.choice.batch_size or BATCH
            if self.memory.choice.here:
                self.here.append((rows, self.seconds(rows)))
            self.memory = choose(look((rows, self.seconds(rows))), self.memory, LIMITS)
        return self.memory


fixed = st.floats(1e-6, 0.01)


@given(fixed, st.floats(0.02, 0.95 * HELD))
def test_a_model_that_holds_no_feeder_for_long_is_scored_there(least: float, full: float) -> None:
    """Batches grow from a few records to whole ones, and the feeders go on scoring."""
    model = of(least, full)
    assert model.memory.choice.batch_size == FIRST_ROWS
    for _ in range(3 * LOOKS_TO_RETURN):
        assert model.looks(1).choice.here
    assert model.memory.choice.batch_size == BATCH


@given(fixed, st.floats(1.05 * HELD, 1000.0))
def test_a_slow_model_leaves_the_feeders_for_good_and_holds_none_for_long(
    least: float, full: float
) -> None:
    """It leaves within seconds, and no batch but the first overran by more than the fit can err.

    From batches of one size, half of their time counts as fixed.
    """
    model = of(least, full)
    model.looks(LOOKS_TO_LEAVE + 5)
    assert not model.memory.choice.here
    assert model.memory.choice.batch_size is None
    assert max(seconds for _, seconds in model.here[1:]) <= max(
        model.seconds(1), GROWTH / (0.5 + 0.5 * GROWTH) * HELD + 1e-9
    )
    held = len(model.here)
    model.looks(3 * LOOKS_TO_RETURN)
    assert len(model.here) == held


@given(st.booleans(), st.lists(st.floats(RETURN_SHARE + 0.01, 0.99), min_size=1, max_size=200))
def test_between_the_bounds_nothing_changes(here: bool, shares: list[float]) -> None:
    """Whoever scores goes on, however the times of full batches vary within them."""
    memory = of(0.001, 0.02 if here else 10.0).looks(LOOKS_TO_LEAVE + 5)
    assert memory.choice.here is here
    for share in shares:
        memory = choose(look((BATCH, share * HELD)), Memory(memory.choice), LIMITS)
        assert memory.choice.here is here


def test_one_slow_stretch_moves_nobody() -> None:
    """Records go elsewhere only once each of several looks in a row has asked for it."""
    memory = first(LIMITS)
    for _ in range(LOOKS_TO_LEAVE - 1):
        memory = choose(look((FIRST_ROWS, 1.0)), memory, LIMITS)
    assert memory.choice.here
    calm = choose(look((1, 0.001)), memory, LIMITS)
    assert (calm.choice.here, calm.contrary) == (True, 0)
    assert not choose(look((FIRST_ROWS, 1.0)), memory, LIMITS).choice.here


def test_few_records_of_a_slow_model_are_scored_in_the_feeders() -> None:
    """A hop for each of them would cost as much; what a full batch would take never comes up."""
    memory = first(LIMITS)
    for _ in range(3 * LOOKS_TO_LEAVE):
        memory = choose(look(*[(2, 0.01)] * 20), memory, LIMITS)
    assert memory.choice.here
    assert memory.choice.batch_size == FIRST_ROWS


def test_a_model_that_was_slowed_down_returns_to_the_feeders_a_minute_later() -> None:
    """A neighbour that took the CPU is no reason to pay for the hop for ever."""
    model = of(0.001, 1.0)
    model.looks(LOOKS_TO_LEAVE + 5)
    assert not model.memory.choice.here
    model.per_row /= 25
    model.looks(LOOKS_TO_RETURN)
    assert not model.memory.choice.here
    # What was slow is forgotten within some looks.
    model.looks(LOOKS_TO_RETURN)
    assert model.memory.choice.here


def test_a_batch_may_hold_a_feeder_as_long_as_the_hop_would() -> None:
    """However short the interval of commits, the hop saves nothing then."""
    limits = Limits(BATCH, 0.001)
    memory = first(limits)
    for _ in range(2 * LOOKS_TO_RETURN):
        memory = choose(look((BATCH, 0.99 * HOP.seconds(BATCH))), memory, limits)
    assert memory.choice.here
    for _ in range(LOOKS_TO_LEAVE + 5):
        memory = choose(look((BATCH, 1.2 * HOP.seconds(BATCH))), memory, limits)
    assert not memory.choice.here


def test_a_model_on_gpus_is_never_scored_in_a_feeder() -> None:
    """Whatever is measured: feeders have no GPU."""
    limits = Limits(BATCH, HELD, gpus=0.5)
    memory = first(limits)
    assert choose(look((BATCH, 0.001)), memory, limits) == memory
    assert (memory.choice.placement, memory.choice.batch_size) == ("remote", None)
    assert memory.choice.reason == "replicas.gpu = 0.5, and feeders have no GPU"


def test_the_reason_names_the_times_that_were_compared() -> None:
    """Of the largest batch that may come next, of what it may take, and of a hop."""
    memory = choose(look((32, 0.16), (16, 0.08)), first(LIMITS), LIMITS)
    assert memory.choice.placement == "local"
    assert memory.choice.reason == (
        "a batch of 128 records would hold a feeder for 640.0 ms, of 200.0 ms that it may; "
        "a hop to a replica costs 4.6 ms"
    )
    assert first(LIMITS).choice.reason == "no batch has been timed yet"


batches = st.lists(st.tuples(st.integers(0, 10**6), st.just(0.0) | st.floats(1e-9, 1e4)))


@given(
    looks=st.lists(batches, max_size=30),
    size=st.integers(1, 10**6),
    held=st.floats(0.001, 0.25),
    gpus=st.sampled_from([0.0, 1.0]),
)
def test_whatever_is_measured_the_choice_is_a_pure_one_with_a_reason(
    looks: list[list[tuple[int, float]]], size: int, held: float, gpus: float
) -> None:
    """Batches keep within the configured size, and a look without any changes nothing."""
    limits = Limits(size, held, gpus)
    memory = first(limits)
    for one in looks:
        following = choose(look(*one), memory, limits)
        assert following == choose(look(*one), memory, limits)
        assert choose({}, memory, limits) == memory
        memory = following
        choice = memory.choice
        assert choice.reason
        assert not (gpus and choice.here)
        if choice.here:
            assert choice.batch_size is not None
            assert 1 <= choice.batch_size <= size
        else:
            assert choice.batch_size is None


def test_only_batches_of_now_count_and_not_what_larger_ones_once_took() -> None:
    """A backlog of an hour ago says nothing about the few records that come now."""
    memory = first(LIMITS)
    for _ in range(LOOKS_TO_LEAVE - 1):
        memory = choose(look((BATCH, 1.0)), memory, LIMITS)
    for _ in range(LOOKS_TO_LEAVE):
        memory = choose(look((2, 0.001)), memory, LIMITS)
    assert memory.choice.here
