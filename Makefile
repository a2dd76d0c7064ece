# `make help` lists the verbs.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 3
# Files in the order that tests/conftest.py gives them.
XDIST = -n $(JOBS) --dist loadfile --no-loadscope-reorder
# They have a run of their own: one at a time, or where nothing else can disturb what they count.
ASIDE := --ignore=tests/compose --ignore=tests/noninterference
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)

.PHONY: help demo test coverage soak noninterference test-compose test-integrations check generate bench tools clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## see it work: forty questions to an example application, measured and priced
	@$(BIN)/stagelight demo $(ARGS)

test: $(STAMP) ## run the tests in JOBS processes
	@STAGELIGHT_STRICT=1 $(BIN)/python -m pytest $(XDIST) $(ASIDE) $(ARGS)
	@STAGELIGHT_STRICT=1 $(BIN)/python -m pytest $(XDIST) tests/noninterference

test-compose: $(STAMP) ## run docker compose up itself, as root on podman
	@STAGELIGHT_STRICT=1 $(BIN)/python -m pytest tests/compose $(ARGS)

coverage: $(STAMP) ## say which branches the tests do not reach; slower than the tests alone
	@STAGELIGHT_STRICT=1 $(BIN)/python -m pytest $(XDIST) $(ASIDE) \
		--cov --cov-report=term:skip-covered $(ARGS)

soak: $(STAMP) ## run the faults of the stack with outages of ten minutes
	@STAGELIGHT_STRICT=1 STAGELIGHT_SOAK=1 $(BIN)/python -m pytest tests/stack/test_faults_of_programs.py $(ARGS)

noninterference: $(STAMP) ## compare clients with and without Stagelight: VERSIONS="openai==2.0.0 anthropic"
	@$(BIN)/python tests/matrix.py --with "$(VERSIONS)" tests/noninterference

test-integrations: $(STAMP) ## run the client tests with the oldest and newest supported versions
	@$(BIN)/python tests/matrix.py $(ARGS)

check: $(STAMP) ## lint, formatting, types, and generated files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@MYPYPATH=instrumentation $(BIN)/mypy
	@$(BIN)/python -m stagelight.conventions.generate --check
	@$(BIN)/python -m stagelight.documentation --check

generate: $(STAMP) ## write what is made from the registry, the settings and the integrations
	@$(BIN)/python -m stagelight.conventions.generate
	@$(BIN)/python -m stagelight.documentation

tools: $(STAMP) ## build the real programs of the stack tests, with Go 1.26+ (once, about 20 minutes)
	@$(BIN)/python tools/build.py

bench: $(STAMP) ## measure overhead, prices, import, exit and the embedded server
	@for benchmark in overhead pricing import_time exit_time labels embedded collector; do \
		echo "== $$benchmark"; $(BIN)/python benchmarks/$$benchmark.py || exit 1; done

clean: ## remove everything that was made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build dist

# Installed once, and again only when the dependencies change: the second run needs no network.
$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Stagelight needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$(PYTHON) is not Python 3.11 or newer: name another with make PYTHON=/path/to/python." >&2; exit 1; }
	@echo "Installing into $(VENV) (once) ..."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,all]' --group dev
	@touch $@
