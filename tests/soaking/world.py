"""One server and all its clients, from the first to the last figure. Started by soak.py, inside the
clients' namespace; ends with "N passed, M failed"."""

import asyncio
import argparse
import collections
import contextlib
import random
import sys
import traceback

import checks
from good import ANSWER_SECONDS_MAX_THIN, CHANNELS, Client, Habits, brief_channel, subscriber
from ledger import Ledger
from links import Links, inside
from rude import CROWDS, RUDE
from server import Server
from wire import LOST, SERVER, THIN, Broken, Gone

# How many of each there are at any time.
GOOD = [
    (32, Habits("fast", publishes=2.5)),
    (8, Habits("fast, over the thin link", peer=THIN)),
    (4, Habits("publishing over the thin link", peer=THIN, publishes=1.0)),
    (10, Habits("slow", receive_buffer_bytes=4096, bytes_per_read=1500, rest=0.1)),
    (10, Habits("stopping", receive_buffer_bytes=4096, stops=(0.3, 6.0))),
]
RUDE_AT_ONCE = 10
CROWD_CLIENTS = 25
FAILURES_SHOWN = 10

# How a life that breaks no rule may end all the same: silent too long, the server at its limits,
# too slow for a channel, no room; without a word when a ping was not answered in time; and 408 when
# this machine is so busy that a request takes its client longer than handshake_timeout.
MAY_END_WITH = (1000, 1013, 4409, 408, 429, 503, None)


class World:
    def __init__(self, name, seed, links, server):
        self.name, self.seed, self.links, self.server = name, seed, links, server
        self.ledger = Ledger()
        self.finishing = False  # nobody says anything new; everybody catches up
        self.audited = False  # the ledger knows the last number of each channel
        self.met = collections.Counter()  # what was reached, how often
        self.ends = collections.Counter()  # how lives of good clients ended against their will
        self.failures = collections.Counter()
        self.present = set()  # good clients that are connected
        self.marks = 0
        self.tasks = {}

    def now(self):
        return asyncio.get_running_loop().time()

    def say(self, line):
        print(line, flush=True)

    def rng(self, *who):
        return random.Random(f"{self.seed} {self.name} {who}")

    def next_mark(self):
        self.marks += 1
        return self.marks

    def reached(self, what, truly=True):
        if truly:
            self.met[what] += 1

    def fail(self, what):
        """Somebody saw the server break its word."""
        self.failures[what] += 1
        if sum(self.failures.values()) <= FAILURES_SHOWN:
            self.say(f"BROKEN: {what}")

    def start(self, group, coroutine):
        self.tasks.setdefault(group, []).append(asyncio.ensure_future(coroutine))

    async def stop(self, *groups):
        for group in groups:
            tasks = self.tasks.pop(group, [])
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    self.fail(f"{group}: {result!r}")

    async def life(self, name, live):
        """One life, and what came of it."""
        try:
            # Longer than any life that goes as it should.
            async with asyncio.timeout(300):
                await live()
        except Gone as gone:
            self.ends[name, str(gone)] += 1
            # Those who expect to be accused do not get here.
            if (gone.code or gone.status) not in MAY_END_WITH:
                self.fail(f"{name}: it was ended with {gone}")
        except TimeoutError as late:
            notes = getattr(late.__cause__, "__notes__", [])
            self.fail(f"{name}: a life did not end; {'; '.join(notes)}")
        except OSError as error:
            self.ends[name, type(error).__name__] += 1
        except Broken as broken:
            self.fail(f"{name}: {broken}")
        except Exception as error:
            self.fail(f"{name}: {error!r} {traceback.format_exc(limit=-3)}")

    async def lives(self, name, rng, live, pause):
        """One life after the other."""
        while not self.finishing:
            await self.life(name, live)
            await asyncio.sleep(rng.uniform(0, pause))

    async def rude(self, rng):
        """One life after the other, each rude in another way."""
        while True:
            behaviour = rng.choice(RUDE)
            await self.life(behaviour.__name__, lambda: behaviour(self, rng))
            self.reached(f"rude: {behaviour.__name__}")
            await asyncio.sleep(rng.uniform(0, 0.3))

    def mix(self, round):
        """Everybody comes."""
        self.finishing = self.audited = False
        for count, habits in GOOD:
            for number in range(count):
                rng = self.rng(round, habits.name, number)
                self.start("good", self.lives(habits.name, rng, lambda r=rng, h=habits: subscriber(self, r, h), 1))
        for number in range(2):
            rng = self.rng(round, "brief", number)
            self.start("good", self.lives("brief channel", rng, lambda r=rng: brief_channel(self, r), 1))
        for number in range(RUDE_AT_ONCE):
            rng = self.rng(round, "rude", number)
            self.start("rude", self.rude(rng))
        for crowd in CROWDS:
            rng = self.rng(round, crowd.__name__)
            self.start("rude", self.lives(crowd.__name__, rng, lambda r=rng, c=crowd: c(self, r), 8))
        self.start("rude", self.killed(self.rng(round, "killed")))
        self.start("rude", self.vanished(self.rng(round, "vanished")))
        self.start("link", self.weather(self.rng(round, "weather")))

    # ---- what happens to whole processes and links ----

    @contextlib.asynccontextmanager
    async def crowd(self, rng, namespace, peer):
        """A process full of clients, once they are all there."""
        arguments = [*map(str, peer), str(CROWD_CLIENTS), str(rng.random())]
        command = inside(namespace, sys.executable, "tests/soaking/crowd.py", *arguments)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            # Those who are turned away are never there.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3):
                    await process.stdout.readline()
            await asyncio.sleep(rng.uniform(0, 2))
            yield process
        finally:
            await kill(process)

    async def killed(self, rng):
        """A process is killed, and the kernel says good-bye for it."""
        while True:
            async with self.crowd(rng, self.links.clients, SERVER) as process:
                await kill(process)
            self.reached("processes killed")
            await asyncio.sleep(rng.uniform(0, 4))

    async def vanished(self, rng):
        """A process is killed while its link is down, and then its whole network goes away: the
        server hears neither FIN nor RST, ever."""
        while True:
            try:
                await self.links.add_lost()
                async with self.crowd(rng, self.links.lost, LOST) as process:
                    await self.links.cut_lost()
                    await kill(process)
                self.reached("networks taken away")
                await asyncio.sleep(rng.uniform(0, 5))
            finally:
                await asyncio.shield(self.links.remove_lost())

    async def weather(self, rng):
        """The thin link gets wider and narrower, and at times nothing gets through: for less than
        a pong timeout, or for more than ping interval and pong timeout together."""
        try:
            while True:
                await self.links.throttle(rng.choice((256, 512, 1000, 4000, 20000)))
                await asyncio.sleep(rng.uniform(1, 5))
                if rng.random() < 0.4:
                    long = rng.random() < 0.4
                    await self.links.set_thin("down")
                    await asyncio.sleep(rng.uniform(4, 6) if long else rng.uniform(0.2, 1.2))
                    await self.links.set_thin("up")
                    self.reached("link down for long" if long else "link down for a moment")
        finally:
            await asyncio.shield(self.fair_weather())

    async def fair_weather(self):
        await self.links.set_thin("up")
        await self.links.throttle(20000)

    # ---- the end of the mix ----

    async def heal(self):
        """Everything bad ends; whoever is still there must catch up, and then leaves."""
        await self.stop("rude", "link")
        self.finishing = True
        await asyncio.sleep(1)  # for what is on its way
        await self.audit()
        self.audited = True
        tasks = self.tasks.pop("good")
        # TCP may wait for most of that before it tries again what the thin link has lost.
        _, late = await asyncio.wait(tasks, timeout=ANSWER_SECONDS_MAX_THIN + 5)
        if late:
            numbers = await self.server.numbers()
            self.fail(f"{len(late)} did not catch up; backlogged: {numbers.total('backlogged')}")
            for client in self.present:
                self.fail(f"still there: {client}")
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.ledger.may_begin_anew = set(CHANNELS)

    async def audit(self):
        """Asks for the last number of each channel."""
        with Client(self) as client:
            await client.open()
            for channel in CHANNELS:
                await client.ask("subscribe", channel)
            while client.asked:
                await client.read()
            for channel, subscription in client.subscriptions.items():
                acked = self.ledger.last.get(channel, 0)
                if subscription.seq < acked:
                    self.fail(f"{channel}: {acked} was acknowledged, but {subscription.seq} is the last")
                self.ledger.last[channel] = subscription.seq


