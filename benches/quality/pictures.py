"""Draws docs/pictures from simulated streams: the same bytes for the same seeds."""

import argparse
import pathlib

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "sluice", "svg.fonttype": "none", "font.size": 9, "axes.grid": True})
matplotlib.rcParams.update({"grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False})

import matplotlib.pyplot as plt
import numpy as np

import streams
from methods import Question, window, z_test

PASS = Question(margin=0.03, tau=0.03, first=30)
OURS, OTHER, THIRD, LIMIT = "#0b6e4f", "#c44536", "#e09f3e", "#555555"


def save(figure, folder, name):
    figure.tight_layout()
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def share_fired(crossings, looks):
    """Share of the streams in which it has fired by each look."""
    at = np.array([np.inf if found is None else found[0] for found in crossings])
    return (at[None, :] <= looks[:, None]).mean(axis=1)


def rolled_back(folder, runs):
    """Healthy canaries rolled back, the more the longer one looks."""
    methods = [("z-test at 5 %, looked at after every request", z_test(False), OTHER)]
    methods += [("window of 100: lower by more than 3 points", window(1), THIRD)]
    said = {"sluice": [], **{name: [] for name, _, _ in methods}}
    for stream in streams.read("pass equal", 0.05, runs):
        said["sluice"].append(stream.harm)
        for name, method, _ in methods:
            said[name].append(method(stream, PASS)[0])
    looks = np.unique(np.geomspace(200, streams.REQUESTS, 120).astype(int))
    figure, axes = plt.subplots(figsize=(6, 3.2))
    for name, colour in [*((name, colour) for name, _, colour in methods), ("sluice", OURS)]:
        axes.plot(looks, 100 * share_fired(said[name], looks), color=colour, label=name, drawstyle="steps-post")
    axes.axhline(5, color=LIMIT, linewidth=0.8, linestyle="--")
    axes.annotate("5 %", (looks[0], 5), xytext=(0, 3), textcoords="offset points", color=LIMIT)
    axes.set(xscale="log", xlabel="requests, 5 % of them to the canary", ylabel="rolled back, %", ylim=(-2, 102))
    axes.set_title("Canaries that are like the baseline (pass rate 90 %)", loc="left", fontsize=10)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.9))
    save(figure, folder, "rolled-back")


# Streams, with Wald's limit for alpha 0.05 in canary observations, as `make decision-quality` computes it.
DETECTION = [
    ("pass drop 6", "pass rate\n-6 points", 835),
    ("pass drop 10", "pass rate\n-10 points", 165),
    ("errors x3", "errors\nx3", 559),
    ("cost x1.4", "cost\nx1.4", 365),
    ("cost x1.6", "cost\nx1.6", 96),
    ("p95 x1.25", "p95 latency\nx1.25", 476),
]


def detection(folder, runs):
    """How many canary observations it takes, as a multiple of the least that any valid test needs on average."""
    figure, axes = plt.subplots(figsize=(6, 3.2))
    for i, (name, _, wald) in enumerate(DETECTION):
        found = [s.harm[1] / wald if s.harm else np.inf for s in streams.read(name, 0.05, runs)]
        low, middle, high = np.quantile(found, [0.1, 0.5, 0.9])
        axes.plot([i, i], [low, high], color=OURS, linewidth=6, alpha=0.3, solid_capstyle="butt")
        axes.plot([i - 0.15, i + 0.15], [middle, middle], color=OURS, linewidth=2)
        axes.plot(i, np.mean(found), marker="o", markersize=4, color=OURS, linestyle="none")
    axes.axhline(1, color=LIMIT, linewidth=0.8, linestyle="--")
    axes.annotate("Wald's limit of the mean", (len(DETECTION) - 0.5, 1), xytext=(0, -11), ha="right", color=LIMIT,
                  textcoords="offset points")
    axes.set_xticks(range(len(DETECTION)), [label for _, label, _ in DETECTION])
    axes.set(ylabel="canary observations / limit", ylim=(0, None))
    axes.set_title("Until a regression is found: median, mean (dot), 10-90 % (bar)", loc="left", fontsize=10)
    save(figure, folder, "detection")


def evidence(folder, _):
    """The evidence of one bad and one good canary."""
    figure, axes = plt.subplots(figsize=(6, 3.2))
    for name, colour, label in [("pass drop 6", OTHER, "6 points worse"), ("pass equal", OURS, "like the baseline")]:
        trace = streams.trace(name, 0.05, 1, 60_000)
        over = trace[:, 3] >= np.log(20)
        crossed = np.argmax(over) if over.any() else len(trace) - 1
        # Up to the decision; every eighth block is enough for the eye.
        trace = np.vstack([trace[:crossed:8], trace[crossed]])
        axes.plot(trace[:, 1], np.exp(trace[:, 3]), color=colour, label=f"{label}: harm")
        if name == "pass equal":
            axes.plot(trace[:, 1], np.exp(trace[:, 4]), color=colour, linestyle=":", label=f"{label}: safe")
    axes.axhline(20, color=LIMIT, linewidth=0.8, linestyle="--")
    axes.annotate("20x: decided", (22_500, 20), xytext=(0, 3), textcoords="offset points", color=LIMIT)
    axes.set(yscale="log", xlabel="requests, 5 % of them to the canary", ylabel="evidence", ylim=(1e-3, 1e3))
    axes.set_title("Evidence of two canaries, margin 3 points", loc="left", fontsize=10)
    axes.legend(frameon=False, loc="lower right", ncols=3, fontsize=8)
    save(figure, folder, "evidence")


def ramp(folder, runs):
    """Traffic gets harder while the canary's share grows: counts that are pooled blame the canary."""
    said = {"pooled": [], "sluice": []}
    for stream in streams.read("pass ramp, harder, equal", 0.01, runs):
        said["pooled"].append(z_test(True)(stream, PASS)[0])
        said["sluice"].append(stream.harm)
    looks = np.arange(500, streams.REQUESTS + 1, 500)
    figure, axes = plt.subplots(figsize=(6, 3.2))
    names = {"pooled": "pooled counts, z-test of the margin", "sluice": "sluice, block by block"}
    for name, colour in [("pooled", OTHER), ("sluice", OURS)]:
        axes.plot(looks, 100 * share_fired(said[name], looks), color=colour, label=names[name])
    for step, (share, level) in enumerate(zip(["1 %", "5 %", "25 %", "50 %"], [92, 92, 85, 80])):
        axes.axvline(25_000 * step, color=LIMIT, linewidth=0.5)
        axes.annotate(f"canary {share},\nboth pass {level} %", (25_000 * step + 700, 62), color=LIMIT, fontsize=8)
    axes.set(xlabel="requests", ylabel="rolled back, %", ylim=(-2, 102), xlim=(0, streams.REQUESTS))
    axes.set_title("Canaries like the baseline, on a ramp while traffic gets harder", loc="left", fontsize=10)
    axes.legend(frameon=False, loc="upper left")
    save(figure, folder, "ramp")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("docs/pictures"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for draw in (rolled_back, detection, evidence, ramp):
        draw(arguments.folder, arguments.runs)


if __name__ == "__main__":
    main()
