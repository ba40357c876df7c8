# make demo: the main job on a fresh machine. make test: all tests. Each makes its own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export nnUNet_def_n_proc ?= 2
# Whatever is imported is compiled once, not in each of the processes that commands and tests start.
export PYTHONDONTWRITEBYTECODE :=

# Mutated inputs of each reader of foreign files; seconds after which it stops before (0: never); MiB that it may use.
FUZZ_RUNS ?= 100000
FUZZ_SECONDS ?= 0
FUZZ_MIB ?= 2048
FUZZ_TARGETS ?= nifti nifti_gz dicom segmentation nrrd png archive tables

.PHONY: demo test lowest check bench fuzz docs clean

demo: $(VENV)/installed
	$(BIN)/ccdcseg demo

# A process a core, one thread each, which starts no others where it need not.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 nnUNet_def_n_proc=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

# The tests of the losses with the oldest PyTorch and NumPy that pyproject.toml allows.
lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet pytest pytest-timeout hypothesis pydantic scipy \
	  $(shell sed -n 's/^dependencies = \["\(torch>=[0-9.]*\)", "\(numpy>=[0-9.]*\)"\].*/\1 \2/p' pyproject.toml | sed 's/>=/==/g')
	PYTHONPATH=src OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python -m pytest --noconftest tests/losses

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -W error -c "import compileall, sys; sys.exit(not compileall.compile_dir('src', quiet=1, force=True))"

bench: $(VENV)/installed
	$(BIN)/python benchmarks/loss_overhead.py --json
	$(BIN)/python benchmarks/methods.py --json
	$(BIN)/python benchmarks/prepare.py --json
	$(BIN)/python benchmarks/false_positives.py --json
	$(BIN)/python benchmarks/metrics.py --json

fuzz: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --only-binary atheris -e ".[fuzz]" || { echo "make fuzz needs atheris, \
	which has wheels for Linux on x86-64 only, Python 3.11 to 3.14."; exit 1; }
	mkdir -p fuzz/findings
	for target in $(FUZZ_TARGETS); do echo "$$target"; $(BIN)/python fuzz/readers.py $$target \
	  -runs=$(FUZZ_RUNS) -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=$(FUZZ_MIB) -timeout=10 -max_len=65536 -print_final_stats=1 \
	  -artifact_prefix=fuzz/findings/$$target- -verbosity=0 || exit 1; done

docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) demo

# Modules are compiled when they are first imported: most of what is installed never is, and that takes a minute.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -e ".[dev]"
	touch $@
