"""The server under soak: how it is configured and started, and what it and the kernel say about
it."""

import asyncio
import contextlib
import os
import pathlib
import re
import signal
import subprocess

from links import inside
from wire import Gone, Socket

ADMIN = ("10.77.0.1", 9090)
DRAIN_WINDOW_SECONDS = 5

# Everything is small and short, so that minutes hold many lives and every limit is met.
CONFIG = f"""
listen = "0.0.0.0:8080"
admin = "0.0.0.0:9090"
shards = 2
pin = false
overflow = "drop_oldest"

[limits]
connections_max = 400
connections_per_address_max = 320
channels_max = 4000
channels_per_client_max = 32
outbox_messages_max = 64
outbox_bytes_max = "32KiB"
memory_max = "31000KiB"

[timing]
handshake_timeout = "1500ms"
ping_interval = "2s"
pong_timeout = "1500ms"
idle_timeout = "6s"
close_timeout = "1s"
drain_window = "{DRAIN_WINDOW_SECONDS}s"

[socket]
send_buffer_bytes = "8KiB"
notsent_lowat_bytes = "8KiB"

[[channel]]
match = "orders.*"
overflow = "drop_newest"

[[channel]]
match = "strict.*"
overflow = "close"

[[channel]]
match = "fresh.*"
max_age = "300ms"
"""


class Server:
    def __init__(self, binary, namespace, driver, descriptors, artifacts, name, settings=CONFIG):
        config = pathlib.Path(artifacts, f"{name}.toml")
        config.write_text(f'driver = "{driver}"\ndescriptors = "{descriptors}"\n{settings}')
        self.log_path = pathlib.Path(artifacts, f"{name}.log")
        with open(self.log_path, "wb") as log:
            environment = {key: value for key, value in os.environ.items() if not key.startswith("RINGCAST_")}
            command = inside(namespace, binary, "serve", "--config", str(config))
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.pid = self.process.pid

    async def ready(self):
        for _ in range(500):
            if self.process.poll() is not None:
                break
            try:
                if (await self.get("/readyz")).startswith("HTTP/1.1 200"):
                    return
            except (OSError, Gone):
                pass
            await asyncio.sleep(0.02)
        raise RuntimeError("the server did not get ready:\n" + self.log_path.read_text()[-3000:])

    async def get(self, path):
        with Socket(ADMIN) as wire:
            await wire.connect()
            await wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            try:
                async with asyncio.timeout(10):
                    while True:
                        await wire.more()
            except Gone:
                return wire.received.decode()

    async def numbers(self):
        return Numbers(await self.get("/metrics"))

    def resident_kib(self):
        return int(re.search(r"VmRSS:\s+(\d+)", self.proc("status")).group(1))

    def cpu_seconds(self):
        fields = self.proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def proc(self, name):
        return pathlib.Path(f"/proc/{self.pid}/{name}").read_text()

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def registered(self):
        """Sockets registered with the rings, which are no descriptors of the process: the lines of
        each ring's fdinfo that say `index: name`, between `UserFiles` and the next heading."""
        count = 0
        for descriptor in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                if "io_uring" not in os.readlink(f"/proc/{self.pid}/fd/{descriptor}"):
                    continue
                is_files = False
                for line in self.proc(f"fdinfo/{descriptor}").splitlines():
                    if not line.startswith(" "):
                        is_files = line.startswith("UserFiles")
                    elif is_files and "<none>" not in line:
                        count += 1
            except FileNotFoundError:
                continue
        return count

    def threads(self):
        """Their names. Those of the kernel's workers for a ring begin with `iou-wrk`."""
        names = []
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                names.append(self.proc(f"task/{task}/comm").strip())
        return names

    def lingering(self):
        """TCP connections that the server has not closed although their peers have."""
        lines = self.proc("net/tcp").splitlines()[1:]
        return sum(1 for line in lines if line.split()[3] == "08")  # CLOSE_WAIT

    async def figures(self):
        """Everything that has to be back where it began."""
        numbers = await self.numbers()
        await asyncio.sleep(0.1)  # so that our own question is over
        return {
            "connections": numbers.total("connections"),
            "clients": numbers.total("clients"),
            "subscriptions": numbers.total("subscriptions"),
            "channels": numbers.total("channels"),
            "backlogged": numbers.total("backlogged"),
            "segments, bytes": numbers.total("memory_bytes", line="segments"),
            "replies, bytes": numbers.total("memory_bytes", line="replies"),
            "held, bytes": numbers.total("memory_bytes", line="held"),
            "descriptors": self.descriptors(),
            "registered sockets": self.registered(),
            "sockets in CLOSE_WAIT": self.lingering(),
            "threads": sum(1 for name in self.threads() if not name.startswith("iou-wrk")),
            "ring workers": sum(1 for name in self.threads() if name.startswith("iou-wrk")),
            "resident, KiB": self.resident_kib(),
        }

    async def stop(self):
        """Ends it as an operator would; returns its exit status and how long it took."""
        started = asyncio.get_running_loop().time()
        self.process.send_signal(signal.SIGTERM)
        while self.process.poll() is None:
            await asyncio.sleep(0.02)
            if asyncio.get_running_loop().time() - started > 3 * DRAIN_WINDOW_SECONDS:
                self.kill()
        return self.process.returncode, asyncio.get_running_loop().time() - started

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Numbers:
    """The metrics page at one moment."""

    def __init__(self, page):
        self.samples = []
        for line in page.splitlines():
            if match := re.match(r"ringcast_(\w+?)(?:\{(.*)\})? ([\d.e+-]+)$", line):
                name, labels, value = match.groups()
                self.samples.append((name, dict(re.findall(r'(\w+)="([^"]*)"', labels or "")), float(value)))

    def total(self, name, **labels):
        """The sum over all samples of that name with these labels."""
        found = [value for known, have, value in self.samples
                 if known == name and labels.items() <= have.items()]
        if not found:
            raise KeyError(f"no metric {name} {labels}")
        return int(sum(found))

    def by(self, name, label):
        """The sums by the value of a label."""
        sums = {}
        for known, have, value in self.samples:
            if known == name:
                sums[have[label]] = sums.get(have[label], 0) + int(value)
        return sums
