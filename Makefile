# All targets use the active virtual or conda environment. If none is active, they create and use .venv.

PYTHON ?= python3
EXTRAS ?= dev,crosscheck
ENVIRONMENT = $${VIRTUAL_ENV:-$${CONDA_PREFIX:-.venv}}
PY = "$(ENVIRONMENT)/bin/python"

.POSIX:
.SILENT:
.DELETE_ON_ERROR:
.PHONY: help venv demo train-demo pictures test lint clean

help: ## show this list
	sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile

venv: ## install STMask and its requirements, if setup.py, pyproject.toml or a kernel has changed since
	stamp="$(ENVIRONMENT)/.stmask-installed"; \
	if [ -n "$$(find "$$stamp" -newer setup.py -newer pyproject.toml -newer layers/cpu/_deform_im2col.pyx \
		-newer layers/cpu/_winograd.pyx -newer ytvis/_mask_kernels.pyx 2>/dev/null)" ]; then exit 0; fi; \
	python=$(PYTHON); \
	if [ -n "$${VIRTUAL_ENV:-$$CONDA_PREFIX}" ]; then python=$(PY); fi; \
	if ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "STMask needs Python 3.11 or newer, and $$python is older: activate another environment, or leave it and" \
			"run make PYTHON=python3.11" >&2; exit 1; \
	fi; \
	echo "Installing into $(ENVIRONMENT); the first time this takes some minutes"; \
	if [ -z "$${VIRTUAL_ENV:-$$CONDA_PREFIX}" ]; then "$$python" -m venv .venv || exit 1; fi; \
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]' && touch "$$stamp"

demo: venv ## draw the demo data set, track its objects, and write results, scores, a report and overlay videos
	$(PY) -m data.synthetic --root data/ShapesVIS
	$(PY) eval.py --trained_model=weights/STMask_demo.pth --mask_det_file=results/demo/results.json \
		--report=results/demo/report --display --save_details --resume

train-demo: venv ## train the demo's network from scratch in stages, which takes hours; resumes where it stopped
	$(PY) -m tools.recipe recipes/demo.toml

SHOWN = data/ShapesVIS/valid/JPEGImages/valid_00003
FOLLOWED = data/ShapesVIS/valid/JPEGImages/valid_00017
pictures: venv ## draw the pictures of docs/ again, with the demo's weights
	$(PY) -m data.synthetic --root data/ShapesVIS
	$(PY) eval.py --trained_model=weights/STMask_demo.pth --images=$(SHOWN):docs/images --show_frame=12 \
		--show=prototypes,anchors,calibration,shift
	$(PY) -m tools.larger_frames $(FOLLOWED) results/larger_frames
	$(PY) eval.py --trained_model=weights/STMask_demo.pth --images=results/larger_frames:results/pictures --display_trails
	cp results/pictures/00011.png docs/images/overlay.png
	$(PY) -m ytvis browse data/ShapesVIS/annotations/valid.json --images data/ShapesVIS/valid/JPEGImages \
		--videos 3,4,7 --columns 4 --output docs/images/browse.jpg

test: venv ## run the tests, two at a time
	$(PY) -m pytest -n 2 --dist worksteal

lint: venv ## check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean: ## remove caches and build products; data, results and .venv stay
	rm -rf build dist *.egg-info ytvis/*.egg-info .pytest_cache .ruff_cache layers/cpu/*.so layers/cpu/*.c ytvis/*.so ytvis/*.c
	rm -f "$(ENVIRONMENT)/.stmask-installed"
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
