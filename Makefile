SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo lint test test-data outcomes bench decision-quality decision-quality-peers pictures kill-test crash policies simulate planted mutants aarch64 fuzz clean

DATA ?= ../shared/data
N ?= 200

PYTEST := PYTHONDONTWRITEBYTECODE=1 .venv/bin/python -m pytest -q -p no:cacheprovider
# A broker of our own for every test; the variable says which binary.
WITH_NATS = SLUICE_NATS_SERVER="$$(tests/support/nats_server.sh)"

# Everything is built as cargo test builds it: another set of features would build every dependency again.
BUILD = echo "== build"; cargo test --quiet --locked --no-run --test log
SLUICE = target/debug/sluice
OUTCOMES = cargo test --quiet --locked --test campaign outcomes:: -- --ignored --nocapture --test-threads=1

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## three rollouts in virtual time: promoted, rolled back, promoted with an alert
	@cargo run --profile demo --locked -p sluice-demo

lint: ## formatting, clippy, and whether the planted faults fit the sources
	@echo "== formatting"
	@cargo fmt --check
	@echo "== planted faults"
	@git apply --check tests/planted/faults.patch || \
	  { echo "tests/planted/faults.patch does not fit the sources any more; see tests/planted/source.sh" >&2; exit 1; }
	@echo "== clippy"
	@cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
# What is no part of cargo bench is not among all targets.
	@cargo clippy --quiet --locked --bench quality -- -D warnings

test: lint .venv/ready ## everything that needs no data folder
	@echo "== cargo test, with $$(tests/support/nats_server.sh)"
	@$(WITH_NATS) cargo test --quiet --locked
# With the binary that cargo test has just built.
	@echo "== python client tests"
	@$(WITH_NATS) SLUICE_BIN=$(SLUICE) $(PYTEST) tests/python --ignore=tests/python/test_data.py

test-data: .venv/ready ## published numbers, and rollouts of real model outcomes: DATA=../shared/data
	@if [[ ! -f "$(DATA)/manifest.json" ]]; then \
	  echo "no manifest.json in DATA=$(DATA); name the data folder: make test-data DATA=path" >&2; exit 1; fi
	@echo "== published vectors"
	@SLUICE_VECTORS="$(DATA)/../vectors" cargo test --quiet --locked --test pure vectors:: -- --ignored
	@echo "== its scenarios in virtual time, 8 seeds"
	@SLUICE_DATA="$(DATA)" SLUICE_SEEDS=8 $(OUTCOMES)
	@$(BUILD)
	@echo "== rollouts of the data in $(DATA)"
	@$(WITH_NATS) SLUICE_BIN=$(SLUICE) SLUICE_DATA="$(DATA)" $(PYTEST) -s tests/python/test_data.py

# As many as tell 1 in 20 from 1 in 10; test-data runs a few.
outcomes: SEEDS := 200
outcomes: ## every scenario of the data folder in virtual time, with its table: DATA=../shared/data SEEDS=200
	@if [[ ! -f "$(DATA)/manifest.json" ]]; then \
	  echo "no manifest.json in DATA=$(DATA); name the data folder: make outcomes DATA=path" >&2; exit 1; fi
	@echo "== scenarios in virtual time, $(SEEDS) seeds"
	@SLUICE_DATA="$(DATA)" SLUICE_SEEDS=$(SEEDS) $(OUTCOMES)

bench: ## throughput and latency on this machine
	@cargo bench --locked

# A small sample is RUNS=16; RESULTS=file keeps the lines as JSON.
RUNS ?= 1000
RESULTS ?=
decision-quality: ## wrong and slow decisions over simulated streams, beside the goals: RUNS=1000
	@echo "== decisions of the engine over simulated streams, RUNS=$(RUNS)"
	@cargo bench --quiet --profile dev --locked --bench quality -- --runs $(RUNS) $(if $(RESULTS),--json $(abspath $(RESULTS)))

PEERS := PYTHONDONTWRITEBYTECODE=1 .venv-peers/bin/python benches/quality
decision-quality-peers: .venv-peers/ready ## other methods on the same streams: RUNS=1000 DATA=../shared/data
	@echo "== other methods on the same streams, RUNS=$(RUNS)"
	@$(PEERS)/peers.py --runs $(RUNS) --data "$(DATA)" $(if $(RESULTS),--json $(abspath $(RESULTS)))

pictures: .venv-peers/ready ## draw docs/pictures from simulated streams
	@$(PEERS)/pictures.py

kill-test: .venv/ready ## kill -9 the daemon N=200 times, lose nothing
	@echo "== $(N) kills"
	@$(WITH_NATS) SLUICE_KILLS=$(N) cargo test --quiet --locked --test campaign kill:: -- --ignored --nocapture

