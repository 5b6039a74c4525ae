# Everything that one does with this repository, from a fresh clone on. `make` lists it.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup tools build demo test test-all bench-check bench-accept fuzz clean

# Suites of the tests with their budgets in seconds of wall time, on two cores with nothing built.
# A suite that takes longer warns; only a failure fails.
BUDGET_format := 10
BUDGET_lint := 900
BUDGET_docs := 300
BUDGET_tests := 1800
BUDGET_scripts := 30
BUDGET_deploy := 30
BUDGET_data := 120
BUDGET_rows := 180
BUDGET_frameworks := 240
BUDGET_openapi := 240

# The programs and the tests find what `make setup` installs by these names. A library that
# ORT_DYLIB_PATH names takes the place of the installed one.
export SLUICE_ONNXRUNTIME ?= $(or $(ORT_DYLIB_PATH),$(CURDIR)/.tools/onnxruntime/libonnxruntime.so)
export SLUICE_PYTHON ?= $(CURDIR)/.tools/python/bin/python
export CARGO_NET_RETRY ?= 5
ifdef CI
export CARGO_INCREMENTAL ?= 0
endif

# Every cargo call of the tests names the whole workspace, so that all of them resolve features
# alike and each dependency is compiled once for checking and once for running.
WORKSPACE := --workspace --locked
suite = scripts/suite.sh $(1) $(BUDGET_$(1))

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

tools: # what must be on the machine
	@scripts/check-tools.sh

setup: tools ## ONNX Runtime's library and the tests' Python clients, into .tools
	@scripts/setup-onnxruntime.sh
	@scripts/setup-python.sh

# One after the other: together they would share features, and the sidecar would be compiled
# against the offline engine that only `sluice` needs.
build: tools ## target/release/sluice and target/release/sluice-gateway
	cargo build --release --locked --package sluice-gateway --bin sluice-gateway
	cargo build --release --locked --package sluice --bin sluice

demo: tools ## the whole loop on real sales; DEMO_EXIT=1 ends instead of serving on
	@scripts/setup-onnxruntime.sh
	cargo build --release --locked --package sluice --bin sluice
	target/release/sluice demo

test: setup ## format, lints, documentation, all tests, deployment files
	@$(call suite,format) cargo fmt --all --check
	@$(call suite,lint) cargo clippy $(WORKSPACE) --all-targets -- -D warnings
	@RUSTDOCFLAGS=-Dwarnings $(call suite,docs) cargo doc $(WORKSPACE) --no-deps
	@$(call suite,scripts) $(SLUICE_PYTHON) -m unittest discover --start-directory tests/python
	@$(call suite,deploy) $(SLUICE_PYTHON) tests/python/validate_deploy.py
	@$(call suite,tests) scripts/cargo-test.sh $(WORKSPACE) --no-fail-fast

test-all: test ## the tests, and what takes longer: the data made again from its source, clients for a minute, frameworks, requests that are made up
	@$(call suite,data) scripts/online-retail.py --check
	@SLUICE_DISTINCT_ROWS_SECONDS=30 $(call suite,rows) cargo test $(WORKSPACE) --test clients each_client
	@scripts/setup-python.sh frameworks
	@cargo build $(WORKSPACE) --bin sluice-gateway
	@$(call suite,frameworks) .tools/frameworks/bin/python tests/frameworks/run_page.py $(or $(CARGO_TARGET_DIR),target)/debug/sluice-gateway
	@scripts/setup-python.sh openapi
	@$(call suite,openapi) .tools/openapi/bin/python tests/openapi/run.py $(or $(CARGO_TARGET_DIR),target)/debug/sluice-gateway

bench-check: setup ## instructions of a request by stage, against bench/instructions.json; needs valgrind
	cargo build --release --locked --package sluice-gateway --bin sluice-gateway
	@$(SLUICE_PYTHON) scripts/instructions.py $(or $(CARGO_TARGET_DIR),target)/release/sluice-gateway

bench-accept: setup ## the same, and makes them the baseline
	cargo build --release --locked --package sluice-gateway --bin sluice-gateway
	@$(SLUICE_PYTHON) scripts/instructions.py $(or $(CARGO_TARGET_DIR),target)/release/sluice-gateway --accept

fuzz: tools ## feeds what reads requests with made-up bytes; FUZZ_SECONDS=600 each
	@scripts/fuzz.sh

clean: ## removes what was built; .tools stays
	cargo clean
