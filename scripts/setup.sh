#!/usr/bin/env bash
# Installs what is missing for `make run` or `make test` on Debian 12, and says what it does.
# Nothing is asked of the network when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

level=${1:?usage: setup.sh run|test}
say() { printf '» %s\n' "$*"; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

need_apt_lists() {
  as_root apt-get update -qq
}

need_apt() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing Debian packages: ${missing[*]}"
  need_apt_lists
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_deb_files() { # package, whose files suffice: it is unpacked, not installed
  local to=.cache/debian
  [ -e "/usr/share/$1" ] || [ -e "$to/usr/share/$1" ] && return
  say "unpacking the Debian package $1 into $to"
  mkdir -p "$to"
  apt-cache show "$1" >/dev/null 2>&1 || need_apt_lists
  (cd "$to" && apt-get -o APT::Sandbox::User="$(id -un)" download -qq "$1" && dpkg -x "$1"_*.deb . && rm "$1"_*.deb)
}

need_command() {
  command -v "$1" >/dev/null || { echo "missing: $1 ($2)" >&2; exit 1; }
}

need_npm() { # folder
  local lock="$1/package-lock.json" stamp="$1/node_modules/.installed"
  [ -f "$lock" ] || return 0
  if ! cmp -s "$lock" "$stamp"; then
    say "installing npm packages of $1"
    (cd "$1" && PUPPETEER_SKIP_DOWNLOAD=1 npm ci --no-audit --no-fund --loglevel=error)
    cp "$lock" "$stamp"
  fi
}

need_venv() { # requirements file
  local stamp=tests/.venv/.installed
  if ! cmp -s "$1" "$stamp"; then
    say "installing Python packages of $1 into tests/.venv"
    python3 -m venv tests/.venv
    tests/.venv/bin/pip install --quiet --disable-pip-version-check -r "$1"
    cp "$1" "$stamp"
  fi
}

need_command cargo "install Rust by rustup"
need_command node "install Node.js 20 or later"
need_command npm "comes with Node.js"
need_apt build-essential pkg-config libssl-dev
if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx wasm32-unknown-unknown; then
  say "adding the Rust target wasm32-unknown-unknown"
  rustup target add wasm32-unknown-unknown
fi
need_npm client

if [ "$level" = test ]; then
  need_apt chromium firefox-esr python3 python3-venv python3-gi python3-gst-1.0 gir1.2-gst-plugins-bad-1.0 \
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-nice \
    iproute2 nftables procps gdb janus valgrind
  # Its dependencies are Debian's Node.js, beside which no other can be installed.
  need_deb_files simple-whip-server
  # For promtool; installed, it would bring a running server.
  need_deb_files prometheus
  need_npm tests/browser
  need_npm tests/interop
  need_npm crypto/wasm/test
  need_npm loadtest/tests/janus
  need_venv tests/interop/requirements.txt
fi
