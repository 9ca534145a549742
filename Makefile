PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
RUN := runs/demo
# extra pip options, such as an index of CPU wheels of torch: make setup PIP_OPTIONS="--extra-index-url ..."
PIP_OPTIONS ?=
MINUTES ?= 3.2
FUZZ_MINUTES ?= 5
KILLS ?= 200
SEED ?= 0

DOCS := $(VENV)/.docs
# the linter of the explorer's JavaScript, fetched from npm where that is reachable
BIOME := npm_config_fetch_retries=0 npx --yes --prefer-offline @biomejs/biome@2.6.8

.PHONY: help setup demo test lint docs docs-look docs-runs bench bench-quality bench-recipes bench-explorer bench-studies bench-threads bench-startup bench-families bench-ladder bench-growth bench-gpu bench-time bench-conv bench-learning bench-anomalies bench-tables bench-filling bench-cells bench-calibration bench-disentanglement bench-bytes bench-pictures bench-quantised catalogue fuzz torture bench-frontier bench-frontier-gpu bench-large

help:
	@echo "make setup          create an environment in $(VENV) with vaekit and its development tools"
	@echo "make demo           train on Fashion-MNIST for 3 minutes, evaluate, write a report and an explorer page"
	@echo "make test           run the test suite"
	@echo "make lint           run ruff and mypy, and Biome on the explorer's JavaScript if npm can fetch it"
	@echo "make fuzz           give damaged files to every reader, for FUZZ_MINUTES=5"
	@echo "make torture        kill training runs, fill disks, run several at once; check that they recover"
	@echo "make docs           build the site in docs/_build/html: lessons, guides and reference; every page is run"
	@echo "make docs-look      open every built page in Chromium, wide and narrow, light and dark; report faults"
	@echo "make docs-runs      train the models in docs/runs that are missing or whose settings changed"
	@echo "make bench          measure speed beside other libraries"
	@echo "make bench-time     compare quality against time with Pythae"
	@echo "make bench-conv     time convolutional models beside Pythae and the hardware limit (COLOUR=images.npz)"
	@echo "make bench-learning    compare training defaults of images after equal numbers of steps"
	@echo "make bench-frontier    train the recipe 'best' for 10 minutes and for an hour, and score it with 5,000 samples"
	@echo "make bench-quality, bench-recipes    measure the quality of the default recipe, and of every recipe"
	@echo "make bench-explorer    measure the explorer page's speed and size"
	@echo "make bench-studies     run the studies at full length, about 2 hours"
	@echo "make bench-threads     time training alone and beside another program"
	@echo "make bench-calibration count the false alarms of vaekit detect on new rows of 12 tables"
	@echo "make bench-disentanglement    measure the scores of disentanglement beside slow implementations"
	@echo "make bench-bytes       compare the bytes of test data compressed by runs with gzip, xz, PNG, ... (MNIST=folder, ADULT=adult.csv)"
	@echo "make bench-quantised   measure recipes with discrete codes after ten minutes of one core each, about 90 minutes"
	@echo "make bench-pictures    measure and show samples of every sampler, 30 minutes (SPRITES=x.npz, EMOJI=folder)"
	@echo "make bench-filling     compare ways of filling in missing values (ADULT=adult.csv adds Adult)"
	@echo "make bench-anomalies   compare anomaly detectors on tables (needs PyOD)"
	@echo "make bench-cells       compare models of single cells with scVI (CELLS=FILE.npz, VAEKIT_PEERS=its Python)"
	@echo "make bench-families    time an eager step of every recipe beside the hardware limit (ADULT=adult.csv adds Adult)"
	@echo "make bench-ladder      compare the recipe ladder with vae: time of a step, and log p(x) after an hour each"
	@echo "make bench-growth      measure how time and memory grow with rows, columns, samples, latents and points"
	@echo "make bench-large       measure the memory of training on .npy files of up to 20 GB (sparse files: little disk)"
	@echo "make bench-gpu         measure training and scoring on a GPU beside Pythae's loop and the GPU's limit"
	@echo "make bench-frontier-gpu    train and score a hierarchy, and draw samples, on a GPU in 8 minutes (PICTURES=x.npz, OUT=folder)"
	@echo "make bench-startup     measure start-up and compiling"
	@echo "make bench-tables      compare synthetic tables with those of CTGAN, TVAE and a copula (VAEKIT_PEERS names their Python)"
	@echo "make catalogue      update the stored help and lists after a change to recipes or studies"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --no-compile $(PIP_OPTIONS) -c constraints.txt -e ".[dev]"
	@touch $@

