#!/usr/bin/env bash
# Installs what the browser tests need on a fresh Debian machine: Chromium and nginx from Debian, the npm packages of
# package-lock.json. Needs root for apt-get, and node 20 or newer with npm. Run again, it does nothing that is done.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
log=$(mktemp)
trap 'code=$?; [ "$code" -eq 0 ] || cat "$log" >&2; rm -f "$log"' EXIT

wanted=()
command -v chromium >/dev/null || wanted+=(chromium)
[ -x /usr/sbin/nginx ] || wanted+=(nginx-light)
if [ ${#wanted[@]} -gt 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >>"$log" 2>&1
  # The tests start an nginx of their own: the package's service is not wanted.
  RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${wanted[@]}" >>"$log" 2>&1
fi
if [ ! -e "$here/node_modules/.package-lock.json" ] || [ "$here/package-lock.json" -nt "$here/node_modules/.package-lock.json" ]; then
  (cd "$here" && npm ci --no-audit --no-fund) >>"$log" 2>&1
fi
