# Everything lives in .venv; the only needs are Python 3.11 or later and make.
PYTHON ?= python3
PIP_FLAGS ?=
SEED ?= 0
BIN := .venv/bin
DEMO := demo/seed$(SEED)
READY := .venv/.ready
READY_DOCS := .venv/.ready-docs
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

.PHONY: setup format check test test-slow demo bench docs release clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[dev]'
	touch $@

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

# A file's tests run in one process, several files at a time. Hundreds of tests start processes of their own, which
# would each compile the package anew where the environment forbids to keep bytecode.
test test-slow: export PYTHONDONTWRITEBYTECODE =
test test-slow: export OMP_NUM_THREADS = 1
test: $(READY)
	$(BIN)/pytest -n 3 --dist loadfile -m "not slow"

test-slow: $(READY)
	$(BIN)/pytest

# Collects Two-Room, trains on the CPU, probes, shows the impossible, plans on episodes of another seed, looks inside,
# and names report.html: minutes on two cores.
demo: $(READY)
	rm -rf $(DEMO)
	$(BIN)/lewm collect two_room --out $(DEMO)/data --episodes 500 --image-size 32 --workers 2 --seed $(SEED)
	$(BIN)/lewm collect two_room --out $(DEMO)/triples.h5 --triples 100 --image-size 32 --seed 1000$(SEED)
	$(BIN)/lewm fit --config demo --name seed$(SEED) --trainer.default_root_dir $(DEMO)/runs --data.path $(DEMO)/data \
	  --seed_everything $(SEED) --model.seed $(SEED) --data.seed $(SEED)
	$(BIN)/lewm probe $(DEMO)/runs/seed$(SEED) --data $(DEMO)/data --max_frames 8000 --seed $(SEED)
	$(BIN)/lewm surprise $(DEMO)/runs/seed$(SEED) --data $(DEMO)/triples.h5 --seed $(SEED)
	$(BIN)/lewm collect two_room --out $(DEMO)/goals --episodes 150 --image-size 32 --workers 2 --seed 2000$(SEED)
	$(BIN)/lewm plan $(DEMO)/runs/seed$(SEED) --env two_room --data $(DEMO)/goals --split all --protocol moderate \
	  --pairs 30 --seeds 1 --seed $(SEED)
	$(BIN)/lewm look $(DEMO)/runs/seed$(SEED) --data $(DEMO)/data --seed $(SEED)
	$(BIN)/lewm report $(DEMO)/runs/seed$(SEED)

# make bench DATA=DIR, a folder with example files that stable-worldmodel wrote: everything that is measured beside it,
# in an environment of its own in .peer.
bench: $(READY)
	PIP_FLAGS='$(PIP_FLAGS)' $(BIN)/python benchmarks/peer.py
	$(BIN)/python benchmarks/loader.py $(DATA)/pusht_224.h5
	$(BIN)/python benchmarks/opening.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/step.py --losses 100
	$(BIN)/python benchmarks/sigreg.py
	$(BIN)/python benchmarks/plan.py
	$(BIN)/python benchmarks/plan.py --episodes 50 --iterations 1
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/example_files.py $(DATA)
	$(BIN)/python benchmarks/probe.py

# The site of docs/, in site/. Its pages open as files; the search needs a server: python3 -m http.server -d site
# (With --quiet mkdocs would not count its warnings, and --strict let them pass.)
docs: $(READY_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo site/index.html

$(READY_DOCS): $(READY)
	$(INSTALL) -e '.[docs]'
	touch $@

# A source archive, and the wheel built from it, in dist/; both are then installed and used away from the checkout.
release: $(READY)
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	OMP_NUM_THREADS=1 PIP_FLAGS='$(PIP_FLAGS)' $(BIN)/python tests/release.py dist

clean:
	rm -rf build dist site *.egg-info demo
