#!/usr/bin/env bash
# Runs every protocol test against the real server (TIDINGS_BIN, else target/release or target/debug), each file in a
# process of its own, one after the other. Exit code 1 when one failed; what failed is printed, what passed is counted.
# tests/client/install.sh gets the tools they need. With arguments: only the named files, e.g. run.sh http.test.js
set -u
cd "$(dirname "$0")" || exit 1
output=$(mktemp)
trap 'rm -f "$output"' EXIT
failed=0
[ $# -eq 0 ] && set -- *.test.js
for file in "$@"; do
  if node --test-force-exit --test-reporter=spec "$file" >"$output" 2>&1 </dev/null; then
    echo "$file: $(grep -a 'ℹ pass' "$output" | grep -o '[0-9]*') passed"
  else
    failed=1
    echo "$file: FAILED" >&2
    # The report ends with the failing tests and their reasons; without it the file itself broke.
    if grep -qa 'failing tests' "$output"; then sed -n '/failing tests/,$p' "$output" >&2; else cat "$output" >&2; fi
  fi
done
exit "$failed"
