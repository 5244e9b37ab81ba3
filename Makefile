# `make demo` and `make test` do all their own set-up: they need python3 (3.11 to 3.13) and make, nothing else.
.DEFAULT_GOAL := help
SHELL := /bin/sh

UV := .uv/bin/uv
PY := .venv/bin/python
PORT ?= 3000
ROUNDS ?= 1
ENGINE_TESTS ?= tests/cluster
CHARTS := bento/console/static/vega.js.gz
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export UV_PYTHON_DOWNLOADS := never
# Threads that wait by spinning stand in each other's way where cores are few.
export OMP_WAIT_POLICY := PASSIVE

define COUNT_DECISIONS
import glob, sqlite3, sys
found = False
for file in glob.glob(".finrisk/*/service/store.sqlite"):
    try:
        store = sqlite3.connect("file:%s?mode=ro" % file, uri=True)
        count = store.execute("SELECT count(*) FROM decisions").fetchone()[0]
    except sqlite3.Error:
        count = "unreadable"
    if count:
        found = True
        print("%s holds %s decisions with their audit." % (file, count))
sys.exit(found)
endef
export COUNT_DECISIONS

.PHONY: help setup console-assets demo up dev serve lint test test-fast whole-test stream-test engine-test coverage browser-test client tableau objects postgres spark container-test bench scale book pictures clean

help: ## List every target
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# uv comes from the package index into a folder of its own, so that a pip which refuses system installs does not matter.
# A Debian without python3-venv has no ensurepip: then pip is asked to install into a bare folder instead.
$(UV):
	@[ -w . ] || { echo "$(CURDIR) cannot be written, and the environment is made in it: copy the checkout to a folder of your own, or make it writable."; exit 1; }
	@echo "Getting uv …"
	@python3 -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "finrisk needs Python 3.11 to 3.13; python3 is " + sys.version.split()[0])'
	@python3 -m venv .uv >/dev/null 2>&1 && .uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8' \
	|| { rm -rf .uv && python3 -m pip install --quiet --disable-pip-version-check --break-system-packages --target .uv/lib 'uv>=0.8' && mkdir -p .uv/bin && ln -sf ../lib/bin/uv .uv/bin/uv; } \
	|| { rm -rf .uv; echo "Could not install uv: python3 needs either its venv module or pip (Debian: apt-get install python3-venv)."; exit 1; }

# The tools of development weigh as much as all else: they stay where they are already.
WITHOUT_DEV = $$([ -e .venv/.dev ] || echo "--no-group dev")

# What the demonstration needs.
.venv/.ready: $(UV) pyproject.toml uv.lock
	@echo "Setting up the locked environment …"
	@$(UV) sync --locked --quiet --compile-bytecode $(WITHOUT_DEV) --python "$$(command -v python3)"
	@touch $@

.venv/.dev: .venv/.ready
	@echo "Adding the tools of development …"
	@$(UV) sync --locked --quiet --inexact --compile-bytecode --python "$$(command -v python3)"
	@touch $@

setup: .venv/.dev $(CHARTS) ## Install the locked environment with the tools of development into .venv

# The package that makes the bundle is used once, from uv's cache, and belongs to no environment. Without a network the console shows tables.
$(CHARTS): .venv/.ready bento/console/presentation/vega_bundle.py
	@echo "Making what draws the console's charts …"
	@$(UV) run --quiet --isolated --locked --only-group console-assets python -m bento.console.presentation.vega_bundle \
	|| echo "The console will show tables in place of charts; make console-assets tries again."

console-assets: $(CHARTS) ## Make the bundle that draws the console's charts

demo: .venv/.ready $(CHARTS) ## Run the whole pipeline and show decisions answered by the built and served Bento
	@$(PY) -m finrisk_assets.cli.main demo

up: .venv/.ready ## Open everything: service, console, Dagster UI and MLflow UI, on free ports from 3000 on (PORT=… for another)
	@exec $(PY) -m finrisk_assets.cli.main up --port $(PORT)

dev: .venv/.ready ## Open the Dagster UI on http://127.0.0.1:3000 (PORT=… for another)
	@exec $(PY) -m finrisk_assets.cli.main dev --port $(PORT)

serve: .venv/.ready ## Serve the newest Bento on http://127.0.0.1:3000 (PORT=… for another)
	@exec $(PY) -m finrisk_assets.cli.main serve --port $(PORT)

lint: .venv/.dev ## Style, types, import rules, definitions
	@ruff check .
	@ruff format --check .
	@mypy
	@lint-imports --no-cache
	@dg check defs --no-check-yaml

