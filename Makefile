# `make demo` and `make test` set everything up in .venv on their first call.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# CI and benchmarks choose another folder or another config here.
DEMO_ARGS ?=
GPU_TEST_ARGS ?=
# Tests run in as many processes as there are cores, up to eight.
TEST_ARGS ?= --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: demo test test-gpu lint docs clean

demo: $(VENV)/.ready
	$(BIN)/fercache demo $(DEMO_ARGS)

test: $(VENV)/.ready
	$(BIN)/python -m pytest $(TEST_ARGS) -m "not slow and not browser and not slurm and not gpu"

# Under four minutes on one GPU; without one every test is skipped, and says so.
test-gpu: $(VENV)/.ready
	$(BIN)/python -m pytest -m gpu --durations=10 $(GPU_TEST_ARGS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site in site/; a warning is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/python -m pip install --editable ".[docs]"
	touch $@

$(VENV)/.ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable ".[test,openvino]"
	touch $@

clean:
	rm -rf $(VENV) build site *.egg-info
