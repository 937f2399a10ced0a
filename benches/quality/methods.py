"""Other methods, each looking as often as it can at the counts of a stream so far.

A method takes a stream and a `Question` and returns where it first found harm and where it first found safety:
(request, canary observations) or None.
"""

import json
import math
import pathlib
from dataclasses import dataclass
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
from gbstats.models.statistics import ProportionStatistic

ALPHA = 0.05
# Canary observations of a window, and the drop of its mean that is a breach.
WINDOW, DROP = 100, 0.03
# A minute of traffic, for the method that judges minutes.
PER_MINUTE = 1_000


@dataclass
class Question:
    """The canary's mean may be lower by `margin`. No asymptotic method is asked before `first` canary observations."""

    margin: float
    tau: float
    first: int


def first(fires, canary, at_least):
    fires = fires & (canary >= at_least)
    at = int(np.argmax(fires))
    return (at + 1, int(canary[at])) if fires[at] else None


def difference(stream):
    """Canary mean minus baseline mean, and its variance, after each request."""
    (n_a, sum_a, squares_a), (n_b, sum_b, squares_b) = stream.counts
    mean_a, mean_b = sum_a / n_a, sum_b / n_b
    variance = (squares_a / n_a - mean_a**2) / n_a + (squares_b / n_b - mean_b**2) / n_b
    return mean_b - mean_a, variance


def gbstats_range(baseline, canary, alpha):
    """gbstats' own always-valid interval, given arrays in the place of numbers."""

    def statistic(n, total, squares):
        mean = total / n
        return SimpleNamespace(n=n, mean=mean, unadjusted_mean=None, variance=squares / n - mean * mean)

    # The constructor asks its arguments questions that arrays do not answer; the formulas take both. An absolute
    # difference has no use for the unadjusted mean.
    test = SequentialTwoSidedTTest.__new__(SequentialTwoSidedTTest)
    test.stat_a, test.stat_b, test.alpha, test.relative = statistic(*baseline), statistic(*canary), alpha, False
    test.sequential_tuning_parameter = SequentialConfig().sequential_tuning_parameter
    return test.confidence_interval


def check_gbstats():
    """The arrays give what its own types give."""
    a, b = ProportionStatistic(n=1900, sum=1710), ProportionStatistic(n=100, sum=80)
    config = SequentialConfig(difference_type="absolute", alpha=ALPHA)
    want = SequentialTwoSidedTTest(a, b, config).confidence_interval
    have = gbstats_range(*([np.array([float(x)]) for x in (s.n, s.sum, s.sum)] for s in (a, b)), ALPHA)
    assert np.allclose(want, [have[0][0], have[1][0]], rtol=1e-12), (want, have)


def gbstats(alpha):
    def method(stream, question):
        with np.errstate(all="ignore"):
            lo, hi = gbstats_range(*stream.counts, alpha)
        seen = stream.counts[1][0]
        return first(hi < -question.margin, seen, question.first), first(lo > -question.margin, seen, question.first)

    return method


def msprt(alpha):
    """Normal mixture over the difference with its variance plugged in (Johari, Koomen, Pekelis, Walsh 2022)."""

    def method(stream, question):
        with np.errstate(all="ignore"):
            diff, v = difference(stream)
            off, tau = diff + question.margin, question.tau
            ln = 0.5 * np.log(v / (v + tau**2)) + tau**2 * off**2 / (2 * v * (v + tau**2))
            fires = ln >= math.log(1 / alpha)
        seen = stream.counts[1][0]
        return first(fires & (off < 0), seen, question.first), first(fires & (off > 0), seen, question.first)

    return method


def z_test(beyond_margin):
    """A one-sided z-test at 5 %, for a sample of a size fixed beforehand, looked at after every request from 100 on."""

    def method(stream, question):
        with np.errstate(all="ignore"):
            diff, v = difference(stream)
            z = (diff + (question.margin if beyond_margin else 0.0)) / np.sqrt(v)
        critical, seen = NormalDist().inv_cdf(1 - ALPHA), stream.counts[1][0]
        return first(z < -critical, seen, 100), first(z > critical, seen, 100)

    return method


