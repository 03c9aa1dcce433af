#!/usr/bin/env bash
# Dependencies point one way, and a pure crate lists neither a runtime nor a socket crate.
set -euo pipefail
cd "$(dirname "$0")/.."

fail=0
direct() { cargo tree --locked --offline -p "$1" --depth 1 --prefix none -e normal 2>/dev/null | awk 'NR>1{print $1}'; }
forbid() { # crate, names it must not depend on directly
  local crate=$1; shift
  local have; have=$(direct "$crate")
  for name in "$@"; do
    if grep -qx "$name" <<<"$have"; then echo "$crate must not depend on $name" >&2; fail=1; fi
  done
}

runtime=(tokio libc mio socket2 rand quinn)
for crate in sealcast-model sealcast-ring sealcast-rtp sealcast-media sealcast-session sealcast-shard sealcast-delivery \
             sealcast-srtp sealcast-sframe sealcast-mls; do
  forbid "$crate" "${runtime[@]}"
done
forbid sealcast-ring sealcast-model sealcast-media sealcast-shard sealcast-io
forbid sealcast-media sealcast-ring sealcast-session sealcast-shard sealcast-io sealcast-control sealcast-srtp sealcast-sframe sealcast-mls
forbid sealcast-session sealcast-media sealcast-shard sealcast-io sealcast-control sealcast-sframe sealcast-mls
forbid sealcast-control sealcast-shard sealcast-media sealcast-session sealcast-io sealcast-srtp sealcast-sframe sealcast-mls
exit $fail
