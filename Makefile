# Everything runs in the active virtual or conda environment; where none is active, in .venv, which is made first.

PYTHON ?= python3
ENVIRONMENT = $${VIRTUAL_ENV:-$${CONDA_PREFIX:-.venv}}
PY = "$(ENVIRONMENT)/bin/python"

.POSIX:
.SILENT:
.DELETE_ON_ERROR:
.PHONY: help venv demo train-demo pictures test lint clean

help: ## show this list
	sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile

venv: ## install what is needed, if setup.py or a kernel has changed since
	stamp="$(ENVIRONMENT)/.stmask-installed"; \
	if [ -n "$$(find "$$stamp" -newer setup.py -newer layers/cpu/_deform_im2col.pyx -newer layers/cpu/_winograd.pyx \
		-newer ytvis/_mask_kernels.pyx 2>/dev/null)" ]; then exit 0; fi; \
	python=$(PYTHON); \
	if [ -n "$${VIRTUAL_ENV:-$$CONDA_PREFIX}" ]; then python=$(PY); fi; \
	if ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "STMask needs Python 3.11 or newer, and $$python is not: activate another environment, or leave it and" \
			"run make PYTHON=python3.11" >&2; exit 1; \
	fi; \
	echo "Installing into $(ENVIRONMENT); the first time this takes some minutes"; \
	if [ -z "$${VIRTUAL_ENV:-$$CONDA_PREFIX}" ]; then "$$python" -m venv .venv || exit 1; fi; \
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]' && touch "$$stamp"

demo: venv ## draw the demo data set, track its objects, score them, write results, a report and overlay videos
	$(PY) -m data.synthetic --root data/ShapesVIS
	$(PY) eval.py --trained_model=weights/STMask_demo.pth --mask_det_file=results/demo/results.json \
		--report=results/demo/report --display --save_details --resume

# One thread a process: two of them get more out of two cores than one with two threads. Fresh videos teach more than the
# same ones again, and are soon drawn.
TRAINING_SET = data/ShapesVIS_1000
FRESH_SETS = data/ShapesVIS_1000_seed
TRAIN = train.py --config=STMask_demo_config --keep_latest \
	--ann_file=$(TRAINING_SET)/annotations/train.json --image_root=$(TRAINING_SET)/train/JPEGImages --save_interval=200 \
	--device=cpu --num_workers=1
ONE = OMP_NUM_THREADS=1 $(PY) $(TRAIN)
TWO = OMP_NUM_THREADS=1 $(PY) -m torch.distributed.run --nproc_per_node=2 $(TRAIN)
FAR = --set train.freeze_batch_norm=true --set train.semantic_loss=0 --set train.contrastive=true \
	--set train.max_frame_distance=20 --set train.only=backbone,fpn,proto_net,prediction_layers
