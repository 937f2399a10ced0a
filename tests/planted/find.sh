#!/bin/bash
# Plants each fault in turn and lets the simulator look for it: by a promise that breaks, or by more wrong decisions than
# policies allow. First where it is on record as found, the file seeds beside this one, where without the fault nothing is to be
# found; then in 10,000 seeds. Prints who found it, and fails where nobody does: that is a blind spot of the simulator.
#
#     find.sh SLUICE [RECORD]     with RECORD, writes where each was found to that file
set -euo pipefail

export sluice="$1" record="${2:-}" seeds="$(dirname "$0")/seeds"
faults=$("$sluice" simulate --plant list 2>&1 | sed -n 's/^  \([a-z][a-z-]*\)  *.*/\1/p' || true)
[[ -n "$faults" ]] || { echo "$sluice knows no faults; it is to be built from what source.sh makes" >&2; exit 1; }

# Whether something is found in the seeds, with a fault or with none; $said is what the simulator says.
finds() {
    local rc=0
    said=$("$sluice" simulate "${@:2}" --seeds "$1") || rc=$?
    [[ $rc == 20 ]] && grep -q -e '^seed ' -e 'MORE THAN' <<<"$said"
}

clean() {
    if finds "$1"; then
        printf 'seeds %s fail without a fault:\n%s\n' "$1" "$(tail -n 3 <<<"$said")" >&2
        return 1
    fi
}

planted() {
    local fault="$1" known moved="" line
    known=$(sed -n "s/^$fault //p" "$seeds")
    if [[ -z "$known" ]] || ! finds "$known" --plant "$fault"; then
        if ! finds 0..10000 --plant "$fault"; then
            printf '%s was not found:\n%s\n' "$fault" "$(tail -n 3 <<<"$said")" >&2
            return 1
        fi
        moved=" (elsewhere than on record: make planted RECORD=1)"
        known=$(sed -n 's/^seed \([0-9]*\):.*/\1/p' <<<"$said" | head -n 1)
        # Wrong decisions are counted over all histories so far.
        known=${known:+$known..$((known + 1))}
        known=${known:-0..$(sed -n 's/^\([0-9,]*\) histories .*/\1/p' <<<"$said" | tr -d ,)}
    fi
    [[ -z "$record" ]] || echo "$fault $known" >>"$record"
    line=$(grep -m 1 -e '^seed ' -e 'MORE THAN' <<<"$said")
    line="${line#"${line%%[! ]*}"}"
    printf '%-28s %s%s\n' "$fault" "${line:0:110}" "$moved"
}

# One history is the work of one core.
each() {
    xargs --max-procs="$(nproc)" --max-args=1 bash -c 'set -euo pipefail; "$0" "$1"' "$1"
}

export -f finds clean planted
# Each seed once: from the left, what goes further than all before it.
cut -d ' ' -f 2 "$seeds" | sed 's/\.\./ /' | sort -k 1,1n -k 2,2nr |
    awk '$2 > end { print $1 ".." $2; end = $2 }' | each clean
[[ -z "$record" ]] || : >"$record"
each planted <<<"$faults"
echo "$(wc -l <<<"$faults") of $(wc -l <<<"$faults") planted faults found"
if [[ -n "$record" ]]; then
    # In the order of the list, whoever was found first.
    mapfile -t order <<<"$faults"
    for fault in "${order[@]}"; do grep "^$fault " "$record"; done >"$record.next"
    mv "$record.next" "$record"
fi
