"""A `ringcast serve` child for the foreign clients, and the counting of their checks."""

import asyncio
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A server on ports of its own, ready when the constructor returns."""

    def __init__(self, binary, driver, config=""):
        self.port, self.admin_port = free_port(), free_port()
        self.directory = tempfile.TemporaryDirectory(prefix="ringcast-")
        path = pathlib.Path(self.directory.name, "ringcast.toml")
        path.write_text(config)
        self.log = open(pathlib.Path(self.directory.name, "log"), "w+b")
        self.process = subprocess.Popen(
            [binary, "serve", "--config", str(path), "--driver", driver, "--shards", "2",
             "--listen", "127.0.0.1:{}".format(self.port), "--admin", "127.0.0.1:{}".format(self.admin_port)],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )
        deadline = time.monotonic() + 10
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("the server did not get ready:\n" + self.output())
            time.sleep(0.02)

    @property
    def url(self):
        return "ws://127.0.0.1:{}/ws".format(self.port)

    def ready(self):
        try:
            url = "http://127.0.0.1:{}/readyz".format(self.admin_port)
            return urllib.request.urlopen(url, timeout=1).status == 200
        except OSError:
            return False

    def output(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def stop(self):
        """Ends the server; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


async def run_checks(checks, server, farewell, seconds_max=30):
    """Runs each `async def check(server)`, and `farewell`, which ends the server, last.
    Prints and counts; returns the exit status for this process."""
    passed = failed = 0

    async def run(check):
        nonlocal passed, failed
        try:
            if server.process.poll() is not None:
                raise AssertionError("the server died with {}".format(server.process.returncode))
            await asyncio.wait_for(check(server), seconds_max)
        except Exception:  # whatever goes wrong, the other checks still run
            failed += 1
            print("  FAILED {}".format(check.__name__))
            traceback.print_exc(file=sys.stdout)
        else:
            passed += 1
            print("  ok {}".format(check.__name__))

    try:
        for check in [*checks, farewell]:
            await run(check)
    finally:
        if server.process.poll() is None:
            server.stop()
    if failed:
        print(server.output()[-4000:])
    print("{} passed, {} failed".format(passed, failed))
    return 1 if failed else 0
