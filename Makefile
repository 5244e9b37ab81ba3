# `make demo` and `make test` do all their own set-up: they need python3 (3.11 to 3.13) and make, nothing else.
.DEFAULT_GOAL := help
SHELL := /bin/sh

UV := .uv/bin/uv
PY := .venv/bin/python
PORT ?= 3000
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export UV_PYTHON_DOWNLOADS := never
# Threads that wait by spinning stand in each other's way where cores are few.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help setup demo dev serve lint test test-fast stream-test coverage container-test bench clean

help: ## List every target
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# uv comes from the package index into a folder of its own, so that a pip which refuses system installs does not matter.
# A Debian without python3-venv has no ensurepip: then pip is asked to install into a bare folder instead.
$(UV):
	@echo "Getting uv …"
	@python3 -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "finrisk needs Python 3.11 to 3.13; python3 is " + sys.version.split()[0])'
	@python3 -m venv .uv >/dev/null 2>&1 && .uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8' \
	|| { rm -rf .uv && python3 -m pip install --quiet --disable-pip-version-check --break-system-packages --target .uv/lib 'uv>=0.8' && mkdir -p .uv/bin && ln -sf ../lib/bin/uv .uv/bin/uv; } \
	|| { rm -rf .uv; echo "Could not install uv: python3 needs either its venv module or pip (Debian: apt-get install python3-venv)."; exit 1; }

.venv/.ready: $(UV) pyproject.toml uv.lock
	@echo "Setting up the locked environment …"
	@$(UV) sync --locked --quiet --compile-bytecode --python "$$(command -v python3)"
	@touch $@

setup: .venv/.ready ## Install the locked environment into .venv

demo: .venv/.ready ## Run the whole pipeline and show decisions answered by the built and served Bento
	@$(PY) -m finrisk_assets.cli.main demo

dev: .venv/.ready ## Open the Dagster UI on http://127.0.0.1:3000 (PORT=… for another)
	@exec $(PY) -m finrisk_assets.cli.main dev --port $(PORT)

serve: .venv/.ready ## Serve the newest Bento on http://127.0.0.1:3000 (PORT=… for another)
	@exec $(PY) -m finrisk_assets.cli.main serve --port $(PORT)

lint: .venv/.ready ## Style, types, import rules, definitions
	@ruff check .
	@ruff format --check .
	@mypy
	@lint-imports --no-cache
	@dg check defs --no-check-yaml

test: lint ## All of lint, and every test but those of the container image and of Kafka
	@pytest --numprocesses 2 --dist loadgroup --ignore tests/container --ignore tests/stream

test-fast: .venv/.ready ## The tests of test that are not slow and need no real data: for the loop of change and check
	@pytest --numprocesses 2 --dist loadgroup --ignore tests/container --ignore tests/stream -m "not slow and not realdata"

stream-test: .venv/.ready ## The stream on a real Kafka, with faults: needs Java 17, and Maven the first time (STREAM_MESSAGES=… for longer)
	@pytest -rs tests/stream

# Counting lines takes half as long again.
coverage: .venv/.ready ## The tests of test, and the lines that none of them reaches
	@pytest --numprocesses 2 --dist loadgroup --ignore tests/container --ignore tests/stream --cov --cov-report term:skip-covered

container-test: .venv/.ready ## Build the container image without Docker or a registry, run it hardened, and measure it (Linux, root)
	@pytest -rs tests/container

bench: .venv/.ready ## Measure: model quality and speed, beside peers
	@for what in features simulator spending loans cashflow offers handbook leakage drift scorecard reasons gates orchestration serving; do echo "== $$what"; $(PY) -m benchmarks.$$what || exit 1; done

clean: ## Remove everything the product and the set-up wrote
	rm -rf .finrisk .venv .uv