# Three on two cores: many tests wait for a daemon, a server or a clock.
WORKERS := --numprocesses 3 --dist loadgroup
# Each has a target of its own, and needs what only some machines have.
APART := --ignore tests/whole --ignore tests/container --ignore tests/stream --ignore tests/browser --ignore tests/cluster

test: lint ## All of lint, and every test but those of whole programs, of the container image, of Kafka, of the browser and of a cluster
	@pytest $(WORKERS) $(APART)

test-fast: .venv/.dev ## The tests of test that are not slow and need no real data: for the loop of change and check
	@pytest $(WORKERS) $(APART) -m "not slow and not realdata"

whole-test: .venv/.dev ## Whole programs: every command of README and quick start, the walk-throughs of the pages, runs that are killed and stopped
	@pytest -rs $(WORKERS) tests/whole

stream-test: .venv/.dev ## The stream on a real Kafka, with faults: needs Java 17, and Maven the first time (STREAM_MESSAGES=… for longer)
	@pytest -rs tests/stream

engine-test: .venv/.dev ## The graph on a cluster of Spark, Dagster and MLflow on PostgreSQL: needs Java 17, and Maven Central the first time (ENGINE_TESTS=… for some)
	@pytest -rs --numprocesses 2 --dist loadfile $(ENGINE_TESTS)

# Counting lines takes half as long again.
coverage: .venv/.dev ## The tests of test, and the lines that none of them reaches
	@pytest $(WORKERS) $(APART) --cov --cov-report term:skip-covered

browser-test: .venv/.dev $(CHARTS) ## Drive the console in Debian's chromium, page by page; screenshots lie in browser-shots/
	@$(UV) sync --locked --quiet --inexact --group browser
	@pytest -rs tests/browser

client: .venv/.dev ## Generate the Python client of the API and build its wheel in client/dist
	@$(PY) client/build_client.py
	@$(UV) build --quiet --wheel client && ls client/dist/*.whl

tableau: .venv/.ready ## Install what writes Tableau extracts (258 MB; its Hyper library has a licence of its own, see docs/exports.md)
	@$(UV) sync --locked --quiet --inexact $(WITHOUT_DEV) --extra tableau

objects: .venv/.ready ## Install what reads and writes files in buckets: s3://, gs:// and abfs:// (docs/object-storage.md)
	@$(UV) sync --locked --quiet --inexact $(WITHOUT_DEV) --extra objects

postgres: .venv/.ready ## Install the drivers of warehouse, Dagster and MLflow on PostgreSQL (psycopg, under the LGPL; see docs/engines.md)
	@$(UV) sync --locked --quiet --inexact $(WITHOUT_DEV) --extra postgres

spark: .venv/.ready ## Install Spark (450 MB), for a warehouse on several machines: docs/engines.md
	@$(UV) sync --locked --quiet --inexact $(WITHOUT_DEV) --extra spark

container-test: .venv/.dev ## Build the container image without Docker or a registry, run it hardened, and measure it (Linux, root)
	@pytest -rs tests/container

bench: .venv/.dev ## Measure: model quality and speed, beside peers
	@for what in features simulator spending loans cashflow offers handbook leakage drift scorecard reasons gates orchestration serving; do echo "== $$what"; $(PY) -m benchmarks.$$what || exit 1; done

scale: .venv/.dev postgres spark ## Measure what grows with the ledger: features, months, engines, customers (hours; 30 GB of disk; needs Java 17)
	@$(PY) -m benchmarks.scale --rounds $(ROUNDS)

book: .venv/.dev ## Build the documentation as a site into .book/site; a link that leads nowhere fails
	@$(PY) -m book.pages

pictures: .venv/.dev $(CHARTS) ## Make the pictures of README and book from the home of a demo, in Debian's chromium
	@$(UV) sync --locked --quiet --inexact --group browser
	@$(PY) -W ignore -m book.pictures

# The decisions of a store cannot be made again: they are audited, and answer for what was said to people.
clean: ## Remove everything the product and the set-up wrote; asks first where a store holds decisions (YES=1 for yes)
	@python3 -c "$$COUNT_DECISIONS" || [ -n "$(YES)" ] || { \
	    printf 'Remove them for good? Type yes: '; read answer && [ "$$answer" = yes ] || { echo 'Nothing was removed.'; exit 1; }; }
	rm -rf .finrisk .venv .uv .book client/finrisk_client client/dist