# resumes a stopped run, measures a finished one again; exit status 3 means that the data are unavailable
demo: $(READY)
	@if [ -f $(RUN)/run.json ]; then \
	  $(BIN)/vaekit fit --out $(RUN) --resume; \
	else \
	  $(BIN)/vaekit fit fashion-mnist --recipe best --minutes $(MINUTES) --out $(RUN); status=$$?; \
	  if [ $$status -ne 3 ]; then exit $$status; fi; \
	  echo "Fashion-MNIST is unavailable; using digits instead"; \
	  $(BIN)/vaekit fit digits --recipe vae --minutes 0.5 --out $(RUN); \
	fi
	@$(BIN)/vaekit evaluate $(RUN) --samples 100 -n 2000
	@$(BIN)/vaekit report $(RUN)
	@$(BIN)/vaekit explore $(RUN)
	@echo "open $(RUN)/report.html and $(RUN)/explorer.html in a browser"

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check src tests bench docs tools
	$(BIN)/ruff format --check src tests bench docs tools
	$(BIN)/mypy
	@if $(BIOME) --version >/dev/null 2>&1; then \
	  $(BIOME) lint --error-on-warnings src/vaekit/explorer; \
	else \
	  echo "skipped: linting the explorer's JavaScript needs node, and npm's registry for Biome"; \
	fi

$(DOCS): $(READY)
	$(BIN)/pip install --no-compile $(PIP_OPTIONS) -c constraints.txt -e ".[docs]"
	@touch $@

# the pages run the environment's own vaekit, as a reader would
docs: $(DOCS)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sphinx -W --keep-going -q -j auto -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html in a browser"

docs-look: $(READY)
	$(BIN)/python docs/look.py

docs-runs: $(READY)
	$(BIN)/python docs/runs.py

bench: $(READY)
	$(BIN)/python bench/bench.py

bench-time: $(READY)
	$(BIN)/python bench/curve.py

bench-conv: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python bench/conv.py $(if $(COLOUR),--colour $(COLOUR))

bench-learning: $(READY)
	$(BIN)/python bench/ideas.py
	$(BIN)/python bench/learning.py

bench-frontier: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python bench/frontier.py choose
	$(BIN)/python bench/frontier.py measure --minutes 10
	$(BIN)/python bench/frontier.py measure --minutes 60 --wide
	$(BIN)/python bench/frontier.py measure --minutes 10 --grey --samples 1000

bench-frontier-gpu: $(READY)
	$(BIN)/python bench/frontier_gpu.py $(if $(PICTURES),--pictures $(PICTURES)) $(if $(OUT),--out $(OUT))

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

bench-families: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python bench/families.py $(if $(ADULT),--adult $(ADULT))

bench-ladder: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python bench/ladder.py speed
	$(BIN)/python bench/ladder.py steps
	$(BIN)/python bench/ladder.py hour

bench-growth: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python bench/growth.py

bench-large: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python bench/large.py

bench-gpu: $(READY)
	$(BIN)/python bench/gpu.py

bench-disentanglement: $(READY)
	$(BIN)/python bench/disentanglement.py

bench-calibration: $(READY)
	$(BIN)/python bench/calibration.py

bench-tables: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python bench/tables.py

CELLS ?= cells.npz
bench-cells: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python bench/cells.py $(CELLS)

bench-filling: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python bench/filling.py $(ADULT)

bench-bytes: $(READY)
	$(BIN)/python bench/bytes.py $(if $(MNIST),--mnist $(MNIST)) $(if $(ADULT),--adult $(ADULT))

bench-quantised: $(READY)
	$(BIN)/python bench/quantised.py

bench-pictures: $(READY)
	$(BIN)/python bench/pictures.py $(if $(SPRITES),--sprites $(SPRITES)) $(if $(EMOJI),--emoji $(EMOJI))

bench-anomalies: $(READY)
	OMP_NUM_THREADS=2 $(BIN)/python bench/anomalies.py

catalogue: $(READY)
	$(BIN)/python tools/catalogue.py

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tools/fuzz.py --minutes $(FUZZ_MINUTES) --seed $(SEED)

torture: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tools/torture.py --kills $(KILLS) --seed $(SEED)
