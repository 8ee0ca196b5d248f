#!/usr/bin/env bash
# Installs what tests/client and tests/protocol need on a fresh Debian machine: Chromium, slowhttptest and venv from Debian,
# the npm packages of package-lock.json, httpx-sse in .venv, h2spec by go install. Needs root for apt-get, and node 20 or
# newer, npm and go. Run again, it does nothing that is done. Quiet unless something fails.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
log=$(mktemp)
trap 'code=$?; [ "$code" -eq 0 ] || cat "$log" >&2; rm -f "$log"' EXIT

wanted=()
command -v chromium >/dev/null || wanted+=(chromium)
command -v slowhttptest >/dev/null || wanted+=(slowhttptest)
command -v curl >/dev/null || wanted+=(curl)
python3 -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
if [ ${#wanted[@]} -gt 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >>"$log" 2>&1
  apt-get install -y -qq --no-install-recommends "${wanted[@]}" >>"$log" 2>&1
fi

# A marker that is newer than what was asked for says that nothing changed since.
fresh() { [ -e "$1" ] && [ ! "$2" -nt "$1" ]; }

if ! fresh "$here/node_modules/.package-lock.json" "$here/package-lock.json"; then
  (cd "$here" && npm ci --no-audit --no-fund) >>"$log" 2>&1
fi
if ! fresh "$root/.venv/.installed" "$here/requirements.txt"; then
  python3 -m venv "$root/.venv" >>"$log" 2>&1
  "$root/.venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt" >>"$log" 2>&1
  touch "$root/.venv/.installed"
fi
if [ ! -x "$root/target/tools/h2spec" ]; then
  # The newest tag that the Go proxy knows; its dependencies are chosen by go install.
  GOBIN="$root/target/tools" go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible >>"$log" 2>&1
fi
