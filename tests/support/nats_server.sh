#!/bin/bash
# Prints the path of the nats-server that the tests run: the one on PATH when it is 2.10 or newer
# (older ones lack sync_interval, so nothing they acknowledge is durable), else the one that
# tests/python/requirements.txt installed into .venv.
set -euo pipefail

oldest=2.10.0
venv="$(cd "$(dirname "$0")/../.." && pwd)/.venv/bin/nats-server"

# "nats-server: v2.15.1" -> "2.15.1"; empty when the file does not run.
version_of() { "$1" --version 2>/dev/null | sed -n 's/^nats-server: v\([0-9.]*\).*/\1/p'; }

recent_enough() {
    local version
    version="$(version_of "$1")"
    [[ -n "$version" && "$(printf '%s\n' "$oldest" "$version" | sort -V | head -n 1)" == "$oldest" ]]
}

for candidate in "$(command -v nats-server || true)" "$venv"; do
    if [[ -n "$candidate" ]] && recent_enough "$candidate"; then
        echo "$candidate"
        exit 0
    fi
done
echo "no nats-server $oldest or newer on PATH or at $venv; run 'make .venv/ready'" >&2
exit 1
