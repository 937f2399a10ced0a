#!/bin/bash
# Builds what is released: the binary without its symbols, and the symbols beside it, for crash reports.
# deploy/release.sh [FOLDER]: where to, target/release-files unless named.
set -euo pipefail
cd "$(dirname "$0")/.."
to=${1:-target/release-files}
# What an operator copies about. Three quarters of an unstripped one are symbols.
bytes_max=30000000

cargo build --release --locked --bin sluice
built=${CARGO_TARGET_DIR:-target}/release/sluice
mkdir -p "$to"
objcopy --only-keep-debug "$built" "$to/sluice.debug"
objcopy --strip-all --add-gnu-debuglink="$to/sluice.debug" "$built" "$to/sluice"
bytes=$(stat -c %s "$to/sluice")
echo "$to/sluice: $bytes bytes, $("$to/sluice" --version); symbols: $to/sluice.debug"
if ((bytes > bytes_max)); then
    echo "more than $bytes_max bytes: what was linked in that was not before?" >&2
    exit 1
fi
