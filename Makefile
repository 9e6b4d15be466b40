# Everything runs in .venv, with the versions of constraints.txt. PYTHON may name another interpreter (3.11 or later).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo up test check conformance faults bench lock clean

help: ## Show what can be made.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# An installation is told by its stamp, which is older than what it was made from when that has changed since.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "compactor needs Python 3.11 or later; name one: make PYTHON=python3.12 $@"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing compactor[$(1)] into $(VENV) ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[$(1)]'
	@touch $@
endef

$(VENV)/.demo: pyproject.toml constraints.txt
	$(call install,demo)

$(VENV)/.dev: pyproject.toml constraints.txt
	$(call install,dev)
	@touch $(VENV)/.demo

demo: $(VENV)/.demo ## Show one nightly pass, on a sandbox or on LETTA_BASE_URL, and stop.
	@$(BIN)/compactor up --once --fresh

up: $(VENV)/.demo ## Run the whole service here until Ctrl-C.
	@$(BIN)/compactor up

# Two at once: most tests wait for processes of their own.
test: $(VENV)/.dev ## Run the tests.
	@$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.dev ## Lint, types, import walls.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

conformance: $(VENV)/.dev ## Run the client and the compactions against a real Letta server, built from PyPI and cached.
	@COMPACTOR_CONFORMANCE=require $(BIN)/python -m pytest tests/conformance

SEED ?= 1
faults: $(VENV)/.dev ## Run the fault campaign, SEED=1: what is killed, lost, doubled and late, and what comes of it.
	@$(BIN)/python -m tests.faults --seed $(SEED)

BENCH ?= client webhook deliveries ledger
bench: $(VENV)/.dev ## Measure client, webhook, deliveries and ledger; BENCH=webhook measures that alone.
	@set -e; for one in $(BENCH); do echo "==> $$one"; $(BIN)/python -m benchmarks.$$one; done

lock: ## Write constraints.txt anew from what pyproject.toml asks for.
	@rm -rf .cache/lock && $(PYTHON) -m venv .cache/lock
	@.cache/lock/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[dev]'
	@{ echo '# Versions that were tested together. Written by `make lock`.'; \
	   .cache/lock/bin/python -m pip freeze --exclude-editable --exclude compactor; } > constraints.txt
	@rm -rf .cache/lock

clean: ## Remove what was built; what the service keeps (.compactor) stays.
	@rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
