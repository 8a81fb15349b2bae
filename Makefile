# The few commands that people type. `make repro` and `make test` do all the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TRAINING := $(VENV)/.ready-training
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# DVC runs `python` from PATH
export PATH := $(CURDIR)/$(BIN):$(PATH)
PYTEST := python -m pytest --numprocesses logical --maxprocesses 4 --dist loadgroup
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: repro tranyu test fast lint audit verify bench lock clean

repro: $(READY)  ## run the pipeline and print the headline table
	dvc repro
	@python -m tools.headline

tranyu: $(TRAINING)  ## train the multilingual model from scratch, edit facts in it, and print what crossed
	dvc repro tranyu/dvc.yaml
	xledit run tranyu

test: $(TRAINING) lint  ## every check and every test
	$(PYTEST)

fast: $(TRAINING)  ## the tests that take seconds
	$(PYTEST) -m "not slow"

lint: $(TRAINING)
	ruff format --check .
	ruff check .
	pyright
	lint-imports --no-cache
	python -m tools.dvc_deps --check
	python -m tools.readme --check

audit: $(READY)  ## hold our own benchmark against every rule, write reports/audit.json
	xledit audit

verify: $(READY)  ## re-hash every output against dvc.lock
	python -m tools.verify

bench: $(READY)  ## run each stage again, write wall time, CPU time and memory to reports/benchmark.json
	python -m tools.bench

lock: $(READY)  ## pin the newest versions that pyproject.toml allows
	pip-compile --quiet --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header \
	  --extra embedded --extra dev --output-file requirements.lock pyproject.toml
	sed -i 's/^torch==\([0-9.]*\)+.*/torch==\1/' requirements.lock
	pip-compile --quiet --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header \
	  --extra embedded --extra dev --extra training --constraint requirements.lock --output-file requirements-training.lock pyproject.toml
	sed -i 's/^torch==\([0-9.]*\)+.*/torch==\1/' requirements-training.lock

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --requirement requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

$(TRAINING): $(READY) requirements-training.lock
	$(INSTALL) --requirement requirements-training.lock
	touch $@

clean:
	rm -rf $(VENV)
