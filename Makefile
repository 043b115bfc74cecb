# Everything that a person or a build runs. `make` alone lists the targets. Each sets up what it needs in .venv.

SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3 python

.PHONY: help demo up test lint format bench bench-flip bench-gateway bench-pages bench-poll bench-live bench-failover bench-rollback reset lock install

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.embedded ## Run the dashboard, the gateway and the demo estate with traffic, until Ctrl-C
	@exec $(BIN)/python -m controlplane.embedded demo

up: $(VENV)/.embedded ## Run the dashboard and the gateway with an empty plan, until Ctrl-C
	@exec $(BIN)/python -m controlplane.embedded up

test: $(VENV)/.dev ## Check the style and run every test, on real servers and a real browser (TESTS=path for some)
	@$(BIN)/python -m tests.chromium
	@$(BIN)/ruff check --quiet .
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(TESTS)

lint: $(VENV)/.dev ## Check style, format, types and templates
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@SWITCHYARD_MODE=test SECRET_KEY=only-for-type-checking DATABASE_URL=postgres://127.0.0.1/none $(BIN)/mypy .
	@git ls-files -z -- 'templates/*.html' 'templates/**/*.html' | xargs -0 -r $(BIN)/djade --target-version 5.2 --check

format: $(VENV)/.dev ## Format the code and the templates
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format .
	@git ls-files -z -- 'templates/*.html' 'templates/**/*.html' | xargs -0 -r $(BIN)/djade --target-version 5.2

bench: bench-flip bench-gateway bench-pages bench-poll bench-live bench-failover bench-rollback ## Run every benchmark

bench-flip: $(VENV)/.dev ## Measure the time from a click to its effect, and requests lost
	@exec $(BIN)/python -m bench.flip

bench-gateway: $(VENV)/.dev ## Measure the gateway's requests per second beside two others
	@exec $(BIN)/python -m bench.gateway

bench-pages: $(VENV)/.dev ## Measure pages with a long past and a million audit events
	@exec $(BIN)/python -m bench.pages

bench-poll: $(VENV)/.dev ## Measure what health polls cost and how late they are, beside Prometheus
	@exec $(BIN)/python -m bench.poll

bench-live: $(VENV)/.dev ## Measure 500 open pages that are told by streams, beside asking every 2 s
	@exec $(BIN)/python -m bench.live

bench-failover: $(VENV)/.dev ## Measure what a service that dies costs, and what failover costs
	@exec $(BIN)/python -m bench.failover

bench-rollback: $(VENV)/.dev ## Measure the time until traffic is back from a service that fails, beside a restart
	@exec $(BIN)/python -m bench.rollback

reset: $(VENV)/.embedded ## Remove this installation's state: databases, gateway, accounts (FORCE=1 does not ask)
	@exec $(BIN)/python -m controlplane.embedded reset $(if $(FORCE),--yes)

install: $(VENV)/.dev ## Set up .venv with everything, development tools included

lock: $(VENV)/.dev ## Write requirements/*.txt anew from pyproject.toml (UPGRADE=1 takes newer versions)
	@$(BIN)/python -m requirements.lock $(if $(UPGRADE),--upgrade)

$(VENV)/.python:
	@for python in $(PYTHON) $(PYTHONS); do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    $$python -m venv --clear $(VENV) && touch $@ && exit 0; \
	  fi; \
	done; \
	echo 'Python 3.11 or later with its venv module is needed (on Debian: apt install python3 python3-venv).' >&2; exit 1

$(VENV)/.embedded: requirements/embedded.txt | $(VENV)/.python
	@echo 'installing what is needed into $(VENV) ...'
	@$(PIP) install --require-hashes -r requirements/embedded.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/embedded.txt | $(VENV)/.python
	@echo 'installing what is needed, development tools included, into $(VENV) ...'
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@ $(VENV)/.embedded
