# The few commands that people type. `make repro` and `make test` do all the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# DVC runs `python` from PATH
export PATH := $(CURDIR)/$(BIN):$(PATH)
PYTEST := python -m pytest --numprocesses logical --maxprocesses 4 --dist loadgroup
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: repro test fast lint audit verify bench lock clean

repro: $(READY)  ## run the pipeline and print the headline table
	dvc repro
	@python -m tools.headline

test: $(READY) lint  ## every check and every test
	$(PYTEST)

fast: $(READY)  ## the tests that take seconds
	$(PYTEST) -m "not slow"

lint: $(READY)
	ruff format --check .
	ruff check .
	pyright
	lint-imports --no-cache
	python -m tools.dvc_deps --check
	python -m tools.readme --check

audit: $(READY)  ## hold our own benchmark against every rule, write reports/audit.json
	python -m tools.audit

verify: $(READY)  ## re-hash every output against dvc.lock
	python -m tools.verify

bench: $(READY)  ## run each stage again, write wall time, CPU time and memory to reports/benchmark.json
	python -m tools.bench

lock: $(READY)  ## pin the newest versions that pyproject.toml allows
	pip-compile --quiet --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header \
	  --extra embedded --extra dev --output-file requirements.lock pyproject.toml
	sed -i 's/^torch==\([0-9.]*\)+.*/torch==\1/' requirements.lock

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf $(VENV)
