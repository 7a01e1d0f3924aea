# `make help` lists what there is. Everything runs in .venv, made here when it is missing or old.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

# The cluster to use (current, kind, k3d, local), and what CLUSTER=current needs.
export CLUSTER REGISTRY S3_ENDPOINT S3_ACCESS_KEY S3_SECRET_KEY

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= python3
SOURCES := operator/src operator/mypy_plugin.py trainer-image/src localcluster tests examples bench

.PHONY: help
help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

.PHONY: demo
demo: $(READY) ## from nothing to two trained adapters
	@$(BIN)/python -m localcluster demo

.PHONY: up
up: $(READY) ## a cluster, S3 storage and an image registry
	@$(BIN)/python -m localcluster up

.PHONY: images
images: $(READY) ## build both images, push them, remove what older ones left
	@$(BIN)/python -m localcluster images

.PHONY: status
status: $(READY) ## what runs
	@$(BIN)/python -m localcluster status

.PHONY: down
down: $(READY) ## remove everything that was started; what was built is kept
	@$(BIN)/python -m localcluster down

.PHONY: clean
clean: $(READY) ## remove what was built too: programs, base images and layers
	@$(BIN)/python -m localcluster clean

.PHONY: test
test: lint test-unit test-api test-sharding test-e2e ## all checks

.PHONY: test-unit
test-unit: $(READY) ## the pure layers
	@$(BIN)/python -m pytest -q -m "not api and not e2e and not trainer"

.PHONY: test-api
test-api: $(READY) ## against a real API server
	@$(BIN)/python -m pytest -q -m api --numprocesses 2 --dist loadfile

# The local image has Debian's PyTorch, which cannot spread a model over CPUs.
TORCH = $(shell sed -n 's/^ARG TORCH=//p' trainer-image/Dockerfile)
NEWER_TORCH = bash localcluster/uv.sh $(VENV) run --no-project --python $(BIN)/python \
  --with-requirements trainer-image/requirements.txt --with-requirements tests/requirements.txt \
  --with $(TORCH)

.PHONY: test-sharding
test-sharding: $(READY) ## a model spread over processes, with the PyTorch that GPUs get
	@OMP_NUM_THREADS=1 $(NEWER_TORCH) \
	  python -m pytest -q -m sharding --numprocesses 2 --dist loadfile

.PHONY: test-e2e
test-e2e: $(READY) ## against real pods
	@$(BIN)/python -m pytest -q -m e2e

.PHONY: bench-trainer
bench-trainer: $(READY) ## the trainer against plain TRL, its uploads against boto3
	@$(BIN)/python -m bench.trainer
	@$(BIN)/python -m bench.upload

.PHONY: bench-cli
bench-cli: $(READY) ## the command line against freesolo-flash: time, and 10,000 configs
	@$(BIN)/python -m bench.cli
	@$(BIN)/python -m bench.differential

.PHONY: lint
lint: $(READY) ## format, lint, types, layers
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory check-generated

.PHONY: format
format: $(READY) ## format the code
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

# Files that are printed from the models, each beside the command that prints it.
GENERATED := crds/flashruns.yaml charts/flashrun/files/flashruns.yaml charts/flashrun/values.schema.json
print-crds/flashruns.yaml = $(BIN)/python -m flashrun.api.generate.crd
print-charts/flashrun/files/flashruns.yaml = $(BIN)/python -m flashrun.api.generate.crd
print-charts/flashrun/values.schema.json = $(BIN)/python -m flashrun.api.generate.chart_values

.PHONY: crd
crd: $(READY) ## print the CRD and the chart's schema from the models again
	@$(foreach file,$(GENERATED),$(print-$(file)) > $(file);)

.PHONY: check-generated
check-generated: $(READY) ## whether they are what the models say
	@$(foreach file,$(GENERATED),$(print-$(file)) | diff -u $(file) - || { echo "stopped: $(file) is old; run make crd"; exit 1; };)

.PHONY: pictures
pictures: $(READY) ## render the pictures of the docs again; needs graphviz
	@$(BIN)/python docs/images/pictures.py

# Hashed, for Python 3.11 to 3.13, without addresses of any index.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml

.PHONY: lock
lock: $(READY) ## lock the dependencies again, keeping what still fits
	@$(COMPILE) --extra operator --group build --output-file operator/requirements.txt
	@$(COMPILE) --extra operator --group build --group dev --output-file tests/requirements.txt
	@PATH=$(CURDIR)/$(BIN):$$PATH trainer-image/lock.sh

# The development environment: locked packages, then this project, editable.
$(READY): tests/requirements.txt pyproject.toml
	@printf 'install the development environment into %s … ' $(VENV)
	@began=$$SECONDS; log=$$(mktemp); \
	  { bash localcluster/environment.sh $(VENV) $(PYTHON) >"$$log" 2>&1 && rm "$$log"; } \
	  || { tail -n 5 "$$log"; echo "stopped: the environment was not installed (all of it: $$log)"; exit 1; }; \
	  echo "ok $$((SECONDS - began)) s"
	@touch $@
