PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
RUN := runs/demo
# more options for pip, such as an index of CPU wheels of torch: make setup PIP_OPTIONS="--extra-index-url ..."
PIP_OPTIONS ?=
MINUTES ?= 3.2
FUZZ_MINUTES ?= 5
KILLS ?= 200
SEED ?= 0

DOCS := $(VENV)/.docs

.PHONY: help setup demo test lint docs docs-look docs-runs bench bench-quality bench-recipes bench-explorer bench-studies bench-threads bench-startup catalogue fuzz torture

help:
	@echo "make setup          an environment in $(VENV) with vaekit and its tools"
	@echo "make demo           train on Fashion-MNIST for 3 minutes, measure, write its pages"
	@echo "make test, lint     the tests; ruff and mypy"
	@echo "make fuzz           damaged files for every reader, for FUZZ_MINUTES=5; make torture: kills, full disks, crowds"
	@echo "make docs           the lessons, guides and reference as a site in docs/_build/html, every page run"
	@echo "make docs-look      every page of it in Chromium, wide and narrow, light and dark; faults and pictures"
	@echo "make docs-runs      the small models that the lessons open, in docs/runs; only what is missing or has changed"
	@echo "make bench          speed beside other libraries; bench-quality, bench-recipes: quality;"
	@echo "                    bench-explorer: the live page; bench-studies: the studies at full length, 2.5 hours;"
	@echo "                    bench-threads: training alone and beside other programs;"
	@echo "                    bench-startup: CPU time of help, lists and refusals"
	@echo "make catalogue      what help and lists say, from the recipes and studies: run it after a change of theirs"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_OPTIONS) -c constraints.txt -e ".[dev]"
	@touch $@

# a stopped run is resumed, a finished one measured again; status 3: the data are unavailable
demo: $(READY)
	@if [ -f $(RUN)/run.json ]; then \
	  $(BIN)/vaekit fit --out $(RUN) --resume; \
	else \
	  $(BIN)/vaekit fit fashion-mnist --recipe vae --minutes $(MINUTES) --out $(RUN); status=$$?; \
	  if [ $$status -ne 3 ]; then exit $$status; fi; \
	  echo "Fashion-MNIST is unavailable: digits instead"; \
	  $(BIN)/vaekit fit digits --recipe vae --minutes 0.5 --out $(RUN); \
	fi
	@$(BIN)/vaekit evaluate $(RUN) --samples 100 -n 2000
	@$(BIN)/vaekit report $(RUN)
	@$(BIN)/vaekit explore $(RUN)
	@echo "open $(RUN)/report.html and $(RUN)/explorer.html in a browser"

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

lint: $(READY)
	$(BIN)/ruff check src tests bench docs tools
	$(BIN)/ruff format --check src tests bench docs tools
	$(BIN)/mypy

$(DOCS): $(READY)
	$(BIN)/pip install $(PIP_OPTIONS) -c constraints.txt -e ".[docs]"
	@touch $@

# pages run vaekit as a reader would: from the environment's own programs
docs: $(DOCS)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html in a browser"

docs-look: $(READY)
	$(BIN)/python docs/look.py

docs-runs: $(READY)
	$(BIN)/python docs/runs.py

bench: $(READY)
	$(BIN)/python bench/bench.py

bench-quality: $(READY)
	$(BIN)/python bench/quality.py

bench-recipes: $(READY)
	$(BIN)/python bench/recipes.py

bench-explorer: $(READY)
	$(BIN)/python bench/explorer.py

bench-studies: $(READY)
	$(BIN)/python bench/studies.py

bench-threads: $(READY)
	$(BIN)/python bench/threads.py

bench-startup: $(READY)
	$(BIN)/python bench/startup.py

catalogue: $(READY)
	$(BIN)/python tools/catalogue.py

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tools/fuzz.py --minutes $(FUZZ_MINUTES) --seed $(SEED)

torture: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tools/torture.py --kills $(KILLS) --seed $(SEED)
