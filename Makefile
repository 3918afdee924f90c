# `make` alone lists what can be made. Every target installs what it needs into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := sim,data,serve,arm,onnx,torchjd,dev
# CLIP's text encoder needs torchvision, which breaks `import lightning` if its build is not torch's: not in .venv.
VENV_TEXT := .venv-text
# openpi-client needs numpy 1: it asks from an environment of its own, as on a robot.
VENV_OPENPI := .venv-openpi
# LeRobot needs Python 3.12; pyenv's is taken where there is one.
PYTHON312 ?= env PYENV_VERSION=3.12 python3.12
VENV_LEROBOT := .venv-lerobot
# More options for pip. PyPI's torch for Linux comes with CUDA (several GB); with the CPU index that pytorch.org names:
#   make install PIP_ARGS='--extra-index-url URL'
PIP_ARGS ?=
# One process per core, each with one thread: threads of processes that share cores wait for each other.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install lint format test test-slow test-slurm test-text test-openpi test-arx test-lerobot test-libero fuzz quickstart quickstart-short showcase results bench clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Create .venv with everything the other targets need

$(VENV)/bin/python $(VENV_TEXT)/bin/python $(VENV_OPENPI)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("$(PYTHON) is Python %d.%d, expected 3.11 or newer; run: make PYTHON=python3.11 $(MAKECMDGOALS)" % v[:2])'
	$(PYTHON) -m venv --clear $(@:/bin/python=)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

$(VENV_TEXT)/.installed: pyproject.toml constraints.txt constraints-text.txt | $(VENV_TEXT)/bin/python
	$(VENV_TEXT)/bin/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt -c constraints-text.txt -e '.[text,dev]' transformers
	@touch $@

$(VENV_OPENPI)/.installed: constraints-openpi.txt | $(VENV_OPENPI)/bin/python
	$(VENV_OPENPI)/bin/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -r $<
	@touch $@

$(VENV_LEROBOT)/.installed: constraints-lerobot.txt
	$(PYTHON312) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check -q --no-deps $(PIP_ARGS) -r $<
	@touch $@

lint: install ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## Mend style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: install ## Run the fast tests (under 10 minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q $(PARALLEL) -m "not slow and not arx and not libero"

test-slow: install ## Run the slow tests: packaging, real training, two processes
	OMP_NUM_THREADS=1 $(BIN)/pytest -q $(PARALLEL) -m "slow and not slurm"

test-slurm: install ## Run jobs on a SLURM of two nodes on this machine (needs root; installs slurm-wlm and munge by apt)
	$(BIN)/python tests/slurm/cluster.py install
	$(BIN)/pytest -q -m slurm tests/slurm

test-text: $(VENV_TEXT)/.installed ## Run the tests of CLIP's text encoder, in an environment of their own
	$(VENV_TEXT)/bin/pytest -q -m text tests/test_text*.py

test-openpi: install $(VENV_OPENPI)/.installed ## Ask our policy server with the unchanged client of openpi
	OPENPI_PYTHON=$(VENV_OPENPI)/bin/python $(BIN)/pytest -q -m openpi tests/test_serving_openpi.py

test-arx: install ## Drive ARX's SDK over a fake CAN bus (needs g++; skipped where there is no wheel of the SDK)
	-$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt -e '.[arx]'
	$(BIN)/pytest -q -m arx tests/arx

test-lerobot: ## Drive arms by LeRobot's own package, in an environment of its own (skipped without Python 3.12)
	@if $(PYTHON312) -c '' 2>/dev/null; then $(MAKE) --no-print-directory $(VENV_LEROBOT)/.installed && \
		PYTHONPATH=tests/support/without_torch $(VENV_LEROBOT)/bin/python -m pytest -q tests/test_lerobot_bridge.py; \
		else echo "skipped: $(PYTHON312) does not run; name a Python 3.12 or newer: make test-lerobot PYTHON312=..."; fi

test-libero: install ## Install LIBERO in an environment of its own and step it (1.4 GB, minutes; not in CI)
	LIBERO_TEST_ENVS=$(CURDIR)/.envs PIP_ARGS='$(PIP_ARGS)' $(BIN)/pytest -q -m libero tests/libero

fuzz: install ## Feed the decoder of the policy server with broken messages for 10 minutes
	end=$$(($$(date +%s) + 600)); while [ $$(date +%s) -lt $$end ]; do \
		UVA_FUZZ_EXAMPLES=5000 $(BIN)/pytest -q -k fuzz tests/test_serving_wire.py tests/test_serving_policy.py || exit 1; done

quickstart: install ## Train one model with five functions on Push-T and show it (under 20 minutes on two cores)
	$(BIN)/uva quickstart --out runs/quickstart

quickstart-short: install ## Run every step of the quickstart, too short to learn anything (for CI)
	$(BIN)/uva quickstart --short true --out runs/quickstart-short

showcase: install ## The quickstart with 7 times the training (up to 2 hours on two cores)
	$(BIN)/uva quickstart --config configs/showcase.yaml --out runs/showcase

results: install ## Train UVA and UVA-action with three seeds each and compare them on Push-T (see docs/results.md)
	$(BIN)/uva ablate --config configs/quickstart.yaml --variants configs/options/action_only.yaml --steps 1200 --starts 0 --keep --out runs/joint_or_action
	$(BIN)/uva eval --suite pusht --ckpt 'UVA=runs/joint_or_action/all/seed-*/checkpoints/last.ckpt,UVA-action=runs/joint_or_action/action_only/seed-*/checkpoints/last.ckpt' --out runs/joint_or_action/eval

bench: install ## Measure the training speed and where the time goes
	$(BIN)/uva fit --config configs/quickstart.yaml --trainer.max_steps 200 --trainer.limit_val_batches 0 --trainer.profiler simple --trainer.logger.name bench

clean: ## Remove the environments, builds and caches; leaves runs/ and demos/
	rm -rf $(VENV) $(VENV_TEXT) $(VENV_OPENPI) $(VENV_LEROBOT) .envs build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
