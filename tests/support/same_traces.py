#!/usr/bin/env python3
"""Tells whether the traces of tests/scenarios say the same as those of another revision.

    tests/support/same_traces.py REVISION

A trace is what was decided, when, and why. Digests of states, which change whenever the stored form of anything does, are
left out: they stand in tests/scenarios/digests, and before ended each trace. Prints each line that differs, and exits with 1
if one does.
"""

import difflib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def normal(text: str) -> list[str]:
    """A scenario without the digest that once ended its trace."""
    return re.sub(r", state [0-9a-f]{6}$", "", text, flags=re.MULTILINE).splitlines()


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    revision, differ = sys.argv[1], 0
    git = ["git", "-C", str(ROOT)]
    listed = subprocess.check_output([*git, "ls-tree", "--name-only", revision, "tests/scenarios/"], text=True)
    names = [name for name in listed.splitlines() if name.endswith(".scn")]
    for name in names:
        before = normal(subprocess.check_output([*git, "show", f"{revision}:{name}"], text=True))
        path = ROOT / name
        after = normal(path.read_text()) if path.exists() else []
        lines = list(difflib.unified_diff(before, after, name, name, lineterm="", n=0))
        differ += bool(lines)
        print(*lines, sep="\n", end="\n" if lines else "")
    print(f"{len(names)} scenarios, {differ} differ")
    return bool(differ) or not names


if __name__ == "__main__":
    sys.exit(main())
