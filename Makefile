# Each target sets up what it needs: `make demo` and `make test` alone are enough on a fresh machine.
PYTHON ?= python3
BROKER ?= embedded
BIN := .venv/bin
STAMP := .venv/.ready
COMPILED := setup.py $(wildcard pipeline/*.h pipeline/*.cpp pipeline/edges/kafka/*.h pipeline/edges/kafka/*.cpp)

.PHONY: setup lint test test-faults test-long demo demo-recommend bench bench-peers bench-scaling bench-scaling-real up
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(COMPILED)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,bench]'
	# Ray's start is three times faster with its bytecode compiled.
	-$(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit/test_imports.py

test: lint
	# Two at a time, as the smallest machine has two cores. First those that no Ray may run beside,
	# with what starts none; then the others, where a file's tests share what they start.
	$(BIN)/python -m pytest -m "not long" -n 2 --dist loadgroup --durations 10 tests/alone tests/unit tests/simulation
	$(BIN)/python -m pytest -m "not long" -n 2 --dist loadfile --durations 20 tests/contract tests/system tests/faults

# HEADRACE_ROUNDS and HEADRACE_FAULT_SEED make it shorter, or another one.
test-faults: setup
	$(BIN)/python -m pytest -m long --durations 15 tests/faults

# What takes long for another reason: 10,000 more simulated seeds, whole benchmarks, training, both
# placements of everything.
test-long: setup
	$(BIN)/python -m pytest -m long --durations 15 --ignore tests/faults

demo: setup
	$(BIN)/python -m jobs.demo --broker $(BROKER)

demo-recommend: setup
	$(BIN)/python -m jobs.demo recommend --broker $(BROKER)

bench: setup
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.throughput --task recommend
	$(BIN)/python -m benchmarks.commits

# Peers are installed into the user's cache the first time; who cannot be is left out with a reason.
bench-peers: setup
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.peers --task crayfish

bench-scaling: setup
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.scaling --unseen --ours-only

bench-scaling-real: setup
	$(BIN)/python -m benchmarks.scaling.real

# A broker to try things on, in the foreground: by Docker where it answers, else by Java.
up: setup
	$(BIN)/python -m jobs.local_broker --kind kafka
