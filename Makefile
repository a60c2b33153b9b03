# `make demo` and `make test` set everything up in .venv on their first call.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# CI and benchmarks choose another folder or another config here.
DEMO_ARGS ?=
# Tests run in as many processes as there are cores, up to eight.
TEST_ARGS ?= --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: demo test lint clean

demo: $(VENV)/.ready
	$(BIN)/fercache demo $(DEMO_ARGS)

test: $(VENV)/.ready
	$(BIN)/python -m pytest $(TEST_ARGS) -m "not slow and not browser and not slurm"

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/.ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable ".[test,openvino]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
