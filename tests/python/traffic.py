"""Serves real outcomes of real model versions as canary and baseline traffic.

Users are bucketed as flagd's `fractional` does it, requests arrive as in a recorded hour of chat
traffic (compressed in time), and each is answered with the outcome of a case drawn from the records
of the version that serves it. The seed decides everything but the moments at which weights change.
"""

import csv
import gzip
import random
from dataclasses import dataclass, field

USERS = 50_000  # so many that hardly one comes twice within a cohort, where evidence may count it once


def murmur3_32(data: bytes, seed: int = 0) -> int:
    """MurmurHash3, x86, 32 bit. Source: Austin Appleby's public-domain MurmurHash3.cpp."""
    mask, c1, c2 = 0xFFFFFFFF, 0xCC9E2D51, 0x1B873593

    def scramble(k):
        k = k * c1 & mask
        return ((k << 15 | k >> 17) & mask) * c2 & mask

    h = seed
    blocks = len(data) // 4 * 4
    for at in range(0, blocks, 4):
        h ^= scramble(int.from_bytes(data[at : at + 4], "little"))
        h = ((h << 13 | h >> 19) & mask) * 5 + 0xE6546B64 & mask
    if tail := data[blocks:]:
        h ^= scramble(int.from_bytes(tail, "little"))
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & mask
    h = (h ^ h >> 13) * 0xC2B2AE35 & mask
    return h ^ h >> 16


def bucket(flag_key: str, targeting_key: str, total: int = 100) -> int:
    """The bucket in [0, total) of a user, as flagd's `fractional` assigns it."""
    return murmur3_32((flag_key + targeting_key).encode()) * total >> 32


def rows(path):
    with gzip.open(path, "rt", newline="") as file:
        yield from csv.DictReader(file)


def outcome(row) -> dict:
    """The metrics of one recorded case. What its source did not record is left out, never zero."""
    sample = {}
    if row.get("pass"):
        sample["eval_pass"] = row["pass"] == "1"
    if row.get("cost_usd"):
        sample["cost_usd"] = float(row["cost_usd"])
    if row.get("latency_s"):
        sample["latency_ms"] = float(row["latency_s"]) * 1000
    if row.get("error"):
        sample["error"] = row["error"] == "1"
    return sample


@dataclass
class Scenario:
    """One entry of the data's manifest with the recorded outcomes of both its versions."""

    id: str
    expected: str
    baseline: str
    canary: str
    outcomes: dict  # version -> the outcomes recorded for it

    @staticmethod
    def load(folder, entry) -> "Scenario":
        # In an A/A entry the trials tell the arms apart; the canary then needs a name of its own.
        same = entry["baseline"] == entry["canary"]
        canary = entry["canary"] + ("-again" if same else "")
        outcomes = {entry["baseline"]: [], canary: []}
        for row in rows(folder / entry["file"]):
            if "groups" in entry and row["group"] not in entry["groups"]:
                continue
            if row["version"] not in (entry["baseline"], entry["canary"]):
                continue
            if same:
                is_canary = int(row["trial"]) in entry["canary_trials"]
                outcomes[canary if is_canary else entry["baseline"]].append(outcome(row))
            else:
                outcomes[row["version"]].append(outcome(row))
        measured = entry["measured"]
        found = (len(outcomes[entry["baseline"]]), len(outcomes[canary]))
        stated = (measured["rows_baseline"], measured["rows_canary"])
        if found != stated:
            raise ValueError(f"{entry['id']}: {found} rows for the two versions, the manifest states {stated}")
        return Scenario(entry["id"], entry["outcome"], entry["baseline"], canary, outcomes)


def arrivals(folder, compression) -> list:
    """Seconds from the start at which requests arrive: one recorded hour, `compression` times as fast."""
    return [float(row["t_s"]) / compression for row in rows(folder / "load/azure-conversation.csv.gz")]


@dataclass
class Traffic:
    """The requests of one scenario, served by whoever the weight says."""

    scenario: Scenario
    service: str
    seed: int
    weight: float = 0  # per cent of users on the canary; the actuator sets it
    served: dict = field(default_factory=dict)  # version -> requests so far

    def __post_init__(self):
        self.random = random.Random(self.seed)
        self.served = {self.scenario.baseline: 0, self.scenario.canary: 0}

    def serve(self, served_at: str) -> dict:
        """Serves one request; returns its telemetry sample."""
        user = f"user-{self.random.randrange(USERS)}"
        to_canary = bucket(self.service, user) < self.weight
        version = self.scenario.canary if to_canary else self.scenario.baseline
        self.served[version] += 1
        drawn = self.random.choice(self.scenario.outcomes[version])
        return {"version": version, "served_at": served_at, "unit": user, **drawn}
