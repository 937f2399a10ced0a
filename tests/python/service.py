"""A service under rollout as its surroundings see it: who deploys it, routes it and measures it."""

import asyncio
import json
import uuid
from datetime import datetime, timezone

from daemon import DEADLINE_S


def now() -> str:
    """The time of a request as telemetry gives it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def until(what, condition):
    """Waits until `condition()` is true and returns what it gave."""
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while not (value := condition()):
        if asyncio.get_running_loop().time() > end:
            raise TimeoutError(f"waited {DEADLINE_S} s in vain for {what}")
        await asyncio.sleep(0.01)
    return value


async def call(nats, verb, **request):
    """Asks the micro service; returns the reply's JSON, or raises with the error it names."""
    reply = await nats.request(f"sluice.v1.api.{verb}", json.dumps(request).encode(), timeout=DEADLINE_S)
    headers = reply.headers or {}
    if code := headers.get("Nats-Service-Error-Code"):
        raise RuntimeError(f"{verb} answers {code}: {headers.get('Nats-Service-Error')}")
    return json.loads(reply.data)


class Service:
    """Plays the actuator `router`: applies each command, confirms it, and collects what sluice says."""

    def __init__(self, nats, name):
        self.nats = nats
        self.js = nats.jetstream(timeout=DEADLINE_S)
        self.name = name
        self.weight = 0  # per cent of users on the canary
        self.commands, self.decisions, self.alerts = [], [], []  # whole messages, as they came

    async def start(self):
        await self.nats.subscribe(f"sluice.v1.command.{self.name}.*", cb=self.on_command)
        await self.nats.subscribe(f"sluice.v1.decision.{self.name}.*", cb=self.on_decision)
        await self.nats.subscribe(f"sluice.v1.alert.{self.name}", cb=self.on_alert)
        await self.nats.flush()  # from here on nothing is missed
        return self

    async def on_command(self, message):
        self.commands.append(message)
        command = json.loads(message.data)
        self.weight = command["canary_weight"]
        ack = {"command": command["command"], "actuator": "router", "status": "applied"}
        await self.js.publish(f"sluice.v1.ack.{self.name}", json.dumps(ack).encode())

    async def on_decision(self, message):
        self.decisions.append(message)

    async def on_alert(self, message):
        self.alerts.append(json.loads(message.data))

    def decided(self, choice):
        """The messages that carry this decision."""
        return [message for message in self.decisions if message.subject.endswith(f".{choice}")]

    @property
    def rollout(self):
        """The rollout's id, once a command has named it."""
        return json.loads(self.commands[0].data)["rollout"] if self.commands else None

    async def deploy(self, from_, to, policy, kind="model", headers=None):
        intent = {
            "service": self.name, "change": {"kind": kind, "from": from_, "to": to},
            "policy": policy, "by": "maya", "reason": "a better answer",
        }  # fmt: skip
        headers = {"Nats-Msg-Id": str(uuid.uuid4()), **(headers or {})}
        await self.js.publish(f"sluice.v1.intent.{self.name}", json.dumps(intent).encode(), headers=headers)

    async def measure(self, payload, content_type="application/json", headers=None):
        """Publishes one telemetry message; returns once the broker has it on disk."""
        headers = {"Nats-Msg-Id": str(uuid.uuid4()), "Content-Type": content_type, **(headers or {})}
        await self.js.publish(f"sluice.v1.telemetry.{self.name}", payload, headers=headers)

    async def status(self):
        return await call(self.nats, "status", rollout=self.rollout)

    async def reaches(self, state):
        """Waits until the rollout is in this state; returns its status."""
        end = asyncio.get_running_loop().time() + DEADLINE_S
        while (status := await self.status())["state"] != state:
            if asyncio.get_running_loop().time() > end:
                raise TimeoutError(f"{self.rollout} is {status['state']} after {DEADLINE_S} s, not {state}")
            await asyncio.sleep(0.05)
        return status
