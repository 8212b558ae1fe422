"""PyPI `websockets`, compressed: an independent implementation of RFC 7692 on zlib itself."""

import itertools
import json
import os
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from proxy import BINARY, DEADLINE, REACTOR, Proxy, token

TEXT = "grüße aus der Ferne, immer wieder. " * 3000
NOISE = os.urandom(20_000)


class Echo(unittest.IsolatedAsyncioTestCase):
    """`ringmain echo --deflate`"""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="ringmain-")
        ready = Path(cls.directory.name) / "ready.json"
        command = [BINARY, "echo", "--deflate", "--listen", "127.0.0.1:0", "--reactor", REACTOR, "--ready-file", str(ready)]
        cls.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + DEADLINE
        while True:
            try:
                cls.url = f"ws://{json.loads(ready.read_text())['listen'][0]}/"
                return
            except (FileNotFoundError, json.JSONDecodeError):
                assert time.monotonic() < end, "the echo was not ready in time"
                try:
                    cls.process.wait(0.01)
                except subprocess.TimeoutExpired:
                    continue
                raise AssertionError("the echo ended") from None

    @classmethod
    def tearDownClass(cls):
        cls.process.kill()
        cls.process.wait()
        cls.directory.cleanup()

    async def test_messages_come_back_with_every_window_and_takeover(self):
        # zlib compresses with 9 bits at least.
        windows = [(None, None), *((bits, max(bits, 9)) for bits in range(8, 16))]
        for server, client, (server_bits, client_bits) in itertools.product((False, True), (False, True), windows):
            with self.subTest(server=server, client=client, server_bits=server_bits):
                offer = ClientPerMessageDeflateFactory(
                    server_no_context_takeover=server,
                    client_no_context_takeover=client,
                    server_max_window_bits=server_bits,
                    client_max_window_bits=client_bits or True,
                )
                async with connect(self.url, extensions=[offer], compression=None) as socket:
                    (agreed,) = socket.protocol.extensions
                    self.assertEqual(agreed.remote_no_context_takeover, server)
                    self.assertEqual(agreed.local_no_context_takeover, client)
                    self.assertEqual(agreed.remote_max_window_bits, server_bits or 15)
                    for message in 2 * [TEXT, NOISE, "", b"", "short"]:
                        await socket.send(message)
                        self.assertEqual(await socket.recv(), message)
                        await socket.send([message[:100], message[:0], message[100:]])
                        self.assertEqual(await socket.recv(), message)


class Compressed(unittest.IsolatedAsyncioTestCase):
    """The proxy with compression."""

    @classmethod
    def setUpClass(cls):
        cls.proxy = Proxy("\n[websocket]\ncompression = true\n")

    @classmethod
    def tearDownClass(cls):
        cls.proxy.stop()

    async def test_default_offer_of_the_library_that_the_sdk_uses_is_agreed_to(self):
        async with connect(self.proxy.url) as socket:
            (agreed,) = socket.protocol.extensions
            self.assertTrue(agreed.remote_no_context_takeover and agreed.local_no_context_takeover)
            self.assertEqual(agreed.remote_max_window_bits, 15)
            await socket.send(json.dumps({"id": 1, "connect": {"token": token(sub="ada")}}))
            self.assertEqual(json.loads(await socket.recv())["id"], 1)
            await socket.send(json.dumps({"id": 2, "subscribe": {"channel": "plain:deflate"}}))
            self.assertEqual(json.loads(await socket.recv())["id"], 2)
            data = {"noise": NOISE[:6000].hex(), "words": "again and again " * 200}
            await socket.send(json.dumps({"id": 3, "publish": {"channel": "plain:deflate", "data": data}}))
            seen = [json.loads(line) for _ in range(2) for line in (await socket.recv()).split("\n")]
            (publication,) = (reply["push"]["pub"] for reply in seen if "push" in reply)
            self.assertEqual(publication["data"], data)
