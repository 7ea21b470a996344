"""The network of one server: a namespace for it, one for its clients, and between them

    10.77.0  a clean link
    10.77.1  a thin one: a token bucket whose rate changes, and at times nothing gets through
    10.77.2  one that is taken away, again and again, with everybody at its far end

The server has address .1 on each, the clients .2. All of it is in namespaces of this run, so any
number of runs may share a machine.
"""

import asyncio
import contextlib
import subprocess


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


async def run(*command):
    """A command of the running soak: it must not hold up the clients."""
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {said.decode().strip()}")


def inside(namespace, *command):
    """The command in the namespace, as the same process: its id stays."""
    return ["nsenter", f"--net=/run/netns/{namespace}", *command]


class Links:
    def __init__(self, run):
        self.run = run
        self.server, self.clients, self.lost = (f"{run}-{end}" for end in ("server", "clients", "lost"))

    def build(self):
        for namespace in (self.server, self.clients):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        for number, link in enumerate(("clean", "thin")):
            for command in self.joining(link, number, self.clients):
                ip(*command)

    def joining(self, link, number, far):
        """The commands that join the server to the namespace `far`."""
        yield ("-n", self.server, "link", "add", link, "type", "veth", "peer", "name", link, "netns", far)
        for namespace, host in ((self.server, 1), (far, 2)):
            yield ("-n", namespace, "address", "add", f"10.77.{number}.{host}/24", "dev", link)
            yield ("-n", namespace, "link", "set", link, "up")

    def remove(self):
        """Ends whatever still runs in the namespaces (only we started anything there) and
        removes them."""
        for namespace in (self.lost, self.clients, self.server):
            pids = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True)
            for pid in pids.stdout.split():
                subprocess.run(["kill", "-9", pid], capture_output=True)
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)

    async def throttle(self, kilobits, latency="200ms"):
        """What the server sends over the thin link, per second, and how long a packet may wait there
        before it is dropped."""
        await run("tc", "-n", self.server, "qdisc", "replace", "dev", "thin", "root", "tbf",
                  "rate", f"{kilobits}kbit", "burst", "8kb", "latency", latency)

    async def set_thin(self, state):
        await run("ip", "-n", self.clients, "link", "set", "thin", state)

    async def add_lost(self):
        await run("ip", "netns", "add", self.lost)
        for command in self.joining("lost", 2, self.lost):
            await run("ip", *command)

    async def cut_lost(self):
        """From now on nothing that happens beyond the link is heard of."""
        await run("ip", "-n", self.lost, "link", "set", "lost", "down")

    async def remove_lost(self):
        # The namespace goes in the background, the link at once: its name is wanted again.
        # Whoever was stopped while it was made may not have got that far; what should stay is found
        # out when it is made again.
        for command in (("-n", self.server, "link", "delete", "lost"), ("netns", "delete", self.lost)):
            with contextlib.suppress(RuntimeError):
                await run("ip", *command)
