"""Other methods on the streams that sluice is measured with: one run, one table.

A method is judged as it ships, and as loose as the question allows: .05 on the side that is asked about. Every method starts with the first request that sluice bets on. What came before, 500 observations of the baseline and
what the canary was sent meanwhile, went into sluice's reference; a line of its own counts that as well. Fails when sluice
does not hold alpha, or when a method that does is faster by more than the error of the simulation, other than where that
is known. Where another is faster is said in words at the end, known or not.
"""

import argparse
import itertools
import json
import math
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

import streams
from methods import ALPHA, Question, check_gbstats, check_mann_whitney, gbstats, mann_whitney, msprt, window, z_test

# Medians closer than this are level.
LEVEL = 0.05
# Observations of the baseline that a reference is frozen from.
REFERENCE = 500
SHARES = [0.05, 0.50]
DROPS = ["6", "10", "20"]
# The regressions that are to be found, by metric.
WORSE = {
    "pass": [f"drop {drop}" for drop in DROPS],
    "errors": ["x3", "x10"],
    "cost": ["x1.4", "x1.6", "x2"],
    "p95": ["x1.25", "x1.5"],
}
# Where a method that holds alpha in rolling back is known to be faster: on even traffic, twice as loose as it ships, and
# where the regression is small. Anywhere else it is a failure.
KNOWN = {
    (regression, 0.50, f"{method}, .05 a side")
    for method, regressions in {
        "gbstats sequential": ["pass drop 6", "errors x3", "p95 x1.25"],
        "mSPRT": ["pass drop 6", "cost x1.4", "cost x1.6", "p95 x1.25"],
    }.items()
    for regression in regressions
}
# The 95 % quantile of the baseline's latencies: log-normal, mean 1, sigma 0.6.
P95 = math.exp(0.6 * NormalDist().inv_cdf(0.95) - 0.6**2 / 2)


def sluice(stream, _):
    return stream.harm, stream.safe


# Name, when it looks, and the method.
METHODS = [
    ("sluice", "block", sluice),
    ("gbstats sequential, .05 in two sides", "request", gbstats(ALPHA)),
    ("gbstats sequential, .05 a side", "request", gbstats(2 * ALPHA)),
    ("mSPRT, .05 in two sides", "request", msprt(ALPHA)),
    ("mSPRT, .05 a side", "request", msprt(2 * ALPHA)),
    ("z-test of the margin", "request", z_test(True)),
    ("z-test of a difference", "request", z_test(False)),
    ("Mann-Whitney judge", "minute", mann_whitney),
    ("window of 100, 1 breach", "window", window(1)),
    ("window of 100, 5 breaches", "window", window(5)),
]
# Those with a statement about safety.
SAFE = METHODS[:6]
# Those that are made to be looked at all the time. Any other that seems to hold alpha somewhere does so by the chance of few
# streams.
LOOKED_AT = METHODS[:5]

PASS = Question(margin=0.03, tau=0.03, first=30)


@dataclass
class Job:
    scenario: str
    share: float
    question: Question
    methods: list
    # A higher value is worse; the canary's are divided by what they may be higher by.
    worse: bool = False
    handicap: float = 1.0
    # What is above it is a one.
    threshold: float | None = None

    def change(self, canary, values):
        values = np.where(canary, values / self.handicap, values)
        if self.threshold is not None:
            values = (values > self.threshold).astype(np.float64)
        return -values if self.worse else values


# Neither gbstats nor mSPRT has a boundary in terms of a ratio: the canary's values are divided by it, so that they answer
# sluice's question. Told the difference that it comes to, they would know the baseline, and find errors a seventh sooner. Of
# latencies they are told which are above the baseline's true quantile, which sluice has to learn.
QUESTIONS = {
    "errors": dict(question=Question(0.0, 0.005, 100), worse=True, handicap=1.5),
    "cost": dict(question=Question(0.0, 0.2, 100), worse=True, handicap=1.2),
    "p95": dict(question=Question(0.0, 0.014, 100), worse=True, handicap=1.1, threshold=P95),
}


