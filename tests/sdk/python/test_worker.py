"""The worker of docs/durable.md: it acknowledges, fails twice, leaves a dead letter, and repairs it. The code is that page's own."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
from pathlib import Path

from cent import PublishRequest

from proxy import API_KEY, BINARY, DEADLINE, Proxy, after, token

MOMENT = threading.Event()
PAGE = Path(__file__).parents[3] / "docs" / "durable.md"
LINES = """
[durable.embedded]
directory = "durable"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
"""


def code():
    """The first Python of the page."""
    return PAGE.read_text().split("```python\n")[1].split("```")[0]


class WorkerCase(unittest.TestCase):
    def setUp(self):
        self.proxy = Proxy(LINES)
        self.addCleanup(self.proxy.stop)
        directory = tempfile.TemporaryDirectory(prefix="ringmain-worker-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        claims = {"sub": "worker", "exp": after(600), "consume": {"billing": ["orders:*"]}}
        (self.directory / "token").write_text(token(**claims) + "\n")

    def worker(self, text):
        path = self.directory / "worker.py"
        path.write_text(text.replace("127.0.0.1:8000", self.proxy.address))
        environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        output = open(self.directory / "output", "w")
        process = subprocess.Popen([sys.executable, path], cwd=self.directory, stdout=output, stderr=output, env=environment)
        output.close()

        def end():
            process.kill()
            process.wait()

        self.addCleanup(end)
        return end

    def said(self, condition):
        """Waits until the worker has printed lines that fit."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            lines = (self.directory / "output").read_text().splitlines()
            if condition(lines):
                return lines
            MOMENT.wait(0.02)
        raise AssertionError((self.directory / "output").read_text())

    def api(self, method, **parameters):
        request = urllib.request.Request(
            f"http://{self.proxy.address}/api/{method}", json.dumps(parameters).encode(), {"X-API-Key": API_KEY}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return json.load(opener.open(request, timeout=DEADLINE))["result"]

    def letters(self, count):
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            letters = self.api("dlq/list", group="billing")["letters"]
            if len(letters) == count:
                return letters
            MOMENT.wait(0.02)
        raise AssertionError(f"not {count} dead letters: {letters}")

    def command(self, *arguments):
        line = [BINARY, *arguments, "--address", self.proxy.address, "--api-key", API_KEY]
        done = subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_readme_from_publication_to_repaired_dead_letter(self):
        for n in (1, 2, 3):
            self.publish(n)
        again = self.publish(2)
        self.assertEqual(again.offset, 2, "a key that was used stores nothing")
        end = self.worker(code())
        lines = self.said(lambda lines: len(lines) == 4)
        self.assertEqual(sum("ringmain.ack" in line for line in lines), 2)
        failed = [line for line in lines if "ringmain.nak" in line]
        self.assertEqual([line.split("attempt ")[1][0] for line in failed], ["1", "2"])
        (letter,) = self.letters(1)
        self.assertEqual([one["reason"] for one in letter["failures"]], ["no price yet"] * 2)
        self.assertIn(letter["event_id"], self.command("dlq", "list"))
        end()
        self.worker(code().replace("BROKEN = True", "BROKEN = False"))
        self.command("dlq", "retry", "--group", "billing", "--all")
        (line,) = self.said(lambda lines: len(lines) == 1)
        self.assertEqual(line, f"ringmain.ack {{'n': 2}} attempt 1 {letter['event_id']}")
        self.letters(0)

    def publish(self, n):
        request = PublishRequest(channel="orders:1", data={"n": n}, idempotency_key=f"order-{n}")
        return self.proxy.api.publish(request)


if __name__ == "__main__":
    unittest.main()
