"""How old messages are when they arrive over a link that takes a tenth of them: with a bound on their age
(`max_age`) and without, side by side, on both drivers. Started by tests/thin.

Nobody can call back what the kernel has taken: over a link of so many bytes a second, what it has not
been able to send adds its time to the bound. How much that is, the kernel says (`Send-Q` of `ss`).
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time

from links import Links, inside
from server import Server
from wire import PING, PONG, SERVER, TEXT, THIN, Broken, Socket, frame, text

SECONDS = 8
KILOBITS = 64
# Of each packet of 1514 bytes, 66 are headers.
LINK_BYTES_PER_SECOND = KILOBITS * 1000 // 8 * 1448 // 1514
MAX_AGE_SECONDS = 0.5
# What lies between the link and the reading of the clock, on a machine with other things to do.
SLACK_SECONDS = 0.5

SETTINGS = """
listen = "0.0.0.0:8080"
admin = "0.0.0.0:9090"
pin = false

[limits]
outbox_messages_max = 65536
outbox_bytes_max = "16MiB"

[timing]
drain_window = "500ms"

[socket]
send_buffer_bytes = "4KiB"
notsent_lowat_bytes = "2KiB"

[[channel]]
match = "fresh"
max_age = "500ms"
"""


class Feed:
    """A subscriber behind the thin link, and what comes to it."""

    def __init__(self, channel):
        self.channel = channel
        self.ages = []  # (second of the arrival, age in seconds)
        self.unsent_bytes_max = 0
        self.next_seq, self.stale = None, 0

    async def run(self, namespace):
        with Socket(THIN) as reader, Socket(SERVER) as publisher:
            await reader.open()
            await publisher.open()
            await reader.send(text(type="subscribe", id=1, channel=self.channel))
            started = time.monotonic()
            await asyncio.gather(self.read(reader, started), self.publish(publisher, started),
                                 self.watch(namespace, started))

    async def publish(self, wire, started):
        """Ten times what the link takes."""
        pad, sent = "x" * 180, 0
        while (elapsed := time.monotonic() - started) < SECONDS:
            while sent < elapsed * 10 * LINK_BYTES_PER_SECOND:
                request = text(type="publish", channel=self.channel, payload=dict(t=time.monotonic_ns(), pad=pad))
                sent += len(request)
                await wire.send(request)
            await asyncio.sleep(0.02)

    async def read(self, wire, started):
        while time.monotonic() - started < SECONDS:
            now = time.monotonic_ns()
            for opcode, payload in wire.frames():
                if opcode == PING:
                    await wire.send(frame(PONG, payload))
                if opcode == TEXT:
                    self.hear(json.loads(payload), now, started)
            try:
                await wire.more(until=asyncio.get_running_loop().time() + 0.5)
            except TimeoutError:
                pass

    def hear(self, said, now, started):
        if said["type"] == "subscribed":
            self.next_seq = said["seq"] + 1
        elif said["type"] == "gap":
            self.follows(said["from"])
            if said["reason"] != "stale":
                raise Broken(f"nothing but its age loses a message here: {said}")
            self.stale += said["to"] - said["from"] + 1
            self.next_seq = said["to"] + 1
        elif said["type"] == "message":
            self.follows(said["seq"])
            self.next_seq = said["seq"] + 1
            self.ages.append((now / 1e9 - started, (now - said["payload"]["t"]) / 1e9))

    def follows(self, seq):
        if seq != self.next_seq:
            raise Broken(f"{seq} came where {self.next_seq} was due")

    async def watch(self, namespace, started):
        command = ["ss", "-tnH", "state", "established", "src", THIN[0]]
        while time.monotonic() - started < SECONDS:
            process = await asyncio.create_subprocess_exec(*inside(namespace, *command), stdout=subprocess.PIPE)
            lines, _ = await process.communicate()
            unsent = [int(line.split()[1]) for line in lines.decode().splitlines()]
            self.unsent_bytes_max = max([self.unsent_bytes_max, *unsent])
            await asyncio.sleep(0.1)

    def oldest(self, second):
        """The greatest age of what arrived in this second."""
        return max((age for at, age in self.ages if int(at) == second), default=None)


def shown(age):
    return "-" if age is None else f"{age:.2f} s"


async def measure(binary, driver, artifacts, links):
    server = Server(binary, links.server, driver, "regular", artifacts, f"thin-{driver}", SETTINGS)
    try:
        await server.ready()
        # It queues and does not drop, as a modem does: what is sent twice would take its time twice.
        await links.throttle(KILOBITS, latency="10s")
        fresh, plain = Feed("fresh"), Feed("plain")
        for feed in (fresh, plain):
            await feed.run(links.server)
        # Not killed: a ring lets go of the port only a while after its process has ended.
        await server.stop()
    finally:
        server.kill()
    bound = MAX_AGE_SECONDS + fresh.unsent_bytes_max / LINK_BYTES_PER_SECOND + SLACK_SECONDS
    print(f"-- on {driver}: {KILOBITS} kbit/s, ten times as much offered; the oldest message of each second")
    print("second    max_age = 500ms    without")
    for second in range(SECONDS):
        print(f"{second:6} {shown(fresh.oldest(second)):>18} {shown(plain.oldest(second)):>10}")
    print(f"with max_age: {len(fresh.ages)} came, {fresh.stale} were told as stale, the kernel held up to "
          f"{fresh.unsent_bytes_max} bytes; without: {len(plain.ages)} came")
    oldest = max(age for _, age in fresh.ages)
    return [
        (f"no message is older than max_age and what the kernel held: {oldest:.2f} s of {bound:.2f} s",
         oldest <= bound),
        (f"without max_age they grow old: {plain.ages[-1][1]:.2f} s in the end", plain.ages[-1][1] > 2 * bound),
        ("what was too old was told", fresh.stale > len(fresh.ages) and plain.stale == 0),
    ]


async def inner(binary, artifacts, run):
    claims = []
    for driver in ("uring", "epoll"):
        claims += await measure(binary, driver, artifacts, Links(run))
    for claim, holds in claims:
        print(f"  {'ok' if holds else 'FAILED'} {claim}")
    failed = sum(not holds for _, holds in claims)
    print(f"{len(claims) - failed} passed, {failed} failed")
    return 1 if failed else 0


def main(binary, artifacts):
    links = Links(f"thin{random.randrange(1 << 24):06x}")
    try:
        links.build()
        command = [sys.executable, os.path.abspath(__file__), binary, artifacts, links.run]
        return subprocess.run(inside(links.clients, *command), stdin=subprocess.DEVNULL).returncode
    finally:
        links.remove()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 3 else asyncio.run(inner(*sys.argv[1:])))
