# Everything is put into .venv and demo-out, and `make clean` removes both. Nothing else on the machine is touched.
# PYTHON=/path/to/python3.12 chooses the interpreter; JOBS=4 the processes that run the tests.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet
PINNED := -c constraints/cpu.txt -c constraints/dev.txt
JOBS ?= 2
# The first of these that is Python 3.11 or newer and can make a virtual environment.
PYTHON ?= python3 python3.11 python3.12 python3.13 python3.14

export REASONFLUX_PRM_CACHE ?= $(CURDIR)/$(VENV)/cache
export HF_HOME ?= $(CURDIR)/$(VENV)/cache/huggingface
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test slow lint types docs bench lock clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    install the package and score, rank and show sample traces in demo-out/'
	@echo 'make test    the tests; make slow adds the slow ones (the embedded PRM, a browser)'
	@echo 'make lint    ruff;  make types   mypy;  make docs   the CLI reference, code blocks, links'
	@echo 'make bench   speed of scoring on this machine'
	@echo 'make clean   remove .venv, demo-out and caches'

demo: $(VENV)/core
	$(VENV)/bin/reasonflux-prm demo -o demo-out

test: $(VENV)/dev
	$(PY) -m pytest -n $(JOBS)

slow: $(VENV)/dev
	$(VENV)/bin/reasonflux-prm models fetch embedded || echo 'tests that need the embedded PRM are skipped'
	$(PY) -m pytest -n $(JOBS) --slow -m slow

lint: $(VENV)/dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/dev
	$(PY) -m mypy

docs: $(VENV)/dev
	$(PY) -m reasonflux_prm.cli.reference >docs/cli.md
	$(PY) -m pytest tests/test_docs.py

bench: $(VENV)/dev
	$(PY) -m benchmarks.scoring --parts buckets append

# Writes down what is installed now, as what the tests are run against from here on.
lock: $(VENV)/dev
	$(PY) -m pip freeze --all --exclude-editable | grep -vE '^(torch|pip)==' >constraints/dev.txt

clean:
	rm -rf $(VENV) demo-out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# --- installing ------------------------------------------------------------------------------------------------------
# Two stamps: what the commands need, and on top of it what the tests and checks need.

$(PY):
	@for python in $(PYTHON); do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  if $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$python -m venv $(VENV)"; $$python -m venv $(VENV); exit; \
	  fi; \
	  lacking=$$($$python -c 'import sys; print("python3.%d-venv" % sys.version_info[1])'); \
	done; \
	if [ -n "$$lacking" ]; then \
	  echo "error: Python is here, but not its venv module; on Debian and Ubuntu: apt-get install $$lacking" >&2; \
	else \
	  echo 'error: no Python 3.11 or newer as any of: $(PYTHON); name one: make PYTHON=/path/to/python3.12' >&2; \
	fi; exit 1

$(VENV)/core: pyproject.toml constraints/cpu.txt constraints/dev.txt | $(PY)
	@echo 'installing the package and torch into $(VENV): a minute or two, five where pip has torch for GPUs only'
	@$(PIP) $(PINNED) -e .
	@touch $@

$(VENV)/dev: $(VENV)/core
	@echo 'installing what the tests and checks need into $(VENV): a minute or two'
	@$(PIP) $(PINNED) -e '.[dev]'
	@touch $@