# A small sample unless N is given. One case again: make crash SEED=1 CASE=damage:17, as a failure says.
crash: N := 40
crash: SEED ?= 1
crash: CASE ?=
crash: .venv/ready ## N=40 kills, N/4 failing calls, N/10 full disks, N/20 power cuts, 50 N damaged logs: found, nothing lost
	@if ! command -v strace >/dev/null; then \
	  if [[ $$(id -u) != 0 ]]; then echo "kills at system calls need strace; install it: sudo apt-get install strace" >&2; exit 1; fi; \
	  echo "== installing strace"; apt-get -qq update; \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends strace >/dev/null; fi
	@echo "== crashes, N=$(N), seed $(SEED)"
	@$(WITH_NATS) SLUICE_SEED=$(SEED) SLUICE_CASE=$(CASE) SLUICE_KILLS=$(N) SLUICE_CUTS=$$(( ($(N) + 19) / 20 )) \
	  SLUICE_FAULTS=$$(( ($(N) + 3) / 4 )) SLUICE_FILLS=$$(( ($(N) + 9) / 10 )) SLUICE_DAMAGES=$$(( $(N) * 50 )) \
	  cargo test --quiet --locked --test campaign crash:: -- --nocapture --test-threads=1
	@if [[ -z "$(CASE)" ]]; then \
	  echo "== kills whenever, N=$$(( ($(N) + 9) / 10 ))"; \
	  SLUICE_SEED=$(SEED) SLUICE_KILLS=$$(( ($(N) + 9) / 10 )) cargo test --quiet --locked --test campaign kill:: -- --ignored --nocapture; fi

policies: ## the policies that ship, under scripted traffic
	@$(BUILD)
	@$(SLUICE) policy test policies/tests

# 2,300 histories: at least 2,000 of them have 1,000 events or more. One again: sluice simulate --seed N --trace. Many
# short ones: sluice simulate --seeds 0..100000 --events 100.
SEEDS ?= 0..2300
simulate: ## made-up trouble over many histories, every promise checked: SEEDS=0..2300
	@$(BUILD)
	@echo "== simulating seeds $(SEEDS)"
	@$(SLUICE) simulate --seeds $(SEEDS) --minimize

# Built from a copy of the sources: these know no faults. RECORD=1 writes down where each is found.
planted: ## every fault that can be planted in the rules must be found by the simulator; RECORD=1 records where
	@tests/planted/source.sh
	@echo "== build with faults"
	@cd target/planted && CARGO_TARGET_DIR=$(CURDIR)/target cargo test --quiet --locked --no-run --test log
	@mv $(SLUICE) target/planted-sluice
	@$(BUILD)
	@tests/planted/find.sh target/planted-sluice $(if $(RECORD),target/planted.seeds)
	@$(if $(RECORD),cp target/planted.seeds tests/planted/seeds)

# Takes hours: each mutant is a build of the engine. What survives is a rule that no unit test and no scenario pins down.
MUTATE := bets label_bets reference refresh score
mutants: ## small mechanical faults in the arithmetic of the evidence, by cargo-mutants: MUTATE="bets label_bets"
	@command -v cargo-mutants >/dev/null || { echo "cargo-mutants is missing; install it: cargo install --locked cargo-mutants" >&2; exit 1; }
	@cargo mutants --package sluice-engine --output target $(foreach room,$(MUTATE),--file 'engine/src/core/**/$(room).rs') \
	  --test-package sluice-engine --test-package sluice -- --lib --test pure

# Not in the usual check: it builds everything for another machine. Debian's packages suffice.
HISTORIES ?= 100
aarch64: ## the same decisions, bit for bit, on aarch64 under qemu: HISTORIES=100 DATA=../shared/data
	@SLUICE_VECTORS="$(if $(wildcard $(DATA)/../vectors),$(abspath $(DATA)/../vectors))" tests/support/aarch64.sh $(HISTORIES)

T ?= intent
SECS ?= 60
fuzz: ## fuzz one parser for a while: T=intent SECS=60 (fuzz/README.md lists them)
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing; install it: cargo install --locked cargo-fuzz" >&2; exit 1; }
	@cd fuzz && mkdir -p found/$(T) && RUSTC_BOOTSTRAP=1 cargo fuzz run $(T) found/$(T) corpus/$(T) -- \
	  -max_total_time=$(SECS) -max_len=16384 -timeout=10 -rss_limit_mb=1024

clean: ## remove what was built and installed here
	@rm -rf target .venv .venv-peers fuzz/target

# Debian splits ensurepip off into python3-venv; everything else comes from PyPI, pinned.
.venv/ready: tests/python/requirements.txt
.venv-peers/ready: benches/quality/requirements.txt
.venv/ready .venv-peers/ready:
	@echo "== python environment in $(@D)"
	@if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then \
	  if [[ $$(id -u) != 0 ]]; then echo "python3 cannot make virtual environments; install it: sudo apt-get install python3-venv" >&2; exit 1; fi; \
	  echo "== installing python3-venv"; apt-get -qq update; \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3-venv >/dev/null; fi
	@rm -rf $(@D) && python3 -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --no-cache-dir -r $<
	@$(@D)/bin/pip check --disable-pip-version-check >/dev/null
	@touch $@
