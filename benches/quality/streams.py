"""The streams of benches/quality, with what the engine said of each, as arrays."""

import functools
import json
import struct
import subprocess

import numpy as np

# The requests that every method is given; one that has not fired by then never did.
REQUESTS = 100_000


class Stream:
    """One stream. `harm`, `safe`: request and canary observations at which sluice reached 20, or None."""

    def __init__(self, harm, safe, canary, values):
        self.harm, self.safe = harm, safe
        self.requests = len(canary)
        # Observations, their sum and that of their squares so far, after each request: baseline, then canary.
        self.counts = []
        for arm in (~canary, canary):
            x = np.where(arm, values, 0.0)
            self.counts.append([np.cumsum(arm, dtype=np.float64), np.cumsum(x), np.cumsum(x * x)])


@functools.cache
def program():
    """The program that makes and judges streams, built if need be."""
    command = "cargo bench --quiet --profile dev --locked --bench quality --no-run --message-format=json".split()
    lines = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    messages = [json.loads(line) for line in lines]
    built = [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "quality"]
    return built[-1]


def read(name, share, runs, requests=REQUESTS, change=None):
    """Yields the streams of a scenario, made from the seeds that sluice is measured with; `change`: of the values."""
    command = [program(), "--stream", name, "--share", str(share), "--runs", str(runs), "--requests", str(requests)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as made:
        binary = made.stdout.read(1) == b"b"
        for _ in range(runs):
            n, *at = struct.unpack("<Iqqqq", made.stdout.read(36))
            harm, safe = [None if request < 0 else (request, seen) for request, seen in (at[:2], at[2:])]
            marks = np.frombuffer(made.stdout.read(n), dtype=np.uint8)
            canary = (marks & 1).astype(bool)
            if binary:
                values = (marks >> 1).astype(np.float64)
            else:
                values = np.frombuffer(made.stdout.read(8 * n), dtype="<f8")
            yield Stream(harm, safe, canary, change(canary, values) if change else values)
    if made.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed")


def trace(name, share, runs, requests):
    """The engine's evidence after every block: an array with the columns stream, request, canary, ln harm, ln safe."""
    command = [program(), "--trace", name, "--share", str(share), "--runs", str(runs), "--requests", str(requests)]
    text = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    return np.loadtxt(text.splitlines(), delimiter=",", skiprows=1)
