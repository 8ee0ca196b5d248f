#!/usr/bin/env bash
# Autobahn's 517 WebSocket cases against our handshake, options and close codes, which an echo server wraps (echo.rs).
#   autobahn.sh          247 cases: framing, control frames, fragments, UTF-8, closing; half a minute
#   autobahn.sh all      all 517, with messages up to 16 MiB and 216 cases of compression; most of an hour
#   autobahn.sh '9.*'    one section
# The suite runs under Python 2.7 only; that must be there (pyenv has it), the rest is installed from PyPI by name.
# Exit code 1 when a case failed that is not named below, or when cases are missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
place="$root/target/tools/autobahn"
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")

python2() {
  local candidate
  for candidate in "${PYTHON2:-}" "$HOME"/.pyenv/versions/2.7.*/bin/python2.7 /usr/bin/python2.7; do
    if [ -x "$candidate" ]; then echo "$candidate"; return; fi
  done
  echo "autobahn.sh: there is no Python 2.7 here; install it (pyenv install 2.7.18) or set PYTHON2" >&2
  return 1
}

if [ ! -e "$place/.installed" ] || [ "$here/autobahn.txt" -nt "$place/.installed" ]; then
  python=$(python2)
  python3 -m venv "$place/maker"
  "$place/maker/bin/pip" install -q --disable-pip-version-check 'virtualenv<20.22'
  "$place/maker/bin/virtualenv" -q -p "$python" "$place/env"
  PYTHONWARNINGS=ignore "$place/env/bin/pip" install -q --disable-pip-version-check -r "$here/autobahn.txt" 2>&1 | grep -v DEPRECATION || true
  PYTHONWARNINGS=ignore "$place/env/bin/pip" install -q --disable-pip-version-check --no-deps autobahntestsuite==25.10.1 2>&1 | grep -v DEPRECATION || true
  "$place/env/bin/wstest" --help >/dev/null
  touch "$place/.installed"
fi

case ${1:-} in
  '') cases='["*"]' without='["9.*","12.*","13.*"]' wanted=247 ;;
  all) cases='["*"]' without='[]' wanted=517 ;;
  *) cases="[\"$1\"]" without='[]' wanted=1 ;;
esac

cargo build -q --manifest-path "$root/Cargo.toml" --example echo
work=$(mktemp -d)
mkfifo "$work/said"
"$target/debug/examples/echo" >"$work/said" &
echo=$!
trap 'kill "$echo"; rm -rf "$work"' EXIT
read -r said <"$work/said"
cat >"$work/spec.json" <<SPEC
{"outdir":"$work/reports","servers":[{"agent":"tidings","url":"ws://${said#listening on http://}/"}],
 "cases":$cases,"exclude-cases":$without,"exclude-agent-cases":{}}
SPEC
began=$SECONDS
"$place/env/bin/wstest" -m fuzzingclient -s "$work/spec.json" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
echo "autobahn: $((SECONDS - began)) s"
node "$here/autobahn.js" "$work/reports" "$wanted"
