"""Rollouts of recorded model outcomes: what really happened, served as live traffic, decided by the daemon.

All scenarios run side by side on one daemon, each as a service of its own.

The evidence has an error rate by design, and the moments at which weights change are not seeded, so no
seed can take it away. In 300 simulated runs per scenario D01, D03a and D03b were always decided as
expected; D03c and D16 were rolled back once each. One failure in about 150 runs is therefore no defect;
a second one soon after is.
"""

import asyncio
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest

from daemon import ROOT, Daemon, NatsServer, assert_replays
from service import Service, now
from traffic import Scenario, Traffic, arrivals

DATA = ROOT / os.environ.get("SLUICE_DATA", "../shared/data")
POLICIES = Path(__file__).parent / "policies"
# The recorded hour passes in 36 s: 19,366 requests a scenario, which is what the policies are made for.
COMPRESSION = 100
BATCH_S = 0.1  # a telemetry message holds what was served in this time
SEED = 7

# Scenario of the manifest -> change kind and policy of its rollout.
RUNS = {
    "D01": ("model", "model-data"),
    "D03a": ("model", "model-data"),
    "D03b": ("model", "model-data"),
    "D03c": ("model", "model-data"),
    "D16": ("serving", "same-agent"),
}


@dataclass
class Result:
    id: str
    expected: str
    decided: str
    baseline: int  # requests each version served until the end of the run
    canary: int
    seconds: float  # from the intent to the decision; for no_change, to the end of the traffic
    state: str  # of the rollout at the end

    def row(self):
        return (
            f"{self.id:<5} {self.expected:<10} {self.decided:<10} {self.baseline:>8} {self.canary:>8} "
            f"{self.seconds:>6.1f} s  {self.state}"
        )


async def play(url, scenario, times):
    """Deploys the canary, serves the hour, and says what sluice made of it."""
    client = await nats.connect(url)
    service = await Service(client, scenario.id.lower()).start()
    traffic = Traffic(scenario, service.name, SEED)
    kind, policy = RUNS[scenario.id]
    start = time.monotonic()
    await service.deploy(scenario.baseline, scenario.canary, policy, kind=kind)

    decided, seconds, samples = "no_change", None, []

    def look():
        # A rollback is final; a cost alert is what is decided unless a rollback follows.
        nonlocal decided, seconds
        word = "rollback" if service.decided("rollback") else "alert" if cost_alerts(service) else "no_change"
        if word != decided:
            decided, seconds = word, time.monotonic() - start

    for at in times:
        ahead = at - (time.monotonic() - start)
        if ahead > 0 or len(samples) >= 500:
            if samples:
                await service.measure(json.dumps(samples).encode())
                samples = []
            look()
            if service.decided("rollback") or service.decided("complete"):
                break
            if ahead > 0:
                # At least a batch apart: what arrives meanwhile is served together.
                await asyncio.sleep(max(ahead, BATCH_S))
        traffic.weight = service.weight
        samples.append(traffic.serve(now()))
    if samples:
        await service.measure(json.dumps(samples).encode())

    if decided == "rollback":
        await service.reaches("rolled_back")
    look()
    state = (await service.status())["state"] if service.rollout else "no command"
    await client.close()
    counts = traffic.served[scenario.baseline], traffic.served[scenario.canary]
    return Result(scenario.id, scenario.expected, decided, *counts, seconds or time.monotonic() - start, state)


def cost_alerts(service):
    return [alert for alert in service.alerts if "cost_usd" in json.dumps(alert)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    entries = {entry["id"]: entry for entry in json.loads((DATA / "manifest.json").read_text())["scenarios"]}
    scenarios = [Scenario.load(DATA, entries[name]) for name in RUNS]
    times = arrivals(DATA, COMPRESSION)
    folder = tmp_path_factory.mktemp("data")
    server = NatsServer(folder / "nats")
    daemon = Daemon(folder / "sluice", server.url, POLICIES)

    async def run():
        return await asyncio.gather(*(play(server.url, scenario, times) for scenario in scenarios))

    results = asyncio.run(run())
    daemon.stop()
    server.stop()
    print("\n\nid    expected   decided    baseline   canary     time  state at the end")
    for result in results:
        print(result.row())
    return {result.id: result for result in results}, daemon.data


@pytest.mark.parametrize("name", RUNS)
def test_each_scenario_is_decided_as_its_figures_say(results, name):
    result = results[0][name]
    assert result.decided == result.expected
    # Nothing is decided about a canary that served nobody, not even that it is as good as before.
    assert result.canary > 0
    if result.expected == "rollback":
        assert result.state == "rolled_back"


def test_the_whole_record_replays_anywhere(results):
    assert_replays(results[1])
