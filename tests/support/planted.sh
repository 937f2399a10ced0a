#!/bin/bash
# Plants each fault in turn and lets the simulator look for it in 10,000 seeds: by a promise that breaks, or by more
# wrong decisions than policies allow. Prints who found it, and fails on the first that nobody finds: that is a blind
# spot of the simulator.
set -euo pipefail

sluice="$1"
faults=$("$sluice" simulate --plant list 2>&1 | sed -n 's/^  \([a-z][a-z-]*\)  *.*/\1/p' || true)
[[ -n "$faults" ]] || { echo "$sluice knows no faults; build it with --features planted" >&2; exit 1; }
found=0
for fault in $faults; do
    rc=0
    said=$("$sluice" simulate --plant "$fault" --seeds 0..10000) || rc=$?
    line=$(grep -m 1 -e '^seed ' -e 'MORE THAN' <<<"$said" || true)
    if [[ $rc != 20 || -z "$line" ]]; then
        echo "$fault was not found (exit $rc):" >&2
        tail -n 3 <<<"$said" >&2
        exit 1
    fi
    line="${line#"${line%%[! ]*}"}"
    printf '%-28s %s\n' "$fault" "${line:0:110}"
    found=$((found + 1))
done
echo "$found of $found planted faults found"
