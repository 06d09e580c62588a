# Each target sets up what it needs on a fresh machine: Python 3.11 or newer with venv and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock

.PHONY: demo test test-all bench docs lint lock clean

demo: $(VENV)/.core ## agents, a learned world and an encoder, a generative model: tables, reports, TensorBoard
	$(BIN)/mpagents run runs/quickstart.yaml
	$(BIN)/mpagents run runs/quickstart-frames.yaml
	$(BIN)/mpagents fit vae digits --set latent=8 --set head=bernoulli --steps 1000

test: $(VENV)/.dev ## everything quick
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: $(VENV)/.dev ## with slow learning, cluster and fault tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.dev ## style, types, examples in docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --doctest-modules mpagents envs generative

bench: $(VENV)/.bench ## side by side with the peers
	$(BIN)/python benchmarks/tabular.py
	$(BIN)/python benchmarks/runner.py
	$(BIN)/python benchmarks/deep.py
	$(BIN)/python benchmarks/generative.py

docs: $(VENV)/.docs ## the site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml requirements.lock | $(BIN)/python
	@echo "installing into $(VENV) (once; a minute or two)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev $(VENV)/.bench $(VENV)/.docs: $(VENV)/.%: pyproject.toml requirements.lock $(VENV)/.core
	$(PIP) --editable ".[$*]"
	@touch $@

lock: ## exact versions of a fresh installation of the newest allowed packages
	rm -rf .lock-venv && $(PYTHON) -m venv .lock-venv
	.lock-venv/bin/python -m pip install --quiet "torch==2.13.0" ".[dev,bench,docs]"
	(echo "# Exact versions, made by 'make lock'; used as constraints by the Makefile."; \
	 .lock-venv/bin/python -m pip freeze --exclude mpagents | sed 's/+cpu$$//') > requirements.lock
	rm -rf .lock-venv

clean:
	rm -rf $(VENV) dist site .pytest_cache .mypy_cache .ruff_cache
