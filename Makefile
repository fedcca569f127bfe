# What a contributor does; `make help` lists it.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA := .runstream-data
WEB := producers/web
RUNSTREAM := $(BIN)/runstream --data-dir $(DATA)
IN_CONTAINERS := $(BIN)/runstream --data-dir $(DATA)-containers
# What the demo's tasks see of this machine beside the system: the tools of this clone, and the Python they run on.
DEMO_PLACES = $(CURDIR)/$(VENV),$(shell $(BIN)/python -c 'import sys; print(sys.base_prefix)')
DEMO_VARIABLES := PIP_*,UV_*,*_proxy,*_PROXY,SSL_CERT_*,*_CA_BUNDLE

IMAGE_BASE ?= debian:bookworm-slim
IMAGE_NETWORK ?= default
IMAGE_PACKAGES := python3,python3-venv,ca-certificates,git,openssh-client,binutils
# What the images' Debian 12 takes: glibc 2.36.
WHEEL_PLATFORMS := $(foreach tag,manylinux1 manylinux2010 manylinux2014 \
  $(foreach glibc,5 12 17 24 26 27 28 31 34 35,manylinux_2_$(glibc)),$(tag)_$(shell uname -m)) any

.PHONY: help setup demo demo-containers serve stop test test-again check coverage chaos retention fuzz openapi smoke images image-base test-images bench bench-page docs web web-check screenshots lock clean

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 17

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Runstream needs Python 3.11 or later; name one with PYTHON=") if sys.version_info < (3, 11) else None'
	@echo 'installing into $(VENV) (about a minute)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

setup: $(STAMP) ## make .venv with everything in it; .venv/bin/runstream is the command

demo: setup ## run this project's own pipeline, from publishing to its result
	@RUNSTREAM_EXECUTOR_SANDBOX_READONLY=$(DEMO_PLACES) RUNSTREAM_EXECUTOR_PASS_ENVIRONMENT='$(DEMO_VARIABLES)' \
	  $(RUNSTREAM) serve --detach
	@echo
	@$(RUNSTREAM) run create --config .runstream/config.yml --repo . --env RUNSTREAM_DEMO_VENV=$(CURDIR)/$(VENV) --follow
	@printf '\n%s\n' 'The service goes on in the background (make stop ends it). Look around:'
	@printf '  %s\n' '$(RUNSTREAM) run list' '$(RUNSTREAM) log get latest install --step 3' \
	  '$(RUNSTREAM) events tail --from start' '$(RUNSTREAM) fsck' '$(RUNSTREAM) doctor'
	@printf '\n%s\n  ' 'Or look at this run in a browser (the link works once, for five minutes; runstream page makes another one):'
	@$(RUNSTREAM) page latest

demo-containers: setup ## run a pipeline in containers: a service, a cache, a workspace; needs Docker or Podman
	@settings=$$($(BIN)/python docker/demo_engine.py) && eval "$$settings" && $(IN_CONTAINERS) serve --detach
	@demo="DEMO=$$(date +%s)"; for cache in miss hit; do \
	  printf '\n%s\n' "With a cache $$cache:"; \
	  $(IN_CONTAINERS) run create --config .runstream/containers.yml --group /project/containers/branch/demo \
	    --env "$$demo" --follow || exit; \
	done
	@printf '\n%s\n' 'What the service wrote:'
	@$(IN_CONTAINERS) log get latest service --service 1
	@printf '\n%s\n' 'Runstream goes on in the background (make stop ends it). Look around:'
	@printf '  %s\n' '$(IN_CONTAINERS) executor list' '$(IN_CONTAINERS) log get latest packages --setup' \
	  '$(IN_CONTAINERS) cache list' '$(IN_CONTAINERS) run list'

serve: setup ## run everything on this machine, in .runstream-data
	$(RUNSTREAM) serve

stop: setup ## stop the services that the demos left running
	@for data in $(wildcard $(DATA)-containers) $(DATA); do $(BIN)/runstream --data-dir $$data stop; done

test: setup ## run the test suite
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'not again and not images'

test-again: setup ## run the long tests of archives and lost logs once more, with S3
	$(BIN)/python -m pytest -n auto --dist worksteal -m again

check: setup ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

retention: setup ## remove most of 10,000 runs and restarts while they come in, the cleaner killed 20 times; nightly
	RUNSTREAM_TEST_RUNS=10000 RUNSTREAM_TEST_KILLS=20 $(BIN)/python -m pytest -q -rP --show-capture=stdout \
	  tests/retention/test_kills.py tests/retention/test_interleavings.py

fuzz: setup ## give hostile snapshots to the reader for five minutes; nightly
	RUNSTREAM_FUZZ_SECONDS=300 $(BIN)/python -m pytest -q tests/snapshots/test_fuzzing.py