def window(breaches):
    """The mean of 100 canary observations, and the baseline's of the same time: a breach when lower by 3 points."""

    def method(stream, _):
        (n_a, sum_a, _), (n_b, sum_b, _) = stream.counts
        ends = np.searchsorted(n_b, np.arange(WINDOW, int(n_b[-1]) + 1, WINDOW))
        if len(ends) == 0:
            return None, None
        between = lambda x: np.diff(x[ends], prepend=0.0)
        with np.errstate(all="ignore"):
            drop = between(sum_a) / between(n_a) - between(sum_b) / between(n_b)
        failed = np.cumsum(drop > DROP) >= breaches
        at = int(np.argmax(failed))
        return ((int(ends[at]) + 1, int(n_b[ends[at]])) if failed[at] else None), None

    return method


def shift(ordered, canary, baseline, confidence):
    """Hodges-Lehmann shift between its limits, from the ordered differences, as R's wilcox.test: normal approximation,
    corrected for ties and continuity."""
    n, pairs = len(canary) + len(baseline), len(ordered)
    ties = 0.0
    for arm in (canary, baseline):
        _, repeats = np.unique(arm, return_counts=True)
        ties += float((repeats.astype(float) ** 3 - repeats).sum())
    sigma = math.sqrt(pairs / 12 * (n + 1 - ties / (n * (n - 1))))
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    below = min(max(math.floor(pairs / 2 - 0.5 - z * sigma), 0), pairs - 1)
    middle = (ordered[(pairs - 1) // 2] + ordered[pairs // 2]) / 2
    return ordered[below], middle, ordered[pairs - 1 - below]


def classify(limits, tolerance, direction):
    lo, middle, hi = limits
    bound = tolerance * abs(middle)
    if direction in ("either", "increase") and lo > bound:
        return "high"
    return "low" if direction in ("either", "decrease") and hi < -bound else "pass"


def mann_whitney(stream, _):
    """As Kayenta judges: means of minutes, from the tenth minute on; 98 %, tolerance a quarter of the shift."""
    (n_a, sum_a, _), (n_b, sum_b, _) = stream.counts
    ends = np.arange(PER_MINUTE, stream.requests + 1, PER_MINUTE) - 1
    between = lambda x: np.diff(x[ends], prepend=0.0)
    a, b = between(sum_a) / between(n_a), between(sum_b) / between(n_b)
    differences = np.subtract.outer(b, a)
    for minutes in range(10, len(ends) + 1):
        ordered = np.sort(differences[:minutes, :minutes], axis=None)
        if classify(shift(ordered, b[:minutes], a[:minutes], 0.98), 0.25, "decrease") == "low":
            end = ends[minutes - 1]
            return (int(end) + 1, int(n_b[end])), None
    return None, None


# Mostly zeros in both arms: the whole interval is one point, 0, and the verdict is where a root search stopped beside it.
ONE_POINT = "Mann-Whitney Classifier Test: High Metric (Large Input)"


def check_mann_whitney(data):
    """Against known answers: shifts by R, and the verdicts that depend on confidence and tolerance alone."""
    checked = 0
    for line in (pathlib.Path(data) / "fixtures/mann-whitney-reference.jsonl").read_text().splitlines():
        case = json.loads(line)
        canary, baseline = np.array(case["canary"]), np.array(case["baseline"])
        ordered = np.sort(np.subtract.outer(canary, baseline), axis=None)
        if case["kind"] == "mann_whitney_shift_ci":
            have = shift(ordered, canary, baseline, case["confidence_level"])
            want = [case["expected"][key] for key in ("ci_low", "estimate", "ci_high")]
            assert np.allclose(have, want, atol=1e-3), (case["name"], have, want)
        elif set(case["judge_settings"]) == {"tolerance", "confidence_level"} and case["name"] != ONE_POINT:
            settings, equal = case["judge_settings"], len({*canary, *baseline}) == 1
            limits = (0.0, 0.0, 0.0) if equal else shift(ordered, canary, baseline, settings["confidence_level"])
            have = classify(limits, settings["tolerance"], case["direction_of_concern"])
            assert have == case["expected"]["classification"], (case["name"], have)
        else:
            continue
        checked += 1
    return checked
