"""The real nats-server and the real `sluice serve`, started for a test and ended with it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Longer than anything here takes on a loaded machine; only a broken run ever waits this long.
DEADLINE_S = 60


def wait_for(what, probe):
    """Polls `probe` until it gives something true and returns that."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if value := probe():
            return value
        time.sleep(0.005)
    raise TimeoutError(f"waited {DEADLINE_S} s in vain for {what}")


def sluice():
    """The binary under test."""
    path = ROOT / os.environ.get("SLUICE_BIN", "target/release/sluice")
    if not path.exists():
        raise FileNotFoundError(f"no daemon at {path}; build it (cargo build --release) or set SLUICE_BIN")
    return str(path)


def spawn(args, output):
    """Starts a process that dies with this one. Its standard streams go to `output`.out and .err."""
    with open(f"{output}.out", "wb") as out, open(f"{output}.err", "wb") as err:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *map(str, args)],
            stdin=subprocess.DEVNULL, stdout=out, stderr=err,
        )  # fmt: skip


def ended(process, output):
    """Raises when a process has ended by itself."""
    if process.poll() is not None:
        raise RuntimeError(f"{output} ended with {process.returncode}:\n{Path(f'{output}.err').read_text()[-4000:]}")


class NatsServer:
    """JetStream on a free port, with each message on disk before its ack."""

    def __init__(self, folder):
        binary = os.environ.get("SLUICE_NATS_SERVER") or shutil.which("nats-server")
        if binary is None:
            raise FileNotFoundError("no nats-server; `make test` installs one and sets SLUICE_NATS_SERVER")
        folder.mkdir()
        config = folder / "nats.conf"
        config.write_text(
            f'ports_file_dir: "{folder}"\njetstream {{ store_dir: "{folder}/store", sync_interval: always }}\n'
        )
        output = folder / "nats-server"
        self.process = spawn([binary, "-a", "127.0.0.1", "-p", "-1", "-c", config], output)
        ports = folder / f"nats-server_{self.process.pid}.ports"

        def started():
            ended(self.process, output)
            try:
                return json.loads(ports.read_text())["nats"][0]
            except (FileNotFoundError, json.JSONDecodeError):
                return None  # not written, or not in full

        self.url = wait_for("nats-server to write its ports file", started)
        host, port = self.url.removeprefix("nats://").split(":")
        with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
            greeting = connection.makefile().readline()
        assert '"jetstream":true' in greeting, greeting

    def stop(self):
        self.process.kill()
        self.process.wait()


class Daemon:
    """`sluice serve` on a data folder of its own."""

    def __init__(self, folder, nats_url, policies):
        folder.mkdir()
        self.data = folder / "data"
        self.output = folder / "sluice"
        self.args = ["serve", "--data", self.data, "--policies", policies, "--nats", nats_url, "--http", "127.0.0.1:0"]
        self.process = spawn([sluice(), *self.args], self.output)

        def ready():
            ended(self.process, self.output)
            complete = Path(f"{self.output}.out").read_text().rpartition("\n")[0]
            return [line for line in complete.splitlines() if line.startswith("ready http=")]

        self.url = "http://" + wait_for("the daemon's line `ready http=`", ready)[0].removeprefix("ready http=")

    def stop(self):
        """Ends the daemon in an orderly way."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE_S) == 0, Path(f"{self.output}.err").read_text()[-4000:]

    def kill(self):
        self.process.kill()
        self.process.wait()


# Where the machine stands and which language it speaks must not change a byte of what replays.
PLACES = [{}, {"TZ": "Asia/Kolkata", "LC_ALL": "C"}, {"TZ": "America/St_Johns", "LC_ALL": "de_DE.UTF-8"}]


def assert_replays(data):
    """The log of a stopped daemon gives the same conclusions again, wherever it is replayed."""
    for place in PLACES:
        replay = subprocess.run(
            [sluice(), "replay", "--verify", "--data", data],
            env={**os.environ, **place}, capture_output=True, text=True, timeout=10 * DEADLINE_S,
        )  # fmt: skip
        assert replay.returncode == 0, f"replay with {place} exits {replay.returncode}:\n{replay.stdout}{replay.stderr}"
