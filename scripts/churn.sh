#!/usr/bin/env bash
# A relay's memory while people come and go: runs a release relay under `sealcast-load run churn` for
# SECONDS (600) with ROOMS (2) consults of four, of whom 30 % reconnect every 20 seconds, and samples
# its resident memory. Fails if the last fifth of the run holds over 10 % more than the second fifth:
# by then every pool and table has had its size.
#   scripts/churn.sh [SECONDS] [ROOMS]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-600} rooms=${2:-2}
target=${CARGO_TARGET_DIR:-$PWD/target}
relay=${SEALCAST_BIN:-$target/release/sealcast} load=${SEALCAST_LOAD:-$target/release/sealcast-load}
[ -x "$relay" ] && [ -x "$load" ] || cargo build --release --locked -p sealcast -p sealcast-load

dir=$(mktemp -d)
"$relay" serve --dev >"$dir/relay.log" 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null; wait $pid 2>/dev/null || true; rm -rf "$dir"' EXIT
for _ in $(seq 100); do
  url=$(sed -nE 's/.*Consult page: (http[^ ]*)\/.*/\1/p' "$dir/relay.log")
  [ -n "$url" ] && break
  kill -0 $pid 2>/dev/null || { cat "$dir/relay.log" >&2; exit 3; }
  sleep 0.1
done

# What a load test finds besides is not this script's business, but that it ran at all is.
"$load" run churn --against "$url" --duration "$seconds" --rooms "$rooms" --only-slo \
  --slo 'delivery > 50%' --max-lag 60000 --max-lag-p99 60000 >"$dir/load.txt" 2>&1 &
loader=$!
metric() { curl -sf "$url/metrics" | awk -v name="$1" '$1 ~ "^"name"($|{)" { sum += $2 } END { printf "%.0f", sum }'; }
echo "seconds rss_kib sessions joined"
while kill -0 $loader 2>/dev/null; do
  echo "$SECONDS $(($(metric process_resident_memory_bytes) / 1024)) $(metric sealcast_sessions) $(metric sealcast_sessions_connected_total)"
  sleep 5
done | tee "$dir/samples.txt"
result=0
wait $loader || result=$?
[ $result -eq 0 ] || { cat "$dir/load.txt" >&2; echo "sealcast-load ended with $result" >&2; exit 3; }

awk 'NR > 0 { rss[NR] = $2; joined = $4 } END {
  n = NR; fifth = int(n / 5); if (fifth < 1) { print "too short a run"; exit 3 }
  for (i = fifth + 1; i <= 2 * fifth; i++) before += rss[i]
  for (i = n - fifth + 1; i <= n; i++) after += rss[i]
  growth = 100 * (after / before - 1)
  printf "%d sessions came and went; resident memory %.1f MiB in the second fifth, %.1f MiB in the last: %+.1f %%\n", \
    joined, before / fifth / 1024, after / fifth / 1024, growth
  exit (growth > 10)
}' "$dir/samples.txt"