chaos: setup ## kill imports, rebuilds, the datamanager, maintenance by -9 at 50 moments each, NATS nodes 30 times; nightly
	RUNSTREAM_TEST_KILLS=50 $(BIN)/python -m pytest -q -rP -m chaos --show-capture=stdout

coverage: setup ## every branch of the domain is tested
	$(BIN)/python -m pytest -q -n auto tests/domain --cov --cov-fail-under=100

openapi: setup ## send 5,000 requests made of the API's description to a service, and check each answer
	RUNSTREAM_TEST_OPENAPI_CASES=5000 $(BIN)/python -m pytest -q tests/hostile/test_openapi.py

smoke: setup ## build the wheel and try it in an empty environment
	rm -rf dist && $(BIN)/python -m build --wheel --no-isolation --outdir dist . >/dev/null
	rm -rf build/smoke && $(PYTHON) -m venv build/smoke
	build/smoke/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --require-hashes -r requirements.txt
	build/smoke/bin/python -m pip install --quiet --disable-pip-version-check --no-deps dist/*.whl
	cd build/smoke && bin/runstream --version && bin/runstream --help >/dev/null
	# Every file of the page is in the wheel.
	diff -r producers/runstream/gateway/page "$$(build/smoke/bin/python -c 'from importlib.resources import files; print(files("runstream.gateway") / "page")')"

images: setup ## build the images runstream and runstream-servers with docker; IMAGE_BASE names the image they start from
	rm -rf build/images/wheels && mkdir -p build/images/wheels
	$(BIN)/python docker/requirements.py >build/images/requirements.txt
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
	  --python-version 3.11 $(WHEEL_PLATFORMS:%=--platform %) -d build/images/wheels -r build/images/requirements.txt
	$(BIN)/python -m build --wheel --no-isolation --outdir build/images/wheels . >/dev/null
	DOCKER_BUILDKIT=0 docker build -q --network $(IMAGE_NETWORK) --build-arg BASE=$(IMAGE_BASE) -f docker/Dockerfile \
	  --target servers -t runstream-servers .
	DOCKER_BUILDKIT=0 docker build -q --network $(IMAGE_NETWORK) --build-arg BASE=$(IMAGE_BASE) -f docker/Dockerfile \
	  -t runstream .

build/images/base.tar:
	mkdir -p build/images && rm -rf build/images/base
	debootstrap --variant=minbase --include=$(IMAGE_PACKAGES) bookworm build/images/base >build/images/base.log \
	  || { tail -n 5 build/images/base.log; exit 1; }
	tar -C build/images/base -c . -f build/images/base.tar.new && rm -rf build/images/base
	mv build/images/base.tar.new build/images/base.tar

image-base: build/images/base.tar ## make the root file system that CI builds the images from, with debootstrap; needs root

test-images: setup build/images/base.tar ## build the images, run everything in one container, then compose.yml, and kill each part
	$(BIN)/python -m pytest -q -rP --show-capture=stdout -m images tests/images

bench: setup ## measure: appends, projection, runs, latency, memory, snapshots
	$(BIN)/python -m benchmarks

bench-page: setup ## measure the page: a log of 1,000,000 lines, a run of 2,000 tasks, eight tabs; needs chromium
	$(BIN)/python -m benchmarks.page

docs: setup ## make what is generated again, and check the documents' snippets
	$(BIN)/python -m runstream.json_schemas
	$(BIN)/python -m tests.docs.cli_reference
	$(BIN)/python -m tests.docs.python_reference
	$(BIN)/python -m tests.docs.settings_reference
	$(BIN)/runstream config schema > docs/formats/run-config.schema.json
	$(BIN)/python -m pytest -q tests/docs

$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json
	cd $(WEB) && npm ci --ignore-scripts --no-audit --no-fund && touch node_modules/.package-lock.json

web: setup $(WEB)/node_modules/.package-lock.json ## build the page from producers/web; needs Node 20 or later
	$(BIN)/python -m tests.page.api_types
	$(BIN)/python -m tests.page.histories
	cd $(WEB) && node build.mjs

web-check: $(WEB)/node_modules/.package-lock.json ## types and unit tests of the page, and that the committed files are those of its sources
	cd $(WEB) && node node_modules/typescript/bin/tsc --noEmit && node test.mjs && node build.mjs --check

screenshots: setup ## take the pictures of the documents; needs chromium
	$(BIN)/python -m tests.page.screenshots

lock: setup ## pin the requirements again
	$(BIN)/pip-compile -q --extra dev --generate-hashes --allow-unsafe --no-strip-extras --no-emit-index-url \
	  --no-emit-trusted-host --no-emit-find-links --no-header -o requirements.txt pyproject.toml

clean: ## remove what was made, the data of the demo too
	rm -rf $(VENV) dist build $(DATA) $(DATA)-containers