async def kill(process):
    """It may just have ended by itself, when everybody in it was turned away."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def settled(world, wanted, seconds):
    """The figures, as soon as those `wanted` are there, or when the time is up."""
    until = world.now() + seconds
    while True:
        figures = await world.server.figures()
        if all(figures[name] == value for name, value in wanted.items()) or world.now() > until:
            return figures
        await asyncio.sleep(0.3)


async def main():
    parser = argparse.ArgumentParser()
    for name in ("name", "run", "driver", "descriptors", "binary", "artifacts", "seed"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--minutes", type=float, required=True)
    asked = parser.parse_args()
    links = Links(asked.run)
    server = Server(asked.binary, links.server, asked.driver, asked.descriptors, asked.artifacts, asked.name)
    try:
        world = World(asked.name, asked.seed, links, server)
        return await soak(world, asked.minutes)
    finally:
        server.kill()


async def soak(world, minutes):
    server = world.server
    await server.ready()
    began = await server.figures()
    nobody = {"connections": 0, "descriptors": began["descriptors"], "registered sockets": began["registered sockets"]}

    # A tenth of the time, but long enough that everything has been used once.
    warm_up = min(max(minutes * 6, 20), 60)
    world.say(f"warming up for {warm_up:.0f} s")
    world.mix("warm-up")
    await asyncio.sleep(warm_up)
    await world.heal()
    warm = await settled(world, nobody, 10)

    trend = checks.Trend(world)
    world.mix("soak")
    await trend.watch(minutes * 60)
    await world.heal()
    await settled(world, nobody, 10)

    reckoned = await checks.reckoning(world)
    world.say("waiting until the channels are forgotten")
    # CHANNEL_IDLE is 60 s.
    after = await settled(world, nobody | {"channels": 0}, 75)
    numbers = await server.numbers()
    results = checks.Results(world)
    results.table(began, warm, after)
    results.nothing_leaked(began, warm, after, trend, minutes)
    results.counters_agree(numbers)
    results.everything_was_reached(numbers, minutes)
    results.reckoned(reckoned)
    await results.ends_when_told()
    return results.say()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
