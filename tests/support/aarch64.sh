#!/bin/bash
# Decides on aarch64 what it decides here, bit for bit: the simulator's histories end in the same hash of all their events, and
# the unit tests, the logs of before and the published vectors pass. Under qemu-user; nothing else is emulated.
set -euo pipefail

histories="$1"
target=aarch64-unknown-linux-gnu
needs() {
    echo "$1 is missing; install it: $2" >&2
    exit 1
}
command -v qemu-aarch64 >/dev/null || needs qemu-aarch64 "sudo apt-get install qemu-user"
command -v aarch64-linux-gnu-gcc >/dev/null ||
    needs aarch64-linux-gnu-gcc "sudo apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
[[ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]] ||
    needs "Rust's library for $target" "rustup target add $target"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
emulated="qemu-aarch64 -L /usr/aarch64-linux-gnu"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$emulated"
echo "== builds for this machine and for $target"
cargo build --quiet --locked --bin sluice
cargo build --quiet --locked --bin sluice --target "$target"

echo "== $histories histories on both"
there="${CARGO_TARGET_DIR:-target}/$target/debug/sluice"
here="${CARGO_TARGET_DIR:-target}/debug/sluice"
for ((seed = 0; seed < histories; seed++)); do
    one=$("$here" simulate --seed "$seed" | grep -o 'head [0-9a-f]*')
    other=$($emulated "$there" simulate --seed "$seed" | grep -o 'head [0-9a-f]*')
    if [[ "$one" != "$other" ]]; then
        echo "seed $seed ends in $one here, in $other on aarch64" >&2
        exit 1
    fi
done
echo "$histories of $histories end alike"

echo "== unit tests, the logs of before, evidence worked out again"
# One test starts its own binary as a child, which qemu-user does not pass on.
cargo test --quiet --locked --target "$target" --lib -- --skip watchdog
cargo test --quiet --locked --target "$target" --test log --test pure -- formats:: evidence_trace::
if [[ -n "${SLUICE_VECTORS:-}" ]]; then
    echo "== published vectors"
    cargo test --quiet --locked --target "$target" --test pure vectors:: -- --ignored
fi
