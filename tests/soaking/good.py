"""Clients that keep to the protocol. Every message they see, and every answer, is checked; what
differs is how well they read, over which link, and how they leave."""

import asyncio
import contextlib
import json
import struct

from wire import CLOSE, PING, PONG, SERVER, TEXT, THIN, Broken, Gone, Socket, frame, text

CHANNELS = (
    [f"ticks.{n}" for n in range(6)]  # drop_oldest
    + [f"orders.{n}" for n in range(4)]  # drop_newest
    + [f"strict.{n}" for n in range(2)]  # close
    + [f"fresh.{n}" for n in range(2)]  # max_age
)
# An answer that is not there by then is lost. Over the thin link, which may be down for 6 s when it
# is tried the first time and full when it is tried again 12 s later, it may take longer.
ANSWER_SECONDS_MAX = 20
ANSWER_SECONDS_MAX_THIN = 60


class Client:
    """One connection of a good client, and what it may rely on."""

    def __init__(self, world, peer=SERVER, receive_buffer_bytes=None):
        self.world, self.ledger = world, world.ledger
        self.answer_seconds_max = ANSWER_SECONDS_MAX_THIN if peer == THIN else ANSWER_SECONDS_MAX
        self.wire = Socket(peer, receive_buffer_bytes)
        self.subscriptions = {}  # channel -> Continuity
        self.asked = {}  # id -> what was asked, in the order of asking
        self.next_id = 0
        self.welcome = None
        self.refused = 0  # publishes answered with `overloaded`

    def __enter__(self):
        self.wire.__enter__()
        self.world.present.add(self)
        return self

    def __exit__(self, *what):
        self.world.present.discard(self)
        # Published but neither acknowledged nor refused: nobody can say whether it counted.
        self.ledger.counts["brief_uncertain"] += sum(
            1 for kind, channel, *_ in self.asked.values() if kind == "publish" and channel not in CHANNELS
        )
        self.wire.__exit__(*what)

    async def open(self):
        try:
            async with asyncio.timeout(self.answer_seconds_max):
                await self.wire.open()
                # The welcome may have come together with the handshake.
                await self.take_frames()
                while self.welcome is None:
                    await self.read()
        except TimeoutError:
            self.not_heard_of("no welcome")

    def not_heard_of(self, what):
        """Nothing came in time. Over the thin link that may be: a reset is sent once, and whoever
        only waits never learns that it was lost."""
        if self.wire.peer == THIN:
            raise Gone()
        raise Broken(f"{what} in {self.answer_seconds_max} s: {self}; {self.wire.describe()}")

    def request(self, kind, channel=None, mark=None, pad=""):
        """A request as a frame; its answer is waited for from now on."""
        self.next_id += 1
        due = self.world.now() + self.answer_seconds_max
        self.asked[self.next_id] = (kind, channel, mark, due)
        if kind == "publish":
            return text(type=kind, id=self.next_id, channel=channel, payload={"m": mark, "pad": pad})
        if kind == "ping":
            return text(type=kind, id=self.next_id, t=self.next_id)
        return text(type=kind, id=self.next_id, channel=channel)

    async def ask(self, *request, **more):
        await self.wire.send(self.request(*request, **more))

    async def read(self, bytes_max=65536, until=None):
        """Reads once and takes what has come; raises `Gone` at the end, and `TimeoutError` when
        nothing comes in time. Nothing is lost by that; to cancel it would be to lose things."""
        await self.wire.more(bytes_max, until)
        await self.take_frames()

    async def take_frames(self):
        for opcode, payload in self.wire.frames():
            if opcode == TEXT:
                self.take(json.loads(payload))
            elif opcode == PING:
                self.ledger.counts["pinged"] += 1
                await self.wire.send(frame(PONG, payload))
            elif opcode == CLOSE:
                await self.wire.send(frame(CLOSE, payload))
                raise Gone(struct.unpack("!H", payload[:2])[0], payload[2:].decode())
            else:
                raise Broken(f"a frame of kind {opcode}: {payload[:60]!r}")

    def overdue(self):
        """The oldest question without an answer, if its time is up."""
        oldest = next(iter(self.asked.values()), None)
        return oldest if oldest and oldest[3] < self.world.now() else None

    def take(self, message):
        kind = message["type"]
        channel = message.get("channel")
        if kind in ("message", "gap"):
            subscription = self.subscriptions.get(channel)
            if subscription is None:
                raise Broken(f"{kind} of {channel}, which it is not subscribed to")
            if kind == "message":
                subscription.message(message["seq"], message["payload"]["m"])
            else:
                subscription.gap(message["from"], message["to"], message["reason"])
        elif kind == "welcome":
            self.welcome = message
        elif kind == "goaway":
            self.ledger.counts["goaways"] += 1
        else:
            self.take_answer(kind, channel, message)

    def take_answer(self, kind, channel, message):
        if message.get("id") not in self.asked:
            raise Broken(f"an answer to nothing: {message}")
        asked, wanted, mark, _ = self.asked.pop(message["id"])
        if kind == "error":
            # At the memory ceiling publishes are refused; nothing else of ours can be.
            if asked != "publish" or message["code"] != "overloaded":
                raise Broken(f"{asked} of {wanted} was answered with {message}")
            self.refused += 1
            self.ledger.counts["overloaded"] += 1
            return
        answers = {"subscribe": "subscribed", "unsubscribe": "ack", "publish": "ack", "ping": "pong"}
        if answers[asked] != kind or channel != wanted:
            raise Broken(f"{asked} of {wanted} was answered with {message}")
        if asked == "subscribe":
            seq = message["seq"]
            self.subscriptions[channel] = self.ledger.subscribed(channel, message["epoch"], seq)
        elif asked == "unsubscribe":
            subscription = self.subscriptions.pop(channel)
            # The number is the last one that it was given or told of.
            if message["seq"] != subscription.seq:
                raise Broken(f"{channel}: left at {subscription.seq}, but told {message['seq']}")
        elif asked == "publish":
            self.ledger.acked(channel, message["seq"], mark)

    def __str__(self):
        """Where it stands, for whoever wonders why it is still there."""
        last = self.ledger.last
        behind = {channel: f"{sub.seq} of {last.get(channel, 0)}" for channel, sub in self.subscriptions.items()
                  if sub.seq < last.get(channel, 0)}
        name, port = self.wire.socket.getsockname()
        return f"{name}:{port} over {self.wire.peer[0]}: behind {behind}, waits for {list(self.asked.values())[:3]}"

    def is_waiting_for(self, kind, channel):
        return any(asked[:2] == (kind, channel) for asked in self.asked.values())

    def has_caught_up(self):
        last = self.ledger.last
        return all(sub.seq >= last.get(channel, 0) for channel, sub in self.subscriptions.items())


