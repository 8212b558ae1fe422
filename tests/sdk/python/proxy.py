"""Starts the real binary for a test, and the small tools that the tests share: tokens, recorded events."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import centrifuge
from cent import Client as Api

API_KEY = "api-key-of-the-tests"
SECRET = "token-secret-of-the-tests-0123456789"
DEADLINE = 20.0
BINARY = os.environ["RINGMAIN_BIN"]
REACTOR = os.environ.get("RINGMAIN_TEST_REACTOR", "uring")
PROTOBUF = os.environ.get("RINGMAIN_TEST_WIRE", "websocket-json") == "websocket-protobuf"


def pack(value):
    """A value as the SDK wants it: bytes with Protobuf."""
    return json.dumps(value).encode() if PROTOBUF else value


def unpack(value):
    """What the SDK hands out, with bytes read as the JSON that they are."""
    return json.loads(value) if isinstance(value, bytes) else value


CONFIG = f"""
[http_api]
key = "{API_KEY}"

[drain]
notice = "0s"
window = "100ms"
grace = "2s"

[client.token]
hmac_secret_key = "{SECRET}"

[client]
expired_close_delay = "2s"
expired_sub_close_delay = "2s"
ping_interval = "2s"
pong_timeout = "1s"

[[channel.namespaces]]
name = "room"
presence = true
join_leave = true
history_size = 300
history_ttl = "300s"
force_recovery = true
force_push_join_leave = true
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_presence_for_client = true
allow_history_for_client = true

[[channel.namespaces]]
name = "three"
history_size = 3
history_ttl = "300s"
force_recovery = true
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "plain"
allow_subscribe_for_client = true
allow_publish_for_client = true

[[channel.namespaces]]
name = "closed"
"""


class Proxy:
    """A running ringmain."""

    def __init__(self, lines=""):
        self._directory = tempfile.TemporaryDirectory(prefix="ringmain-")
        self._path = Path(self._directory.name)
        (self._path / "ringmain.toml").write_text(CONFIG + lines)
        self._run("127.0.0.1:0")

    def _run(self, listen):
        ready = self._path / "ready.json"
        ready.unlink(missing_ok=True)
        command = [BINARY, "--config", str(self._path / "ringmain.toml"), "--listen", listen, "--shards", "2"]
        command += ["--reactor", REACTOR, "--admin", "127.0.0.1:0", "--ready-file", str(ready)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RINGMAIN_")}
        with open(self._path / "log", "ab") as log:
            self._process = subprocess.Popen(command, cwd=self._path, stdout=log, stderr=log, env=environment)
        answer = self._ready(ready)
        self.address = answer["listen"][0]
        self.url = f"ws://{self.address}/connection/websocket"
        self.api = Api(f"http://{self.address}/api", API_KEY)

    def _ready(self, path):
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            try:
                return json.loads(path.read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                try:
                    self._process.wait(0.01)
                except subprocess.TimeoutExpired:
                    continue
                raise AssertionError(f"ringmain ended:\n{(self._path / 'log').read_text()}") from None
        raise AssertionError("ringmain was not ready in time")

    def kill(self):
        self._process.kill()
        self._process.wait()

    def terminate(self):
        """Drains the server; its exit status."""
        self._process.terminate()
        return self._process.wait(DEADLINE)

    def run_again(self):
        """Another process on the same port."""
        self._run(self.address)

    def stop(self):
        self.kill()
        self._directory.cleanup()


def token(**claims):
    """An HS256 token over these claims."""

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    text = part(b'{"alg":"HS256","typ":"JWT"}') + "." + part(json.dumps(claims).encode())
    return text + "." + part(hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).digest())


def after(seconds):
    """Unix time so many seconds from now."""
    return int(time.time()) + seconds


class Events:
    """Records events in order; `until` waits for one that was not waited for before."""

    def __init__(self):
        self.all = []
        self._taken = 0
        self._changed = asyncio.Event()

    def _record(self, name, context):
        self.all.append((name, context))
        self._changed.set()

    async def until(self, name, matches=lambda context: True):
        async def search():
            while True:
                while self._taken < len(self.all):
                    seen, context = self.all[self._taken]
                    self._taken += 1
                    if seen == name and matches(context):
                        return context
                self._changed.clear()
                await self._changed.wait()

        try:
            return await asyncio.wait_for(search(), DEADLINE)
        except asyncio.TimeoutError:
            raise AssertionError(f"waited for {name}; came: {self.all}") from None

    def named(self, name):
        return [context for seen, context in self.all if seen == name]


def _recorder(base, names):
    class Recorder(base):
        def __init__(self):
            self.events = Events()

    def method(name):
        async def record(self, ctx):
            self.events._record(name, ctx)

        return record

    for name in names:
        setattr(Recorder, f"on_{name}", method(name))
    return Recorder


ClientRecorder = _recorder(
    centrifuge.ClientEventHandler,
    ["connecting", "connected", "disconnected", "error", "subscribed", "subscribing", "unsubscribed", "publication", "join", "leave"],
)
SubscriptionRecorder = _recorder(
    centrifuge.SubscriptionEventHandler,
    ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"],
)
