# Everything a person or CI runs. PIP_ARGS is passed to every pip: another package index, a proxy, a cache.
# CONSTRAINTS names the file of exact versions, EXTRAS the extras, VENV the environment that has them, TEST_ARGS further
# options of pytest.
PYTHON ?= python3
PIP_ARGS ?=
CONSTRAINTS ?= constraints.txt
EXTRAS ?= local,dev,docs
TEST_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
export PIP_ARGS
export PGKD_HOME ?= $(CURDIR)/.models

# A folder with a folder per dataset (evals/README.md), and further options of `python -m evals.bench.run`.
BENCH_DATA ?=
BENCH_ARGS ?=

# Options of `python -m tests.torture`: --seed N, --every N, --kills N, --faults PART, --commands NAME.
TORTURE_ARGS ?=

.PHONY: help setup models demo test test-min check schemas docs site bench torture clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed ## Make .venv with the package and its tools, versions as in constraints.txt

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "This Python has no venv module; install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c $(CONSTRAINTS) -e '.[$(EXTRAS)]'
	@touch $@

models: setup ## Fetch the embedded teacher and student (once)
	@$(BIN)/pgkd models get smollm2 minilm

demo: models ## Distil the support-desk example with the embedded teacher and student
	rm -rf runs/demo
	$(BIN)/pgkd distill --config examples/support_desk/demo.yaml \
	  --train examples/support_desk/train.jsonl --test examples/support_desk/test.jsonl \
	  --labels examples/support_desk/labels.json --out runs/demo

test: models ## Run all tests
	CI=true OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal --durations=20 $(TEST_ARGS)  # one thread each: the students are tiny

# Old libraries call what newer ones deprecate. Of the tests left out two compare files as the newest libraries write
# them, one is about a client that refuses a temperature by itself, which old ones leave to the server, and the site is
# built by tools of newer ones.
test-min: ## Run all tests with the oldest versions that pyproject.toml allows, in .venv-min; needs Python 3.11
	@$(MAKE) --no-print-directory test VENV=.venv-min CONSTRAINTS=constraints-min.txt EXTRAS=local,dev TEST_ARGS='\
	  --ignore tests/integration/test_site.py \
	  -W default::DeprecationWarning \
	  --deselect tests/unit/test_schemas.py::test_the_file_is_up_to_date \
	  --deselect tests/integration/test_docs.py::test_the_list_of_options_is_current \
	  --deselect tests/integration/test_providers.py::test_a_temperature_that_a_model_rejects_is_left_out_once_and_for_all[anthropic-client] \
	  $(TEST_ARGS)'

check: setup ## Lint, format, types (import layers are a test)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schemas: setup ## Write schemas/ anew from the pydantic models
	$(BIN)/python -m pgkd_agent.schemas

docs: setup ## Write docs/cli.md, the commands and their options, anew
	$(BIN)/python -m typer pgkd_agent.cli.main utils docs --name pgkd --output docs/cli.md

site: setup ## Build the documentation site: build/site/index.html
	$(BIN)/python docs/build_site.py

.bench-venv/.installed: evals/bench/requirements.txt constraints.txt
	$(PYTHON) -m venv .bench-venv
	.bench-venv/bin/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt -r $<
	@touch $@

bench: ## Benchmarks against other libraries: make bench BENCH_DATA=DIR [BENCH_ARGS=...]; hours, on a quiet machine
	@test -d "$(BENCH_DATA)" || { \
	  echo "Name a folder of datasets: make bench BENCH_DATA=DIR (evals/README.md says what is in it)"; exit 1; }
	@$(MAKE) --no-print-directory models .bench-venv/.installed
	$(BIN)/python -m evals.bench.run --data "$(BENCH_DATA)" $(BENCH_ARGS)

torture: models ## Kill, cut, fill and damage runs in every way, and see that nothing is lost: [TORTURE_ARGS=--help]; an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture --embedded $(TORTURE_ARGS)

clean: ## Remove what make made, but runs/
	rm -rf $(VENV) .venv-min .bench-venv .models .pytest_cache .mypy_cache .ruff_cache build
