"""Sluice seen through a client that is not its own: nats-py, on the documented subjects only."""

import asyncio
import json
import random
from datetime import datetime
from pathlib import Path

import msgpack
import nats
import pytest

from daemon import Daemon, NatsServer, assert_replays
from service import Service, call, now, until

POLICIES = Path(__file__).parent / "policies"
VERBS = ["status", "ls", "explain", "promote", "pause", "resume", "rollback", "abort", "approve", "note", "deploy"]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A broker with a daemon on it. After the tests, what the daemon recorded must replay."""
    folder = tmp_path_factory.mktemp("client")
    server = NatsServer(folder / "nats")
    daemon = Daemon(folder / "sluice", server.url, POLICIES)
    yield server.url
    daemon.stop()
    server.stop()
    assert_replays(daemon.data)


def on_bus(url, story):
    """Runs a coroutine with a connection; an error on the connection fails the test too."""

    async def run():
        errors = []

        async def on_error(error):
            errors.append(error)

        client = await nats.connect(url, error_cb=on_error)
        try:
            await story(client)
        finally:
            await client.close()
        assert errors == []

    asyncio.run(run())


def as_lines(samples):
    return "\n".join(json.dumps(sample) for sample in samples).encode()


# How many messages a group of samples takes, and how each is written.
ENCODINGS = {
    "object": ("application/json", lambda samples: [json.dumps(sample).encode() for sample in samples]),
    "array": ("application/json", lambda samples: [json.dumps(samples).encode()]),
    "ndjson": ("application/x-ndjson", lambda samples: [as_lines(samples)]),
    "msgpack": ("application/msgpack", lambda samples: [msgpack.packb(samples)]),
}


async def serve(service, rates, done, encoding="array", headers=None):
    """Serves requests until `done()`: a version passes as often as `rates` says."""
    content_type, encode = ENCODINGS[encoding]
    dice = random.Random(7)
    baseline, canary = rates

    async def keep_serving():
        while not done():
            samples = []
            for n in range(40):
                version = canary if dice.random() * 100 < service.weight else baseline
                passed = dice.random() < rates[version]
                user = f"user-{dice.randrange(10**9)}"
                samples.append({"version": version, "served_at": now(), "unit": user, "eval_pass": passed})
            for payload in encode(samples):
                await service.measure(payload, content_type, headers)
            await asyncio.sleep(0.05)

    await asyncio.wait_for(keep_serving(), 60)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_clearly_worse_canary_is_rolled_back(url, encoding):
    async def story(client):
        rollbacks = []

        async def on_rollback(message):
            rollbacks.append(message)

        await client.subscribe("sluice.v1.decision.*.rollback", cb=on_rollback)
        service = await Service(client, f"support-{encoding}").start()
        traced = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        await service.deploy("prompt@41", "prompt@42", "quick", kind="prompt", headers=traced)
        rates = {"prompt@41": 0.93, "prompt@42": 0.30}
        await serve(service, rates, lambda: service.decided("rollback"), encoding, headers=traced)

        message = rollbacks[0]
        assert message.subject == f"sluice.v1.decision.{service.name}.rollback"
        decision = json.loads(message.data)
        assert decision["v"] == 1
        assert decision["rollout"] == service.rollout
        assert decision["decision"] == "rollback"
        assert decision["weight"] == {"from": 25, "to": 0}
        assert decision["mode"] == "automatic"
        assert "eval_pass" in decision["summary"]
        binding = decision["because"][0]
        assert (binding["metric"], binding["verdict"]) == ("eval_pass", "fail")

        headers = message.headers
        assert headers["Nats-Msg-Id"]
        assert headers["ce-id"] and headers["ce-source"]
        assert headers["ce-specversion"] == "1.0"
        assert headers["ce-type"].startswith("dev.cdeventsx.sluice-rollout.")
        assert headers["ce-subject"] == service.rollout
        assert datetime.fromisoformat(headers["ce-time"]).utcoffset().total_seconds() == 0
        version, trace, parent, _flags = headers["traceparent"].split("-")
        assert (version, trace, len(parent)) == ("00", TRACE, 16)

        await service.reaches("rolled_back")
        assert [json.loads(command.data)["canary_weight"] for command in service.commands] == [25, 0]
        assert all(command.headers["Nats-Msg-Id"] for command in service.commands)
        assert len(rollbacks) == 1

    on_bus(url, story)


def test_a_better_canary_goes_all_the_way(url):
    async def story(client):
        service = await Service(client, "support-good").start()
        await service.deploy("prompt@41", "prompt@42", "quick", kind="prompt")
        rates = {"prompt@41": 0.93, "prompt@42": 0.98}
        await serve(service, rates, lambda: service.decided("complete"))
        await service.reaches("completed")
        assert [json.loads(command.data)["canary_weight"] for command in service.commands] == [25, 50, 100]
        assert service.decided("rollback") == []

    on_bus(url, story)


@pytest.mark.parametrize(
    ("subject", "payload"),
    [
        ("sluice.v1.intent.support-bad", b"{"),
        ("sluice.v1.intent.support-bad", b'{"service":"support-bad"}'),
        ("sluice.v1.telemetry.support-bad", b'[{"version":"prompt@41","eval_pass":NaN}]'),
        ("sluice.v1.telemetry.support-bad", b"\xff\xfe\x00"),
        ("sluice.v1.ack.support-bad", b'{"command":"no-such","actuator":"router","status":"applied"}'),
    ],
)
def test_bad_input_comes_out_as_rejected_with_its_reason(url, subject, payload):
    async def story(client):
        rejected = []

        async def on_rejected(message):
            rejected.append(json.loads(message.data))

        await client.subscribe("sluice.v1.rejected", cb=on_rejected)
        await client.flush()
        await client.jetstream().publish(subject, payload)
        await until(f"the rejection of {payload!r}", lambda: rejected)
        assert rejected[0]["source"] == subject
        assert rejected[0]["bytes"] == len(payload)
        assert rejected[0]["code"].startswith("E") and rejected[0]["message"]

    on_bus(url, story)


def test_the_micro_service_can_be_discovered(url):
    async def story(client):
        ping = json.loads((await client.request("$SRV.PING.sluice", b"", timeout=10)).data)
        assert (ping["name"], ping["type"]) == ("sluice", "io.nats.micro.v1.ping_response")
        info = json.loads((await client.request("$SRV.INFO.sluice", b"", timeout=10)).data)
        subjects = {endpoint["subject"] for endpoint in info["endpoints"]}
        assert {f"sluice.v1.api.{verb}" for verb in VERBS} <= subjects

    on_bus(url, story)


def test_a_person_pauses_resumes_notes_and_rolls_back(url):
    async def story(client):
        service = await Service(client, "support-manual").start()
        await service.deploy("prompt@41", "prompt@42", "quick", kind="prompt")
        # Equally good: nothing is decided in the moments this takes, or a promotion, never a rollback.
        rates = {"prompt@41": 0.93, "prompt@42": 0.93}
        await serve(service, rates, lambda: service.commands)
        who = {"rollout": service.rollout, "actor": "maya", "reason": "looks odd"}
        for verb in ["pause", "note", "resume"]:
            await call(client, verb, **who)
        assert service.rollout in json.dumps(await call(client, "ls"))
        assert service.rollout in json.dumps(await call(client, "explain", rollout=service.rollout))

        await call(client, "rollback", **who)
        decision = json.loads((await until("the rollback", lambda: service.decided("rollback")))[0].data)
        assert decision["mode"] != "automatic"
        assert "looks odd" in json.dumps(decision)
        await service.reaches("rolled_back")
        assert service.weight == 0

        with pytest.raises(RuntimeError, match="^resume answers "):
            await call(client, "resume", **who)

    on_bus(url, story)


def test_an_unknown_rollout_is_an_error_with_a_code(url):
    async def story(client):
        with pytest.raises(RuntimeError, match="^status answers .*no-such-1"):
            await call(client, "status", rollout="no-such-1")

    on_bus(url, story)
