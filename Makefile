# Testudo's daily commands; `make` alone lists them. Needs GNU make and Python 3.11 or newer, nothing else.

PYTHON  ?= python3
WORKERS ?= 2
ARGS    ?=

VENV := .venv
BIN  := $(VENV)/bin

# Quiet, but errors show; pip's own account stays in .venv/pip.log.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check -qq --log $(VENV)/pip.log \
           install -c constraints.txt --no-build-isolation
BLAME   := { echo "pip could not install; its account: $(VENV)/pip.log" >&2; exit 1; }

# What runs here tells nobody that it ran.
export FLWR_TELEMETRY_ENABLED := 0
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo deploy-demo bench venv test check format clean

help: ## list these targets
	@echo "Testudo. make <target> [ARGS='...'] [PYTHON=python3.12]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  %-12s %s\n' $$name "$$text"; done

demo: $(VENV)/.runtime ## train a small federation in this process and write its report
	$(BIN)/testudo-simulate demo $(ARGS)

deploy-demo: $(VENV)/.runtime ## a server and three data owners as processes on this machine, with TLS, DP and audit log
	$(BIN)/testudo-simulate deploy-demo $(ARGS)

bench: $(VENV)/.bench ## run the benchmarks, beside Flower's Ray simulation and pfl-research
	$(BIN)/testudo-simulate bench $(ARGS)

venv: $(VENV)/.dev ## set up .venv with everything; the other targets do what they need of it

# One thread for each of the workers: small models lose time to more, and the workers would share the same cores.
test: export OMP_NUM_THREADS := 1
test: export OPENBLAS_NUM_THREADS := 1
test: export MKL_NUM_THREADS := 1
test: export MPLBACKEND := Agg
test: $(VENV)/.dev ## run the tests, e.g. ARGS='tests/unit -k plan'
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.dev ## formatting, lint, types and layers
	@failed=; for step in 'ruff format --check .' 'ruff check .' mypy lint-imports; do \
	  echo "$$step"; $(BIN)/$$step || failed="$$failed [$$step]"; \
	done; test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

format: $(VENV)/.dev ## format the code and repair what lint can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## delete .venv, caches and builds; runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage htmlcov build dist
	find client common server simulations tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ByzFL is an oracle of tests. It is no dependency in pyproject.toml: it would bring torchvision, whose build for CUDA
# breaks beside a CPU build of torch, and the part that is tested against needs nothing that is not there.
#
# The set-up. Files in .venv stamp what is installed, so that a second run installs only after a change. The build
# backend is installed first and pinned too, which build isolation would not do.
$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Testudo needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) \
	  || { echo "No virtual environment: Debian and Ubuntu have that in the package python3-venv." >&2; exit 1; }

$(VENV)/.build: constraints.txt $(VENV)/pyvenv.cfg
	@$(INSTALL) hatchling || $(BLAME)
	@touch $@

$(VENV)/.runtime: pyproject.toml constraints.txt $(VENV)/.build
	@echo "Setting up $(VENV) to run (a few minutes the first time) ..."
	@$(INSTALL) -e . || $(BLAME)
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.build
	@echo "Setting up $(VENV) to run and to develop (a few minutes the first time) ..."
	@$(INSTALL) -e '.[dev,ray,export,monitor]' || $(BLAME)
	@$(INSTALL) --no-deps byzfl || $(BLAME)
	@touch $(VENV)/.runtime $@

$(VENV)/.bench: $(VENV)/.dev
	@echo "Adding to $(VENV) what the benchmarks measure against ..."
	@$(INSTALL) -e '.[bench]' || $(BLAME)
	@touch $@
