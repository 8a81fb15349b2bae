# The few commands that people type. `make repro` and `make test` do all the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TRAINING := $(VENV)/.ready-training
DEV := $(VENV)/.ready-dev
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# DVC runs `python` from PATH
export PATH := $(CURDIR)/$(BIN):$(PATH)
PYTEST := python -m pytest --numprocesses logical --maxprocesses 4 --dist loadgroup
export HF_HUB_DISABLE_TELEMETRY := 1
# threads that wait do not spin: where cores are shared, spinning made training ten times slower (docs/LOG.md, 2026-12-01)
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: repro tranyu crossing test fast lint audit verify bench mutation lock clean

repro: $(READY)  ## run the pipeline and print the headline table
	dvc repro
	@python -m tools.headline

tranyu: $(TRAINING)  ## train the multilingual model from scratch, edit facts in it, and print what crossed
	dvc repro tranyu/dvc.yaml
	xledit run tranyu

crossing: $(TRAINING)  ## train 24 small models and say which facts and which edits cross, and what predicts it (an hour of two cores)
	dvc repro crossing/dvc.yaml

test: $(DEV) lint  ## every check and every test
	$(PYTEST)

fast: $(DEV)  ## the tests that take seconds
	$(PYTEST) -m "not slow"

lint: $(DEV)
	ruff format --check .
	ruff check .
	pyright
	lint-imports --no-cache
	python -m tools.dvc_deps --check
	python -m tools.readme --check
	python -m tools.croissant --check

audit: $(DEV)  ## hold our own benchmark against every rule, write reports/audit.json and data/croissant.json
	xledit audit
	python -m tools.croissant

verify: $(READY)  ## re-hash every output against dvc.lock
	python -m tools.verify

bench: $(DEV)  ## run each stage again, write wall time, CPU time and memory to reports/benchmark.json
	python -m tools.bench

mutation: $(DEV)  ## plant small bugs, one at a time, and count how many the fast tests see: docs/mutation.json (20 minutes of two cores)
	python -m tools.mutation
	python -m tools.readme

COMPILE := pip-compile --quiet --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header
lock: $(DEV)  ## pin the newest versions that pyproject.toml allows; what stages run with, apart from developers' tools
	$(COMPILE) --extra embedded --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra embedded --extra training --constraint requirements.lock --output-file requirements-training.lock pyproject.toml
	$(COMPILE) --extra embedded --extra dev --extra training --constraint requirements-training.lock \
	  --output-file requirements-dev.lock pyproject.toml
	sed -i 's/^torch==\([0-9.]*\)+.*/torch==\1/' requirements.lock requirements-training.lock requirements-dev.lock

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --requirement requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

$(TRAINING): $(READY) requirements-training.lock
	$(INSTALL) --requirement requirements-training.lock
	touch $@

$(DEV): $(TRAINING) requirements-dev.lock
	$(INSTALL) --requirement requirements-dev.lock
	touch $@

clean:
	rm -rf $(VENV)