FRESH_1 = --ann_file=$(FRESH_SETS)1/annotations/train.json --image_root=$(FRESH_SETS)1/train/JPEGImages
FRESH_3 = --ann_file=$(FRESH_SETS)3/annotations/train.json --image_root=$(FRESH_SETS)3/train/JPEGImages
FUSION = --set train.freeze_batch_norm=true --set train.semantic_loss=0 --set train.only=TemporalNet
train-demo: venv ## train the demo's network from nothing, which takes hours: crops, then clips, small and at full size
	$(PY) -m data.synthetic --root data/ShapesVIS
	$(PY) -m data.synthetic --root $(TRAINING_SET) --train_videos 1000 --valid_videos 1
	$(PY) -m data.synthetic --root $(FRESH_SETS)1 --train_videos 1000 --valid_videos 1 --seed 1
	$(PY) -m data.synthetic --root $(FRESH_SETS)3 --train_videos 1000 --valid_videos 1 --seed 3
	$(TWO) --task=crops --batch_size=16 --max_iter=2600 --lr=3e-3 --set train.warmup_iterations=400 \
		--save_folder=results/train_demo/crops
	$(TWO) --batch_size=4 --max_iter=1500 --lr=1.2e-3 --set input.size_hw=128,224 \
		--set train.pretrained=results/train_demo/crops/latest --save_folder=results/train_demo/small
	$(TWO) --batch_size=4 --max_iter=2600 --lr=1e-3 --set train.warmup_iterations=30 \
		--set train.pretrained=results/train_demo/small/latest --save_folder=results/train_demo/full
	$(ONE) --batch_size=2 --max_iter=7000 --lr=5e-4 --seed=1 \
		--set train.pretrained=results/train_demo/full/latest --save_folder=results/train_demo/long
	$(ONE) --batch_size=2 --max_iter=4500 --lr=3e-4 --seed=2 --set train.freeze_batch_norm=true \
		--set train.pretrained=results/train_demo/long/latest --save_folder=results/train_demo/frozen
	$(ONE) --batch_size=2 --max_iter=8500 --lr=5e-4 --seed=3 $(FAR) \
		--set train.pretrained=results/train_demo/frozen/latest --save_folder=results/train_demo/far
	$(TWO) --batch_size=2 --max_iter=11000 --lr=5e-4 --seed=5 $(FAR) \
		--set train.pretrained=results/train_demo/far/latest --save_folder=results/train_demo/again
	$(TWO) --batch_size=4 --max_iter=1500 --lr=5e-4 --seed=4 $(FUSION) \
		--set train.pretrained=results/train_demo/again/latest --save_folder=results/train_demo/fusion
	$(TWO) --batch_size=8 --max_iter=2100 --lr=7e-4 --seed=6 $(FAR) \
		--set train.pretrained=results/train_demo/fusion/latest --save_folder=results/train_demo/many
	$(TWO) --batch_size=4 --max_iter=1000 --lr=5e-4 --seed=9 $(FUSION) \
		--set train.pretrained=results/train_demo/many/latest --save_folder=results/train_demo/shown
	$(TWO) --batch_size=8 --max_iter=2100 --lr=7e-4 --seed=10 $(FAR) $(FRESH_1) \
		--set train.pretrained=results/train_demo/shown/latest --save_folder=results/train_demo/fresh
	$(TWO) --batch_size=4 --max_iter=1000 --lr=5e-4 --seed=11 $(FUSION) $(FRESH_1) \
		--set train.pretrained=results/train_demo/fresh/latest --save_folder=results/train_demo/fused
	$(PY) -m utils.checkpoint results/train_demo/fused/latest results/train_demo/STMask_demo_fused.pth --half
	$(TWO) --batch_size=8 --max_iter=2100 --lr=7e-4 --seed=12 $(FAR) $(FRESH_3) \
		--set train.pretrained=results/train_demo/STMask_demo_fused.pth --save_folder=results/train_demo/newer
	$(TWO) --batch_size=4 --max_iter=1000 --lr=5e-4 --seed=13 $(FUSION) $(FRESH_3) \
		--set train.pretrained=results/train_demo/newer/latest --save_folder=results/train_demo/joined
	$(PY) -m utils.checkpoint results/train_demo/joined/latest results/train_demo/STMask_demo.pth --half
	$(PY) eval.py --trained_model=results/train_demo/STMask_demo.pth --mask_det_file=results/train_demo/results.json

SHOWN = data/ShapesVIS/valid/JPEGImages/valid_00003
FOLLOWED = data/ShapesVIS/valid/JPEGImages/valid_00017
pictures: venv ## draw pictures of the docs again, with the demo's weights
	$(PY) -m data.synthetic --root data/ShapesVIS
	$(PY) eval.py --trained_model=weights/STMask_demo.pth --images=$(SHOWN):docs/images --show_frame=12 \
		--show=prototypes,anchors,calibration,shift
	$(PY) -m tools.larger_frames $(FOLLOWED) results/larger_frames
	$(PY) eval.py --trained_model=weights/STMask_demo.pth --images=results/larger_frames:results/pictures --display_trails \
		--score_threshold=0.3
	cp results/pictures/00011.png docs/images/overlay.png
	$(PY) -m ytvis browse data/ShapesVIS/annotations/valid.json --images data/ShapesVIS/valid/JPEGImages \
		--videos 3,4,7 --columns 4 --output docs/images/browse.jpg

test: venv ## run the tests
	$(PY) -m pytest

lint: venv ## check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean: ## remove caches and build products; data, results and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache layers/cpu/*.so layers/cpu/*.c ytvis/*.so ytvis/*.c
	rm -f "$(ENVIRONMENT)/.stmask-installed"
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
