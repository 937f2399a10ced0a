#!/bin/bash
# Plants each fault in turn and lets the simulator look for it: by a promise that breaks, or by more wrong decisions than
# policies allow. First where it is on record as found, planted.seeds beside this file, then in 10,000 seeds. Prints who found
# it, and fails on the first that nobody finds: that is a blind spot of the simulator.
#
#     planted.sh SLUICE [RECORD]     with RECORD, writes where each was found to that file
set -euo pipefail

sluice="$1" record="${2:-}"
seeds="$(dirname "$0")/planted.seeds"
faults=$("$sluice" simulate --plant list 2>&1 | sed -n 's/^  \([a-z][a-z-]*\)  *.*/\1/p' || true)
[[ -n "$faults" ]] || { echo "$sluice knows no faults; build it with --features planted" >&2; exit 1; }

# Whether the fault is found in the seeds; $said is what the simulator says.
finds() {
    local rc=0
    said=$("$sluice" simulate --plant "$1" --seeds "$2") || rc=$?
    [[ $rc == 20 ]] && grep -q -e '^seed ' -e 'MORE THAN' <<<"$said"
}

found=0 moved=0
[[ -z "$record" ]] || : >"$record"
for fault in $faults; do
    known=$(sed -n "s/^$fault //p" "$seeds")
    if [[ -z "$known" ]] || ! finds "$fault" "$known"; then
        if ! finds "$fault" 0..10000; then
            echo "$fault was not found:" >&2
            tail -n 3 <<<"$said" >&2
            exit 1
        fi
        moved=$((moved + 1))
        known=$(sed -n 's/^seed \([0-9]*\):.*/\1/p' <<<"$said" | head -n 1)
        # Wrong decisions are counted over all histories so far.
        known=${known:+$known..$((known + 1))}
        known=${known:-0..$(sed -n 's/^\([0-9,]*\) histories .*/\1/p' <<<"$said" | tr -d ,)}
    fi
    [[ -z "$record" ]] || echo "$fault $known" >>"$record"
    line=$(grep -m 1 -e '^seed ' -e 'MORE THAN' <<<"$said")
    line="${line#"${line%%[! ]*}"}"
    printf '%-28s %s\n' "$fault" "${line:0:110}"
    found=$((found + 1))
done
echo "$found of $found planted faults found"
[[ $moved == 0 || -n "$record" ]] ||
    echo "$moved of them not where they are on record; record them anew: make planted RECORD=1"
