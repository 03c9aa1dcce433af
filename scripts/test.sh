#!/usr/bin/env bash
# Every test: crates, client, wasm, and end to end with real peers. Prints each runner's closing lines.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}

echo "» the relay, the load generator and the path between namespaces that end-to-end tests run"
cargo build --quiet --locked --release -p sealcast -p sealcast-load -p sealcast-impair
export SEALCAST_BIN=$target/release/sealcast SEALCAST_IMPAIR=$target/release/sealcast-impair

echo "» crates"
cargo test --locked --workspace --quiet

echo "» every fuzz target from its corpus, five seconds each (make fuzz: a minute each)"
CARGO_TARGET_DIR=$target/fuzz tests/fuzz/run 5

echo "» instructions per forwarded packet"
cargo run --quiet --locked --release -p bench --bin instructions -- check

echo "» alert rules and the dashboard, by Prometheus"
node scripts/prometheus.mjs

echo "» client"
(cd client && npm test --silent)

echo "» cryptography in WebAssembly, with the relay's delivery service in the same module"
wasm=$target/wasm-tests
cargo run --quiet --locked -p xtask -- wasm --out "$wasm" --features delivery,vectors
SEALCAST_WASM=$wasm node --test --test-reporter=spec crypto/wasm/test/*.test.mjs

echo "» end to end: browsers, aiortc, werift, GStreamer"
node --test --test-concurrency=1 --test-reporter=spec tests/interop/*.test.mjs tests/browser/*.test.mjs
