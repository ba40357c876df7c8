# make demo: the main job on a fresh machine. make test: all tests. Each makes its own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export nnUNet_def_n_proc ?= 2

.PHONY: demo test check bench docs clean

demo: $(VENV)/installed
	$(BIN)/ccdcseg demo

test: $(VENV)/installed
	$(BIN)/python -m pytest

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -W error -c "import compileall, sys; sys.exit(not compileall.compile_dir('src', quiet=1, force=True))"

bench: $(VENV)/installed
	$(BIN)/python benchmarks/loss_overhead.py --json
	$(BIN)/python benchmarks/methods.py --json

docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) demo

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@
