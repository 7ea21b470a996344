"""A crowd of careless clients in a process of its own, which is there to be killed: no line of it
gets to say good-bye."""

import asyncio
import random
import sys

from good import CHANNELS
from wire import PING, PONG, REQUEST, Socket, frame, header, text


async def one(rng, peer, ready):
    with Socket(peer, rng.choice((None, 4096))) as wire:
        await wire.connect()
        phase = rng.random()
        if phase < 0.2:
            await wire.send(REQUEST[: rng.randrange(len(REQUEST) - 1)])
        else:
            await wire.send(REQUEST)
            await wire.upgraded()
            for channel in rng.sample(CHANNELS, 3):
                await wire.send(text(type="subscribe", channel=channel))
            if phase < 0.4:
                await wire.send(header(1, 0, claimed=1000) + b"x" * rng.randrange(900))
        ready()
        # Half of them read on, the others leave everything where it is.
        while rng.random() < 0.5 or phase > 0.7:
            for opcode, payload in wire.frames():
                if opcode == PING:
                    await wire.send(frame(PONG, payload))
            await wire.more()
        await asyncio.sleep(3600)


async def main(host, port, count, seed):
    rng = random.Random(seed)
    missing = count

    def ready():
        nonlocal missing
        missing -= 1
        if not missing:
            print("ready", flush=True)

    await asyncio.gather(*(one(rng, (host, port), ready) for _ in range(count)), return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
