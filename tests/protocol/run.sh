#!/usr/bin/env bash
# Runs every protocol test against the real server (TIDINGS_BIN, else target/release or target/debug), each file in a
# process of its own, one after the other. Exit code 1 when one failed. tests/client/install.sh gets the tools they need.
# With arguments: only the named files, e.g. run.sh http.test.js
set -u
cd "$(dirname "$0")" || exit 1
failed=0
[ $# -eq 0 ] && set -- *.test.js
for file in "$@"; do
  node --test-force-exit --test-reporter="${TIDINGS_TEST_REPORTER:-dot}" "$file" || { echo "failed: $file" >&2; failed=1; }
done
exit "$failed"
