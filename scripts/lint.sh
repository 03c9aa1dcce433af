#!/usr/bin/env bash
# Formatting, lints, documentation, dependencies. Every warning is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "» cargo fmt"
cargo fmt --all --check
echo "» cargo clippy"
cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
echo "» cargo doc"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --workspace --no-deps
echo "» purity: crates without sockets, clocks or threads of their own"
scripts/purity.sh
echo "» cargo deny"
command -v cargo-deny >/dev/null || cargo install --quiet --locked cargo-deny
cargo deny --log-level error check bans licenses sources
if cargo deny --log-level error fetch db >/dev/null 2>&1; then
  cargo deny --log-level error check advisories
else
  echo "  advisories: not checked, the advisory database cannot be reached from here"
fi
