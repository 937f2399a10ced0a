#!/bin/bash
# Plants each fault in turn and lets the simulator look for it: by a promise that breaks, or by more wrong decisions than
# policies allow. First where it is on record as found, the file seeds beside this one, where without the fault nothing is to be
# found; then in 10,000 seeds. Prints who found it, and fails on the first that nobody finds: that is a blind spot of the simulator.
#
#     find.sh SLUICE [RECORD]     with RECORD, writes where each was found to that file
set -euo pipefail

sluice="$1" record="${2:-}"
seeds="$(dirname "$0")/seeds"
faults=$("$sluice" simulate --plant list 2>&1 | sed -n 's/^  \([a-z][a-z-]*\)  *.*/\1/p' || true)
[[ -n "$faults" ]] || { echo "$sluice knows no faults; it is to be built from what source.sh makes" >&2; exit 1; }

# Whether something is found in the seeds, with a fault or with none; $said is what the simulator says.
finds() {
    local rc=0
    said=$("$sluice" simulate "${@:2}" --seeds "$1") || rc=$?
    [[ $rc == 20 ]] && grep -q -e '^seed ' -e 'MORE THAN' <<<"$said"
}

while read -r known; do
    if finds "$known"; then
        echo "seeds $known fail without a fault:" >&2
        tail -n 3 <<<"$said" >&2
        exit 1
    fi
done < <(cut -d ' ' -f 2 "$seeds" | sort -u)

found=0 moved=0
[[ -z "$record" ]] || : >"$record"
for fault in $faults; do
    known=$(sed -n "s/^$fault //p" "$seeds")
    if [[ -z "$known" ]] || ! finds "$known" --plant "$fault"; then
        if ! finds 0..10000 --plant "$fault"; then
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
