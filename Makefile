# Two commands need no set-up: `make run` and `make test`. The rest is for those who work on it.
# Each installs what is missing (apt, rustup target, npm ci, a Python venv), says so, and needs no
# network the second time.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR

CLIENT_SOURCES := $(shell find client/src client/page -type f) client/build.mjs \
	client/package.json client/package-lock.json $(wildcard client/tsconfig*.json)
WASM_SOURCES := $(shell find crypto/sframe/src crypto/mls/src crypto/group-wire/src crypto/wasm/src xtask/src -type f) Cargo.lock

.PHONY: help run test lint client setup-run setup-test bench fuzz soak clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: setup-run client ## build everything, start a development relay, print the consult page's URL
	@echo "» building the relay (release; the first time takes some minutes)"
	@cargo build --release --locked -p sealcast
	@exec $(CARGO_TARGET_DIR)/release/sealcast serve --dev

test: setup-test client ## run every test, browsers included
	@scripts/test.sh

lint: setup-run client ## fmt, clippy, doc, deny
	@scripts/lint.sh

client: client/dist/index.html ## build the client and the consult page

client/wasm/sealcast_wasm_bg.wasm: $(WASM_SOURCES)
	@echo "» compiling the frame cryptography to wasm"
	@cargo run --quiet --locked -p xtask -- wasm --out client/wasm
	@touch $@

client/dist/index.html: client/wasm/sealcast_wasm_bg.wasm $(CLIENT_SOURCES)
	@echo "» building the consult page"
	@cd client && npm run --silent build
	@touch $@

setup-run:
	@scripts/setup.sh run

setup-test:
	@scripts/setup.sh test

# Some parts alone: make bench PARTS=paced,dwell
bench: setup-test ## measure everything: floor, Sealcast, stock; paced, saturated; dwell; shards; memory
	@echo "» building the measuring programs (release; the first time takes some minutes)"
	@cargo build --quiet --release --locked -p bench --bins
	@cargo bench --quiet --locked -p bench --bench '*' --no-run
	@exec $(CARGO_TARGET_DIR)/release/suite $(if $(PARTS),--only $(PARTS))

SECONDS ?= 60
fuzz: setup-run ## fuzz every target for a minute each, or more: make fuzz SECONDS=600; make test does 5 s each
	@CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/fuzz tests/fuzz/run $(SECONDS)

FROM ?= 200
COUNT ?= 5000
soak: setup-run ## simulate more seeds than CI does: make soak FROM=200 COUNT=5000
	@cargo run --release --locked -p sealcast-tests --bin sim -- soak $(FROM) $(COUNT)

clean: ## remove everything that was built
	@cargo clean
	@rm -rf client/dist client/wasm client/node_modules tests/browser/node_modules tests/interop/node_modules loadtest/tests/janus/node_modules crypto/wasm/test/node_modules tests/.venv