def payload_pad(rng):
    """Mostly small, sometimes as large as an outbox, or larger than most sockets take at once."""
    size = rng.choices((rng.randrange(40, 300), rng.randrange(300, 4000), rng.randrange(4000, 40000)), (85, 13, 2))
    return "x" * size[0]


class Habits:
    """How a subscriber behaves."""

    def __init__(self, name, peer=SERVER, receive_buffer_bytes=None, bytes_per_read=65536, rest=0.0,
                 stops=(0.0, 0.0), publishes=0.0):
        self.name, self.peer = name, peer
        self.receive_buffer_bytes = receive_buffer_bytes
        self.bytes_per_read, self.rest = bytes_per_read, rest
        self.stops = stops  # how long it stops reading now and then
        self.publishes = publishes  # bursts a second


async def subscriber(world, rng, habits):
    """One life: connects, subscribes, changes its mind, and leaves in one of many ways."""
    with Client(world, habits.peer, habits.receive_buffer_bytes) as client:
        await client.open()
        world.reached(f"{habits.name}: lives")
        for channel in rng.sample(CHANNELS, rng.randrange(1, 6)):
            await client.ask("subscribe", channel)
        ends = world.now() + rng.uniform(3, 2 * client.answer_seconds_max)
        while world.now() < ends or world.finishing:
            # Until the next thing to do, it only reads.
            until = world.now() + rng.expovariate(max(habits.publishes, 2.0))
            await read_until(client, habits, until)
            if overdue := client.overdue():
                raise Broken(f"no answer to {overdue[:2]} in {client.answer_seconds_max} s")
            if not world.finishing:
                await do_something(world, rng, client, habits)
            elif world.audited and not client.asked and client.has_caught_up():
                world.reached(f"{habits.name}: caught up at the end")
                break
            elif not client.asked:
                # Whoever only waits does not learn that the connection is gone.
                await client.ask("ping")
        await leave(world, rng, client)


