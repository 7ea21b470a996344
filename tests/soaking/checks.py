"""What must be true in the end, and the tables that show it."""

import asyncio
import collections
import contextlib
import itertools

from good import CHANNELS, Client, payload_pad
from server import DRAIN_WINDOW_SECONDS
from wire import SERVER, Gone

# What a process keeps of the memory that the mix once needed: pages that are half full, and the
# allocator's own. After a warm-up of 30 s, five minutes brought 2.3 to 3.4 MiB more. Within few
# minutes it has not seen the worst of it yet.
RESIDENT_KIB_MORE_MAX = 6 * 1024
RESIDENT_KIB_MORE_EARLY_MAX = 12 * 1024
EARLY_MINUTES = 5
# In the second half there is little left to find. A leak of 64 bytes for each connection would be
# 3.4 MiB in ten minutes.
RESIDENT_KIB_CLIMB_MAX = 3 * 1024
# The kernel starts threads for what a ring cannot do at once, and keeps some.
RING_WORKERS_MAX = 8

# Each way in which a connection can end that the mix must have met; `drained` comes later.
ENDS = ["handshake_refused", "handshake_timeout", "idle_timeout", "malformed", "memory_ceiling", "page_served",
        "peer_closed", "peer_reset", "peer_vanished", "pong_timeout", "server_full", "slow_consumer",
        "unacceptable_message", "violation"]


