#!/bin/bash
# Makes target/planted: these sources with the faults of faults.patch in the rules. A file that says what it said the last time
# keeps its time, so that cargo builds what has changed.
#
#     source.sh            makes it, or fails where the patch does not fit
#     source.sh --merge    makes it with conflicts marked, where the sources have moved on
#     source.sh --record   writes faults.patch anew from target/planted, as somebody has edited it
#
# When a change breaks the patch: --merge, mend what is marked `<<<<<<<` in target/planted, --record.
set -euo pipefail
cd "$(dirname "$0")/../.."

patch=tests/planted/faults.patch to=target/planted
read -ra rules <<<"engine/src src"

copy() {
    rm -rf "$1"
    mkdir -p "$1"/tests/log "$1"/benches/{limits,quality}
    cp -a Cargo.toml Cargo.lock engine store demo src policies "$1"
    # Of another version: cargo tells packages of one target folder apart by that, and not by where they are.
    sed -i '0,/^version = "\(.*\)"$/s//version = "\1-planted"/' "$1/Cargo.toml"
    sed -i '/^name = "sluice/{n;s/"$/-planted"/}' "$1/Cargo.lock"
    # What Cargo.toml names is there. A test of nothing: with it the dependencies are built as for the other tests.
    tee "$1"/benches/{core,limits/main,quality/main}.rs >"$1/tests/log/main.rs" <<<'fn main() {}'
}

case "${1:-}" in
"")
    copy "$to.next"
    git apply --directory="$to.next" "$patch"
    while IFS= read -r -d '' file; do
        if cmp -s "$to/$file" "$to.next/$file"; then touch -r "$to/$file" "$to.next/$file"; fi
    done < <(cd "$to.next" && find . -type f -print0)
    rm -rf "$to"
    mv "$to.next" "$to"
    ;;
--merge)
    copy "$to"
    # Three-way merges need the sources that the patch was made for: git has them, in a repository of its own here.
    git -C "$to" init --quiet
    echo "$(git rev-parse --path-format=absolute --git-path objects)" >"$to/.git/objects/info/alternates"
    git -C "$to" add --all --force
    git -C "$to" apply --3way "../../$patch" || true
    echo "in $to; mend what is marked <<<<<<< there, then: $0 --record"
    ;;
--record)
    if grep -rn '^<<<<<<<' "${rules[@]/#/$to/}"; then
        echo "these are not mended" >&2
        exit 1
    fi
    for folder in "${rules[@]}"; do
        git diff --no-index --no-color --full-index -U2 "$folder" "$to/$folder" || true
    done | sed -E "s#([ ab]/)$to/#\1#g" >"$patch.next"
    mv "$patch.next" "$patch"
    git apply --check "$patch"
    ;;
*)
    sed -n 's/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