def jobs():
    for share in SHARES:
        for name in ["equal", "at the margin", *WORSE["pass"]]:
            yield Job(f"pass {name}", share, PASS, METHODS)
        for metric, asked in QUESTIONS.items():
            for name in ["at the margin", *WORSE[metric]]:
                yield Job(f"{metric} {name}", share, methods=SAFE, **asked)


def judged(number, runs):
    """For each method, what it said of each stream of job `number`."""
    job = list(jobs())[number]
    found = [[] for _ in job.methods]
    for stream in streams.read(job.scenario, job.share, runs, change=job.change):
        for said, (_, _, method) in zip(found, job.methods):
            said.append(method(stream, job.question))
    return found


def share_of(crossings):
    return sum(at is not None for at in crossings) / len(crossings)


def error(share, runs):
    """Standard error of a share, at alpha where that is larger."""
    at = max(share, ALPHA)
    return math.sqrt(at * (1 - at) / runs)


def canary(crossings):
    """Canary observations until it fired; never counts as later than all."""
    return np.array([np.inf if at is None else at[1] for at in crossings])


def compare(ours, theirs):
    """Ratio of the medians and its standard error: streams drawn again, both methods on the same ones."""
    random, (a, b) = np.random.default_rng(1), (canary(ours), canary(theirs))
    picks = random.integers(0, len(a), size=(400, len(a)))
    with np.errstate(all="ignore"):
        again = np.median(a[picks], axis=1) / np.median(b[picks], axis=1)
        again = again[np.isfinite(again)]
        return float(np.median(a) / np.median(b)), float(np.std(again)) if len(again) else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--data", default=os.environ.get("DATA", "../shared/data"))
    parser.add_argument("--json", help="a file for the results, a line each")
    arguments = parser.parse_args()
    check_gbstats()
    checked = check_mann_whitney(arguments.data)
    streams.program()
    with ProcessPoolExecutor() as pool:
        all_jobs = list(jobs())
        results = list(pool.map(judged, range(len(all_jobs)), [arguments.runs] * len(all_jobs)))
    said = {
        (job.scenario, job.share, name): found
        for job, result in zip(all_jobs, results)
        for (name, _, _), found in zip(job.methods, result)
    }
    harm = lambda scenario, share, name: [harm for harm, _ in said[scenario, share, name]]
    safe = lambda scenario, share, name: [safe for _, safe in said[scenario, share, name]]
    failures, faster = [], []

    def holds(name, metric, share):
        """Whether a method holds alpha in rolling back, as far as the streams tell: one that is not made to be looked at all
        the time, in all of them."""
        made_for_it = any(name == known for known, _, _ in LOOKED_AT)
        own = [metric, share] if made_for_it else None
        found = [
            harm(f"{m} {at}", q, name)
            for m, q, at in itertools.product(WORSE, SHARES, ("equal", "at the margin"))
            if own in (None, [m, q]) and (f"{m} {at}", q, name) in said
        ]
        return all(p <= ALPHA + 3 * error(p, arguments.runs) for p in map(share_of, found))

    print(f"Pass rate 0.90, margin 3 points, {streams.REQUESTS:,} requests, {arguments.runs} streams; nominal alpha {ALPHA}.")
    print(f"s.e. of a share of {ALPHA}: {error(0, arguments.runs):.4f}. The Mann-Whitney judge agrees with {checked} known answers.")
    head = f"{'':<37} {'looks every':<11}"
    for share in SHARES:
        head += f" | {share:.0%}: rolled back: equal, margin; canary to fire: 6, 10, 20".ljust(58)
    print(head)
    rows = []
    for name, looks, _ in METHODS:
        line = f"{name:<37} {looks:<11}"
        for share in SHARES:
            equal, margin = (share_of(harm(f"pass {at}", share, name)) for at in ("equal", "at the margin"))
            medians = [float(np.median(canary(harm(f"pass drop {drop}", share, name)))) for drop in DROPS]
            cells = "".join(f"{m:>8.0f}" if math.isfinite(m) else "   never" for m in medians)
            mark = "" if holds(name, "pass", share) else " !"
            line += f" | {equal:>7.4f} {margin:>7.4f} {cells}{mark}".ljust(58)
            rows.append({"method": name, "looks": looks, "canary_share": share, "rolled_back_equal": equal})
            rows[-1] |= {"rolled_back_at_margin": margin, "canary_to_fire": dict(zip(DROPS, medians))}
        print(line.rstrip())
        if name == "sluice":
            # A median of a sum: the canary's observations of the warm-up hardly vary.
            line = f"{'  from the start of its reference':<37} {'':<11}"
            for share, row in zip(SHARES, rows):
                warm_up = REFERENCE * share / (1 - share)
                cells = "".join(f"{m + warm_up:>8.0f}" for m in row["canary_to_fire"].values())
                line += f" | {'':>15} {cells}".ljust(58)
            print(line.rstrip())
    print("!: alpha not held, by more than 3 s.e.\n")

    print("Shown safe although exactly at the margin")
    cases = [(scenario, share) for scenario in WORSE for share in SHARES]
    print(f"{'':<37} " + " ".join(f"{scenario + f' {share:.0%}':>12}" for scenario, share in cases))
    for name, _, _ in SAFE:
        line = f"{name:<37} "
        for scenario, share in cases:
            p = share_of(safe(f"{scenario} at the margin", share, name))
            over = p > ALPHA + 3 * error(p, arguments.runs)
            line += f"{p:>11.4f}{'!' if over else ' '} "
            rows.append({"method": name, "scenario": scenario, "canary_share": share, "shown_safe_at_margin": p})
            if name == "sluice":
                back = share_of(harm(f"{scenario} at the margin", share, name))
                for what, p in (("shown safe", p), ("rolled back", back)):
                    if p > ALPHA + 3 * error(p, arguments.runs):
                        failures.append(f"sluice: {scenario} at {share:.0%}, at the margin: {what} in {p:.4f}")
        print(line.rstrip())

    print("\nSluice's median over that of each method that holds alpha in rolling back")
    for metric, regressions in WORSE.items():
        for name, _, _ in METHODS[1:] if metric == "pass" else SAFE[1:]:
            for share in SHARES:
                if not holds(name, metric, share):
                    continue
                line = f"{metric:<6} {name:<37} {share:>4.0%} "
                for regression in regressions:
                    scenario = f"{metric} {regression}"
                    ratio, se = compare(harm(scenario, share, "sluice"), harm(scenario, share, name))
                    word = "neither" if math.isnan(ratio) else "level"
                    if abs(ratio - 1) > max(3 * se, LEVEL):
                        word = "faster" if ratio < 1 else "SLOWER"
                    if word == "SLOWER":
                        said_so = (
                            f"sluice is slower than {name} on {scenario} at {share:.0%} of the traffic: its median is "
                            f"{ratio:.2f} times as many canary observations (s.e. {se:.2f})"
                        )
                        known = (scenario, share, name) in KNOWN
                        faster.append(said_so + (", which is known" if known else ""))
                        failures += [] if known else [said_so]
                    line += f" | {regression:>7}: {ratio:>5.3f} ({se:.3f}) {word:<6}"
                    rows.append({"method": name, "canary_share": share, "scenario": scenario, "ratio": ratio})
                    rows[-1] |= {"standard_error": se, "sluice_is": word.lower()}
                print(line.rstrip())
    print(f"level: within 3 s.e. or {LEVEL:.0%}; neither: no median, for most streams ended before\n")
    print("Where a method that holds alpha in rolling back is faster than sluice: " + ("" if faster else "nowhere."))
    for said_so in faster:
        print(f"  {said_so}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
    for failure in failures:
        print(f"FAILED: {failure}")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
