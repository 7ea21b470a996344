"""Clients that do what they should not, one life each. What the server must answer is known of
most of them, and is checked; all of them come over the clean link."""

import asyncio
import json
import struct

from good import ANSWER_SECONDS_MAX, CHANNELS, payload_pad
from wire import (
    BINARY, CLOSE, PING, PONG, REQUEST, TEXT, Broken, Gone, Socket, frame, header, text,
)

# What a server at its limits may say instead of what is expected: 1013, 4409 to a subscriber who is
# slow, or nothing at all to one who does not read. 408 comes when this machine is so busy that the
# request takes its client longer than handshake_timeout.
AT_LIMITS = (1013, 4409, None)
FULL = (429, 503, 408)
# A masking key that leaves the payload as it is, so that it can go on at any place.
UNCHANGED = bytes(4)

VIOLATIONS = [
    ("unmasked frame", b"\x81\x02{}", 1002),
    ("reserved bit", b"\xc1" + frame(TEXT, b"{}")[1:], 1002),
    ("reserved opcode", frame(3, b"x"), 1002),
    ("reserved control opcode", frame(11, b"x"), 1002),
    ("ping in pieces", frame(PING, b"x", fin=False), 1002),
    ("ping of 126 bytes", frame(PING, b"x" * 126), 1002),
    ("continuation of nothing", frame(0, b"x"), 1002),
    ("text within a text", frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002),
    ("length in too long a form", b"\x81\xfe\x00\x02\0\0\0\0{}", 1002),
    ("length beyond 63 bits", b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0", 1002),
    ("length beyond the limit", header(TEXT, 0, claimed=1 << 40), 1009),
    ("pieces beyond the limit", frame(TEXT, b"x" * 40000, fin=False) + frame(0, b"x" * 40000), 1009),
    ("binary", frame(BINARY, b"{}"), 1003),
    ("not UTF-8", frame(TEXT, b'{"type":"\xc3\x28"}'), 1007),
    ("not JSON", frame(TEXT, b"hello"), 4400),
    ("not an object", frame(TEXT, b"[1]"), 4400),
    ("deep JSON", frame(TEXT, b"[" * 2000), 4400),
    ("close of one byte", frame(CLOSE, b"\x03"), 1002),
    ("close 1005", frame(CLOSE, struct.pack("!H", 1005)), 1002),
    ("close that is not UTF-8", frame(CLOSE, b"\x03\xe8\xff"), 1007),
]

HTTP = [
    ("page", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    ("script", b"HEAD /ringcast.js HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    ("no such page", b"GET /no HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("post", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 405),
    ("not HTTP", b"\x00\x01\x02\x03 hello\r\n\r\n", 400),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("endless head", b"GET / HTTP/1.1\r\nX: " + b"x" * 9000, 431),
    ("many fields", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
    ("no upgrade", b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", 426),
    ("old version", REQUEST.replace(b"13\r\n", b"8\r\n"), 426),
    ("no key", REQUEST.replace(b"Key", b"Lock"), 400),
]

MISTAKES = [
    (dict(type="dance"), "unknown_type"),
    (dict(type="subscribe"), "missing_field"),
    (dict(type="subscribe", channel=5), "wrong_type"),
    (dict(type="subscribe", channel=""), "bad_channel"),
    (dict(type="subscribe", channel="x" * 256), "bad_channel"),
    (dict(type="unsubscribe", channel="never"), "not_subscribed"),
]


def expect(world, what, got, wanted, instead=(), counted=True):
    if got == wanted:
        world.reached(f"{what}: {wanted}", counted)
    elif got not in instead:
        raise Broken(f"{what} was answered with {got}, not {wanted}")


async def violation(world, rng):
    what, data, code = rng.choice(VIOLATIONS)
    with Socket() as wire:
        await wire.open()
        if rng.random() < 0.5:
            await wire.send(text(type="subscribe", channel=rng.choice(CHANNELS)))
        await send_in_pieces(wire, rng, data) if rng.random() < 0.5 else await wire.send(data)
        got, _ = await wire.until_closed()
        expect(world, what, got, code, AT_LIMITS)


async def cancelled(task):
    """Ends a task before its socket is closed: the number of the descriptor may be given away at
    once, and what the task still does to it would be done to somebody else's socket."""
    task.cancel()
    await asyncio.wait([task])


async def send_in_pieces(wire, rng, data):
    """Cut anywhere. The server may have heard enough before the end."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 6)))
    try:
        for start, end in zip([0, *cuts], [*cuts, len(data)]):
            if start < end:
                await wire.send(data[start:end])
                await asyncio.sleep(rng.choice((0, 0.001, 0.02)))
    except OSError:
        pass


async def http(world, rng):
    what, request, wanted = rng.choice(HTTP)
    with Socket() as wire:
        await wire.connect()
        await send_in_pieces(wire, rng, request)
        head = await wire.head()
        expect(world, what, int(head[9:12]), wanted, FULL)
        try:
            while True:
                await wire.more()
        except Gone:
            pass


async def half_handshake(world, rng):
    """Stops in the middle of the request, or before it, and waits, or leaves."""
    with Socket() as wire:
        await wire.connect()
        await wire.send(REQUEST[: rng.randrange(len(REQUEST) - 1)])
        way = rng.random()
        if way < 0.5:
            head = await wire.head()
            expect(world, "half a handshake", int(head[9:12]), 408, FULL)
        elif way < 0.75:
            await asyncio.sleep(rng.uniform(0, 0.5))
            wire.vanish_with_reset()


async def mistakes(world, rng):
    """Requests that are wrong, but end nothing."""
    with Socket() as wire:
        await wire.open()
        wanted = {}
        for number in range(20):
            request, code = rng.choice(MISTAKES)
            wanted[number] = code
            await wire.send(text(id=number, **request))
        async for message in messages(wire):
            if message["type"] == "error":
                expect(world, "mistake", message["code"], wanted.pop(message["id"]))
                if not wanted:
                    return


async def messages(wire, seconds=ANSWER_SECONDS_MAX, is_sending=False):
    """The JSON messages that come. Pings are answered, but not in the middle of something that is
    being sent: that is life enough."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                for opcode, payload in wire.frames():
                    if opcode == TEXT:
                        yield json.loads(payload)
                    elif opcode == PING and not is_sending:
                        await wire.send(frame(PONG, payload))
                    elif opcode == CLOSE:
                        raise Gone(struct.unpack("!H", payload[:2])[0])
                await wire.more()
    except TimeoutError:
        raise Broken(f"it was not answered within {seconds} s") from None


async def pieces(world, rng):
    """Good requests byte by byte, or cut anywhere: each is answered."""
    with Socket() as wire:
        await wire.connect()
        count = rng.randrange(2, 10)
        data = REQUEST + b"".join(
            text(type="publish", id=n, channel=rng.choice(CHANNELS),
                 payload={"m": world.next_mark(), "pad": "x" * rng.randrange(200)})
            for n in range(count)
        )
        by_byte = rng.random() < 0.4
        sending = asyncio.ensure_future(byte_by_byte(wire, data) if by_byte else send_in_pieces(wire, rng, data))
        try:
            await wire.upgraded()
            # Of channels at home on different shards, so in any order.
            waited_for = set(range(count))
            async for message in messages(wire, is_sending=True):
                if message["type"] in ("ack", "error"):
                    waited_for.remove(message["id"])
                    if not waited_for:
                        world.reached("byte by byte" if by_byte else "cut anywhere")
                        return
        finally:
            await cancelled(sending)


async def byte_by_byte(wire, data):
    for at in range(len(data)):
        await wire.send(data[at : at + 1])
        await asyncio.sleep(0)


async def ping_flood(world, rng):
    """More pings than fit anywhere, unread for a while: each is answered, in order."""
    count = 2000
    with Socket(receive_buffer_bytes=4096) as wire:
        await wire.open()
        flood = b"".join(frame(PING, struct.pack("!I", n) + bytes(rng.randrange(121))) for n in range(count))
        sending = asyncio.ensure_future(wire.send(flood))
        try:
            await asyncio.sleep(rng.uniform(0, 1))
            answered = 0
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                while answered < count:
                    for opcode, payload in wire.frames():
                        if opcode == PONG:
                            expect(world, "ping flood", struct.unpack("!I", payload[:4])[0], answered, counted=False)
                            answered += 1
                        elif opcode == CLOSE:
                            raise Gone(struct.unpack("!H", payload[:2])[0])
                    if answered < count:
                        await wire.more()
            world.reached("ping flood answered")
        except TimeoutError:
            raise Broken(f"{answered} of {count} pings were answered") from None
        finally:
            await cancelled(sending)


async def unread_replies(world, rng):
    """Asks and asks and reads no answer; then reads them all, or is gone."""
    count = 1500
    with Socket(receive_buffer_bytes=4096) as wire:
        await wire.open()
        flood = b"".join(text(type="ping", id=f"{n:0100}", t=n) for n in range(count))
        sending = asyncio.ensure_future(wire.send(flood))
        try:
            await asyncio.sleep(rng.uniform(0, 1.2))
            if rng.random() < 0.3:
                return wire.vanish_with_reset()
            answered = 0
            async for message in messages(wire, is_sending=True):
                if message["type"] == "pong":
                    expect(world, "unread replies", message["t"], answered, counted=False)
                    answered += 1
                    if answered == count:
                        world.reached("unread replies read at last")
                        return
        finally:
            await cancelled(sending)


async def liar(world, rng):
    """Says that more is to come than ever does, and is silent, or dribbles."""
    with Socket() as wire:
        await wire.open()
        claimed = header(TEXT, 0, claimed=rng.randrange(100, 65536), key=UNCHANGED)
        await wire.send(claimed + b"x" * rng.randrange(50))
        if rng.random() < 0.5:
            got, _ = await wire.until_closed()
            # The ping found it in the middle of a frame, and no pong could come.
            expect(world, "lied about a length", got, None, AT_LIMITS + (1000,))
            return
        for _ in range(rng.randrange(30)):
            await wire.send(b"x")
            await asyncio.sleep(0.1)


async def holders(world, rng):
    """A crowd in which everybody keeps the server holding most of a message: it may not hold
    them all."""

    async def hold():
        with Socket() as wire:
            await wire.open()
            await wire.send(header(TEXT, 0, claimed=60000, key=UNCHANGED) + b"x" * 50000)
            got, _ = await wire.until_closed()
            expect(world, "holds half a message", got, 1013, AT_LIMITS + (1000,))

    held = await asyncio.gather(*(hold() for _ in range(30)), return_exceptions=True)
    for result in held:
        if isinstance(result, Broken):
            raise result


async def idler(world, rng):
    """Answers pings and says nothing else."""
    with Socket() as wire:
        await wire.open()
        try:
            async for _ in messages(wire, 60):
                pass
        except Gone as gone:
            expect(world, "says nothing", gone.code, 1000, AT_LIMITS)


async def reset_in_a_frame(world, rng):
    with Socket() as wire:
        await wire.open()
        await wire.send(text(type="subscribe", channel=rng.choice(CHANNELS)))
        request = text(type="publish", channel=rng.choice(CHANNELS),
                       payload={"m": world.next_mark(), "pad": payload_pad(rng)})
        await wire.send(request[: rng.randrange(1, len(request))])
        await asyncio.sleep(rng.uniform(0, 0.1))
        wire.vanish_with_reset()


async def half_close(world, rng):
    """Ends its own direction and goes on reading: the server ends, too."""
    with Socket() as wire:
        await wire.open()
        await wire.send(text(type="subscribe", channel=rng.choice(CHANNELS)))
        for n in range(rng.randrange(10)):
            await wire.send(text(type="publish", id=n, channel=rng.choice(CHANNELS),
                                 payload={"m": world.next_mark(), "pad": ""}))
        wire.socket.shutdown(1)
        await wire.until_closed()
        world.reached("half-closed")


async def storm(world, rng):
    """Many at once, and at once away again, each in its own way."""

    async def one(way):
        with Socket() as wire:
            await wire.connect()
            if way < 0.2:
                return
            await wire.send(REQUEST)
            if way < 0.4:
                return wire.vanish_with_reset()
            try:
                await wire.upgraded()
            except Gone as gone:
                return world.reached(f"storm: {gone.status}")
            await wire.send(text(type="subscribe", channel=rng.choice(CHANNELS)))
            if way < 0.6:
                await asyncio.sleep(way)
                wire.vanish_with_reset()
            elif way < 0.8:
                await wire.send(frame(CLOSE, b""))
                got, _ = await wire.until_closed()
                expect(world, "storm: good-bye", got, 1000, AT_LIMITS)

    for result in await asyncio.gather(*(one(rng.random()) for _ in range(300)), return_exceptions=True):
        if isinstance(result, Broken):
            raise result


RUDE = [violation, violation, http, http, half_handshake, half_handshake, mistakes, pieces, pieces,
        ping_flood, unread_replies, liar, idler, reset_in_a_frame, reset_in_a_frame, half_close]
CROWDS = [holders, storm]
