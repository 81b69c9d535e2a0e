# Two commands do everything:  make demo   and   make test
# Both build their own environment in .venv first. PYTHON=python3.12 picks another interpreter (3.11 or newer),
# ARGS="--quick --seed 1" goes to the demo or to pytest.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Installed first and pinned: an open range would replace a CPU build by the newest one with all of CUDA.
TORCH := $(shell grep '^torch==' constraints.txt)
READY := $(VENV)/.ready

.PHONY: demo test lint clean

demo: $(READY)
	$(VENV)/bin/rlvr-trl demo $(ARGS)

test: $(READY) lint
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(ARGS)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet $(TORCH)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info
