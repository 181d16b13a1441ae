# Everything runs in the active virtual or conda environment; where none is active, in .venv, which is made first.

PYTHON ?= python3
ENVIRONMENT = $${VIRTUAL_ENV:-$${CONDA_PREFIX:-.venv}}
PY = "$(ENVIRONMENT)/bin/python"

.POSIX:
.SILENT:
.DELETE_ON_ERROR:
.PHONY: help venv demo test lint clean

help: ## show this list
	sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

venv: ## install what is needed, if setup.py or the kernel has changed since
	stamp="$(ENVIRONMENT)/.stmask-installed"; \
	if [ -n "$$(find "$$stamp" -newer setup.py -newer layers/_deform_im2col.pyx -newer utils/_eval_kernels.pyx 2>/dev/null)" ]; then exit 0; fi; \
	python=$(PYTHON); \
	if [ -n "$${VIRTUAL_ENV:-$$CONDA_PREFIX}" ]; then python=$(PY); fi; \
	if ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "STMask needs Python 3.11 or newer, and $$python is not: activate another environment, or leave it and" \
			"run make PYTHON=python3.11" >&2; exit 1; \
	fi; \
	echo "Installing into $(ENVIRONMENT); the first time this takes some minutes"; \
	if [ -z "$${VIRTUAL_ENV:-$$CONDA_PREFIX}" ]; then "$$python" -m venv .venv || exit 1; fi; \
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]' && touch "$$stamp"

demo: venv ## draw the demo data set, track its objects, write results and overlay videos
	$(PY) -m data.synthetic --root data/ShapesVIS
	$(PY) eval.py --config=STMask_demo_config --trained_model=random --mask_det_file=results/demo/results.json \
		--score_threshold=0 --set tracking.score_threshold=0 --top_k=5 --display --resume

test: venv ## run the tests
	$(PY) -m pytest

lint: venv ## check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean: ## remove caches and build products; data, results and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache layers/*.so layers/*.c utils/*.so utils/*.c
	rm -f .venv/.stmask-installed
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
