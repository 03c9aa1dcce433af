#!/usr/bin/env bash
# Every test: crates, client, wasm, and end to end with real peers. Prints each runner's closing lines.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}

echo "» crates"
cargo test --locked --workspace --quiet

echo "» client"
(cd client && npm test --silent)

echo "» end to end: browsers, aiortc, werift, GStreamer"
cargo build --locked --release -p sealcast
export SEALCAST_BIN=$target/release/sealcast
node --test --test-concurrency=1 --test-reporter=spec tests/interop/*.test.mjs tests/browser/*.test.mjs
