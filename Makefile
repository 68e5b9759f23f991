# The two commands: `make demo` shows the whole thing under load, `make test` checks it. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Without its bytecode Python compiles everything anew at each start, and tests start it a thousand times.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check setup tools bench-loss bench bench-judge bench-shield bench-listener bench-scale fuzz lock clean simulate

demo: $(READY)  ## real versions of a real application, deployed under load by each strategy
	$(BIN)/segue demo

test: $(READY) tools check  ## everything that main must pass
	$(BIN)/python -m pytest --numprocesses 4 || $(BIN)/python -m pytest --last-failed  # at the same time they disturb each other

.PHONY: test-slow
test-slow: $(READY) tools  ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow

check: $(READY)  ## format, lint, types, layers
	scripts/check

setup: $(READY)  ## the environment alone

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Segue needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(READY)

tools:  ## the independent load clients that tests use, from Debian
	scripts/test-tools

bench-loss: $(READY) tools  ## requests lost by deployments, full size; writes docs/measured/loss.md
	$(BIN)/python bench/loss.py

bench: $(READY) tools  ## the other numbers of the design, each with its target
	$(BIN)/python bench/numbers_to_hold.py

bench-judge: $(READY)  ## how often the judge is wrong and how fast it is, beside others' rules; up to an hour (--sure: some)
	$(BIN)/python bench/judge.py --write

.PHONY: bench-experiment bench-paths
bench-experiment: $(READY)  ## how often an experiment's conclusion is wrong, three minutes; writes docs/measured/experiment.md
	$(BIN)/python bench/experiment.py --write

bench-paths: $(READY)  ## versions that got worse on one path, half an hour; writes docs/measured/paths.md
	$(BIN)/python bench/paths.py --write

.PHONY: bench-verdicts
bench-verdicts: $(READY)  ## verdicts under real load beside the simulation's, an hour; writes docs/measured/verdicts.md
	$(BIN)/python bench/verdicts.py --write

bench-shield: $(READY) tools  ## versions on trial, full size; writes docs/measured/shield.md
	$(BIN)/python bench/shield.py

bench-listener: $(READY) tools  ## what a listener carries and costs, forty minutes; writes docs/measured/listener.md
	$(BIN)/python bench/listener.py

bench-scale: $(READY)  ## a thousand services, a hundred rollouts at once, a year: a quarter of an hour; writes docs/measured/scale.md
	$(BIN)/python bench/scale.py

.PHONY: crash
crash: $(READY)  ## every step of every strategy, each part killed there, under load; an hour or more (SAMPLE=20 tries some)
	$(BIN)/python bench/crash.py $(if $(SEED),--seed $(SEED)) $(if $(SAMPLE),--sample $(SAMPLE))

.PHONY: soak
LENGTH ?= 3600
soak: $(READY)  ## deployments one after another while everything goes wrong, for LENGTH seconds; writes docs/measured/soak.md
	$(BIN)/python bench/soak.py --seconds $(LENGTH) --write $(if $(SEED),--seed $(SEED))

lock:  ## pin anew what pyproject.toml asks for
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-annotate --no-header --universal \
	  --python-version 3.11 --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.PHONY: fuzz
SECONDS ?= 600
fuzz: $(READY)  ## inputs that nobody would send, to the manifest loader and the API, for so many SECONDS
	$(BIN)/python scripts/fuzz $(SECONDS) $(if $(SEED),--seed $(SEED))

simulate: $(READY)  ## lives of a service in which anything may go wrong: make simulate SEEDS=10000
	$(BIN)/python -m segue.testing.simulation --seeds $(or $(SEEDS),1000)
