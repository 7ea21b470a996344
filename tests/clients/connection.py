"""One connection of the Python package `websockets`, in whatever way its messages are written."""

from websockets.asyncio.client import connect as open_websocket


class Connection:
    """With the welcome already heard. A subclass says which `SUBPROTOCOL` it speaks, and how what it
    says and hears is written: `pack` and `unpack`."""

    def __init__(self, server, subprotocols=None, **options):
        subprotocols = subprotocols or [self.SUBPROTOCOL]
        self.opening = open_websocket(server.url, subprotocols=subprotocols, ping_interval=None, **options)

    async def __aenter__(self):
        self.socket = await self.opening
        self.welcome = await self.hear()
        return self

    async def __aexit__(self, *_):
        await self.socket.close()

    async def hear(self):
        return self.unpack(await self.socket.recv())

    async def say(self, **message):
        await self.socket.send(self.pack(message))

    async def ask(self, **message):
        """Sends a request and returns its answer, the messages before it left out."""
        await self.say(**message)
        while True:
            answer = await self.hear()
            if answer.get("id") == message["id"]:
                return answer