async def read_until(client, habits, until):
    with contextlib.suppress(TimeoutError):
        while client.world.now() < until:
            await client.read(habits.bytes_per_read, until)
            if habits.rest and not client.world.finishing:
                await asyncio.sleep(habits.rest)


async def do_something(world, rng, client, habits):
    if habits.publishes:
        burst = 1 if rng.random() < 0.6 else rng.randrange(2, 12)
        if rng.random() < 0.02:
            burst = 80  # more than an outbox holds
        channel = rng.choice(CHANNELS)
        frames = bytearray()
        for _ in range(burst):
            frames += client.request("publish", channel, world.next_mark(), payload_pad(rng))
        await client.wire.send(frames)
        if rng.random() < 0.9:
            return
    choice = rng.random()
    if habits.stops[1] and choice < 0.15:
        world.reached(f"{habits.name}: stops reading")
        await asyncio.sleep(rng.uniform(*habits.stops))
    elif choice < 0.6:
        await client.ask("ping")
    elif choice < 0.7 and client.subscriptions:
        channel = rng.choice(sorted(client.subscriptions))
        if not client.is_waiting_for("unsubscribe", channel):
            await client.ask("unsubscribe", channel)
    elif choice < 0.8:
        channel = rng.choice(CHANNELS)
        if channel not in client.subscriptions and not client.is_waiting_for("subscribe", channel):
            await client.ask("subscribe", channel)


async def leave(world, rng, client):
    """Says good-bye, or does not."""
    way = rng.random()
    if way < 0.5:
        await client.wire.send(frame(CLOSE, struct.pack("!H", 1000) + b"bye"))
        try:
            async with asyncio.timeout(client.answer_seconds_max):
                while True:
                    await client.read()
        except Gone as gone:
            # The answer repeats our code (RFC 6455 5.5.1), unless it was going to close us itself.
            if gone.code not in (1000, 1001, 1013, 4409, None):
                raise Broken(f"our 1000 was answered with {gone}") from None
            world.reached("good-byes answered", gone.code == 1000)
        except TimeoutError:
            client.not_heard_of("our close frame was not answered")
    elif way < 0.75:
        client.wire.vanish_with_reset()


async def brief_channel(world, rng):
    """A channel of its own: subscribes, publishes, sees exactly that, and leaves it to be
    forgotten."""
    channel = f"brief.{world.next_mark()}"
    with Client(world) as client:
        await client.open()
        await client.ask("subscribe", channel)
        count = rng.randrange(1, 30)
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                for _ in range(count):
                    await client.ask("publish", channel, world.next_mark(), payload_pad(rng))
                while client.asked or not client.has_caught_up():
                    await client.read()
        except TimeoutError:
            raise Broken(f"brief channel: {client.asked} is not answered") from None
        finally:
            world.ledger.counts["brief_acked"] += world.ledger.last.get(channel, 0)
            world.ledger.forget(channel)
        seq = client.subscriptions[channel].seq
        if seq != count - client.refused:
            raise Broken(f"{channel}: {count} published, {client.refused} refused, but seq {seq}")
        world.reached("brief channels complete")
        await leave(world, rng, client)
