# The commands of a person who has just cloned this. Nothing is done twice: what is up to date is left alone.
#
#   make demo     set up, then run the demonstration: a rig, a power cut, a verdict
#   make test     set up, then every check and every test but the long ones, as CI does
#   make test-long  set up, then the long ones: faults combined on real containers, a real database as a VM, a
#                   search for every broken cluster
#   make check    what needs no container engine: lint, types, layers, fast tests
#   make setup    .venv, the container engine, the images
#   make bench    set up, then measure against the floors: some fifteen minutes (ROUNDS=3: five); docs/benchmarks.md
#   make search-table  search for each broken cluster, fifteen minutes; docs/broken-clusters.md
#   make search-long   ten thousand random schedules against the healthy cluster (SEED=0: the first); docs/searched.md
#   make fuzz     20,000 random documents for every reader, some minutes (SEED=0, DOCUMENTS=20000); docs/design/0012-fuzzing.md
#   make scale    simulate clusters of growing size, four minutes; docs/scale.md
#   make compose  render compose/*.yaml anew
#   make clean    remove the rigs made from here, .venv and caches; out/ stays, and images do (make clean-images)

VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/.made

ROUNDS := 10
SEED := 0
DOCUMENTS := 20000

.PHONY: help setup engine images demo test test-long check lint fast-tests container-tests bench search-table search-long fuzz scale compose clean clean-images
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

$(MADE): pyproject.toml tools/python.sh
	@PYTHON="$(PYTHON)" sh tools/python.sh
	@touch $@

engine: $(MADE)
	@sh tools/engine.sh

images: engine
	@$(BIN)/blackstart images build

setup: images

demo: setup
	$(BIN)/blackstart run chaos/experiments/node-power-cut.yaml

lint: $(MADE)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fast-tests: $(MADE)
	$(BIN)/pytest -n 2 --dist worksteal -m "not containers and not long" tests

check: lint fast-tests

container-tests: setup
	$(BIN)/pytest -m "containers and not long" tests

test-long: setup
	$(BIN)/pytest -m long tests

# In this order whatever -j says: each line needs the one before, and two cores are all that CI has.
test: setup
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory fast-tests
	@$(MAKE) --no-print-directory container-tests

bench: setup
	@$(BIN)/python -m bench.run --write --rounds $(ROUNDS)

search-table: $(MADE)
	@$(BIN)/python tools/broken_clusters.py

search-long: $(MADE)
	@mkdir -p out
	$(BIN)/blackstart search --runs 10000 --seed $(SEED) --json > out/search-long.json; code=$$?; \
	    $(BIN)/python tools/search_page.py $(SEED) < out/search-long.json; exit $$code

fuzz: $(MADE)
	@$(BIN)/python -m fuzz.run --seed $(SEED) --documents $(DOCUMENTS) --out out/fuzz

scale: $(MADE)
	@$(BIN)/python -m pip install -q "matplotlib>=3.8"
	@$(BIN)/python tools/scale_page.py

compose: $(MADE)
	@$(BIN)/blackstart compose --nodes 3 --output compose/three-nodes.yaml
	@$(BIN)/blackstart compose --nodes 5 --output compose/five-nodes.yaml
	@$(BIN)/blackstart compose --nodes 2 --witness --output compose/two-nodes-witness.yaml

clean:
	@test ! -x $(BIN)/python || $(BIN)/python tools/clean.py
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-images: $(MADE)
	@$(BIN)/python tools/clean.py --images