class Trend:
    """Resident memory over time."""

    def __init__(self, world):
        self.world, self.samples = world, []

    async def watch(self, seconds):
        """Takes a sample each second, and says each minute how things stand."""
        world, server = self.world, self.world.server
        started, before = world.now(), await server.numbers()
        cpu, said = server.cpu_seconds(), started
        while world.now() < started + seconds:
            await asyncio.sleep(min(1, max(0, started + seconds - world.now())))
            at = world.now() - started
            self.samples.append((at, server.resident_kib()))
            if world.now() - said < 60 and at < seconds:
                continue
            numbers, elapsed = await server.numbers(), world.now() - said
            rates = {name: (numbers.total(name) - before.total(name)) / elapsed
                     for name in ("accepted_total", "publishes_total", "deliveries_total", "dropped_total")}
            used = server.cpu_seconds()
            world.say(
                f"{at:5.0f} s  resident {self.samples[-1][1]} KiB  connections {numbers.total('connections')}  "
                f"per second: {rates['accepted_total']:.0f} accepted, {rates['publishes_total']:.0f} published, "
                f"{rates['deliveries_total']:.0f} delivered, {rates['dropped_total']:.0f} dropped, "
                f"{(used - cpu) / elapsed:.2f} s of CPU"
            )
            before, cpu, said = numbers, used, world.now()

    def slope(self):
        """KiB per minute in the second half, by least squares."""
        half = self.samples[len(self.samples) // 2 :]
        if len(half) < 2:
            return 0.0
        at_mean = sum(at for at, _ in half) / len(half)
        kib_mean = sum(kib for _, kib in half) / len(half)
        spread = sum((at - at_mean) ** 2 for at, _ in half)
        return 60 * sum((at - at_mean) * (kib - kib_mean) for at, kib in half) / spread

    def second_half_growth_kib(self):
        seconds = self.samples[-1][0] / 2 if self.samples else 0
        return self.slope() * seconds / 60


async def reckoning(world):
    """With nobody else there, the server's counters must say exactly what the clients saw, drops
    and gaps included."""
    rng, ledger = world.rng("reckoning"), world.ledger
    # `strict` channels would close the slow ones.
    channels = [channel for channel in CHANNELS if not channel.startswith("strict")]
    before, seen_before = await world.server.numbers(), ledger.counts.copy()
    clients = [Client(world, SERVER, 4096 if number % 2 else None) for number in range(12)]
    asked_at = dict.fromkeys(clients, world.now())
    resume = asyncio.Event()
    done = [False]

    async def read(client, is_slow):
        if is_slow:
            # Short of the pong timeout, however busy this machine is.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(resume.wait(), 2.5)
        while not (done[0] and not client.asked and client.has_caught_up()):
            with contextlib.suppress(TimeoutError):
                await client.read(until=world.now() + 0.2)
            # Or it would be idle.
            if asked_at[client] + 1 < world.now():
                asked_at[client] = world.now()
                await client.ask("ping")

    async def publish():
        with Client(world) as publisher:
            await publisher.open()
            for _ in range(40):
                for channel in channels:
                    frames = b"".join(publisher.request("publish", channel, world.next_mark(), payload_pad(rng)[:1500])
                                      for _ in range(5))
                    await publisher.wire.send(frames)
                while publisher.asked:
                    await publisher.read()
            resume.set()
            done[0] = True

    try:
        for client in clients:
            await client.open()
            for channel in channels:
                await client.ask("subscribe", channel)
            while client.asked:
                await client.read()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(publish())
            for number, client in enumerate(clients):
                group.create_task(read(client, number % 2))
    except (TimeoutError, Gone, OSError, ExceptionGroup) as error:
        world.fail(f"reckoning: {error!r}")
    finally:
        for client in clients:
            client.__exit__()
    await asyncio.sleep(0.5)
    after, seen = await world.server.numbers(), ledger.counts - seen_before
    return {
        "published": (after.total("publishes_total") - before.total("publishes_total"), seen["acked"]),
        "delivered": (after.total("deliveries_total") - before.total("deliveries_total"), seen["received"]),
        "dropped": (after.total("dropped_total") - before.total("dropped_total"), seen["gapped"]),
        "gaps told": (after.total("gaps_total") - before.total("gaps_total"), seen["gaps"]),
    }


class Results:
    """The checks, one line each."""

    def __init__(self, world):
        self.world, self.passed, self.failed = world, 0, 0

    def check(self, claim, holds, figures):
        self.passed += bool(holds)
        self.failed += not holds
        self.world.say(f"{'ok' if holds else 'FAILED'}  {claim}: {figures}")

    def table(self, began, warm, after):
        self.world.say(f"{'':24}{'began':>12}{'warmed up':>12}{'after':>12}")
        for name in began:
            self.world.say(f"{name:24}{began[name]:12}{warm[name]:12}{after[name]:12}")

    def nothing_leaked(self, began, warm, after, trend, minutes):
        more_max = RESIDENT_KIB_MORE_EARLY_MAX if minutes < EARLY_MINUTES else RESIDENT_KIB_MORE_MAX
        for name in began:
            if name == "ring workers":
                self.check("ring workers: few", after[name] <= RING_WORKERS_MAX, after[name])
            elif name != "resident, KiB":
                self.check(f"{name}: back where it began", after[name] == began[name], f"{began[name]}, {after[name]}")
        more = after["resident, KiB"] - warm["resident, KiB"]
        self.check("resident memory is what it was after the warm-up", more <= more_max,
                   f"{more:+} KiB, at most {more_max} more")
        climbed = f"{trend.slope():+.0f} KiB a minute, {trend.second_half_growth_kib():+.0f} KiB in all"
        if minutes >= EARLY_MINUTES:
            self.check("resident memory did not climb in the second half",
                       trend.second_half_growth_kib() <= RESIDENT_KIB_CLIMB_MAX, climbed)
        else:
            self.world.say(f"    too short to say whether memory climbs: {climbed}")

    def counters_agree(self, numbers):
        world, counts = self.world, self.world.ledger.counts
        broken = sum(world.failures.values())
        self.check("every client saw what it was promised", broken == 0,
                   f"{counts['received']} messages, {counts['gapped']} told lost in {counts['gaps']} gaps, "
                   f"{counts['acked']} acks; {broken} broken promises")
        for (what, count) in itertools.islice(world.failures.most_common(), 10):
            world.say(f"    {count} x {what}")
        accepted, ended = numbers.total("accepted_total"), numbers.by("ended_total", "reason")
        total = sum(ended.values())
        self.check("every accepted connection has ended for one reason", accepted == total, f"{accepted}, {total}")
        world.say("    " + ", ".join(f"{reason} {count}" for reason, count in ended.items()))
        published = numbers.total("publishes_total")
        least = sum(world.ledger.last.get(channel, 0) for channel in CHANNELS)
        least += counts["brief_acked"] + counts["of earlier epochs"]
        most = least + counts["brief_uncertain"]
        self.check("published is the sum of the channels' last numbers", least <= published <= most,
                   f"{published}, {least} to {most}")
        # Those who were killed, or do not look, received, too.
        for metric, seen in (("deliveries_total", "received"), ("gaps_total", "gaps"), ("dropped_total", "gapped")):
            counted = numbers.total(metric)
            self.check(f"no more {seen} than {metric}", counted >= counts[seen], f"{counts[seen]}, {counted}")
        dropped = numbers.by("dropped_total", "policy")
        world.say("    dropped: " + ", ".join(f"{policy} {count}" for policy, count in dropped.items()))

    def everything_was_reached(self, numbers, minutes):
        """A soak proves nothing of what it never met."""
        world, ended = self.world, numbers.by("ended_total", "reason")
        never = [reason for reason in ENDS if not ended.get(reason)]
        dropped = numbers.by("dropped_total", "policy")
        never += [f"dropped: {policy}" for policy, count in dropped.items() if not count]
        never += [what for what in ("good-byes answered", "brief channels complete", "processes killed",
                                    "networks taken away", "link down for a moment", "link down for long",
                                    "ping flood answered", "byte by byte", "cut anywhere", "fast: caught up at the end",
                                    "unread replies read at last") if not world.met[what]]
        # Chance needs some time.
        if minutes >= 1:
            self.check("everything that had to be met was met", not never, f"never: {never or 'nothing'}")
        else:
            world.say(f"    too short to meet everything; never: {never or 'nothing'}")
        for what, count in sorted(world.met.items()):
            world.say(f"    {count:8} x {what}")
        for (who, how), count in sorted(world.ends.items()):
            world.say(f"    {count:8} x ended against its will: {who}: {how}")

    def reckoned(self, reckoned):
        for what, (counted, seen) in reckoned.items():
            self.check(f"reckoning, {what}: the server counts what the clients saw", counted == seen, f"{counted}, {seen}")
        self.check("reckoning: something was lost and told", reckoned["gaps told"][1] > 0, reckoned["gaps told"][1])

    async def ends_when_told(self):
        """SIGTERM with clients there."""
        world = self.world
        # The server has forgotten the channels: they begin anew.
        world.ledger.forget(CHANNELS[0])
        before = world.ledger.counts["goaways"]
        closed = []

        async def stay():
            with Client(world) as client:
                await client.open()
                await client.ask("subscribe", CHANNELS[0])
                try:
                    while True:
                        await client.read()
                        # The goaway, for one: or it would be idle before its good-bye comes.
                        if not client.asked and world.ledger.counts["goaways"] > before:
                            await client.ask("ping")
                            await asyncio.sleep(0.2)
                except Gone as gone:
                    closed.append(gone.code)

        staying = [asyncio.ensure_future(stay()) for _ in range(20)]
        await asyncio.sleep(1)
        status, seconds = await world.server.stop()
        await asyncio.gather(*staying, return_exceptions=True)
        goaways = world.ledger.counts["goaways"] - before
        self.check("SIGTERM: it ends with 0 within its drain window",
                   status == 0 and seconds <= DRAIN_WINDOW_SECONDS + 1, f"status {status} after {seconds:.1f} s")
        self.check("SIGTERM: everybody got goaway and 1001", goaways == 20 and closed == [1001] * 20,
                   f"{goaways} goaways, closed with {dict(collections.Counter(closed))}")

    def say(self):
        self.world.say(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0
