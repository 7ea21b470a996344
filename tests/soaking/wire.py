"""WebSocket by hand, over bare non-blocking sockets: what a good client sends, and what a rude
one sends instead."""

import asyncio
import fcntl
import json
import socket
import struct
import termios

SERVER = ("10.77.0.1", 8080)  # over the clean link
THIN = ("10.77.1.1", 8080)  # over the throttled one
LOST = ("10.77.2.1", 8080)  # over the one that is taken away

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class Gone(Exception):
    """The connection is over; `code` is that of the close frame, if there was one, and `status`
    that of the HTTP answer, if it never was a WebSocket."""

    def __init__(self, code=None, reason="", status=None):
        super().__init__(f"close {code} {reason}" if code else f"status {status}")
        self.code, self.reason, self.status = code, reason, status


class Broken(AssertionError):
    """The server broke its word."""


def header(opcode, length, claimed=None, fin=True, key=b"\x37\xfa\x21\x3d"):
    """The header of a masked frame, in the shortest form for the length it claims."""
    length = length if claimed is None else claimed
    first = opcode | (0x80 if fin else 0)
    if length < 126:
        return struct.pack("!BB", first, 0x80 | length) + key
    if length < 1 << 16:
        return struct.pack("!BBH", first, 0x80 | 126, length) + key
    return struct.pack("!BBQ", first, 0x80 | 127, length) + key


def frame(opcode, payload, fin=True, key=b"\x37\xfa\x21\x3d"):
    length = len(payload)
    mask = (key * (length // 4 + 1))[:length]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return header(opcode, length, fin=fin, key=key) + masked.to_bytes(length, "big")


def text(**message):
    """A request of ringcast.json.v1 as a frame."""
    return frame(TEXT, json.dumps(message, separators=(",", ":")).encode())


class Socket:
    """One connection. Closes what it opened, whatever happens: use it with `with`."""

    def __init__(self, peer=SERVER, receive_buffer_bytes=None):
        self.peer = peer
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.received = bytearray()
        self.loop = asyncio.get_running_loop()

    def __enter__(self):
        return self

    def __exit__(self, kind=None, error=None, _=None):
        # Whoever waited too long says what it waited with.
        if kind is asyncio.CancelledError and self.socket.fileno() >= 0:
            error.add_note(self.describe())
        self.close()

    def close(self):
        """Closes it, and nobody waits for it any more. A task that still does, in the moment until it
        is cancelled, would leave the loop believing that it watches this number: the next socket is
        given it, and would be told of nothing, for ever."""
        if self.socket.fileno() >= 0:
            self.loop.remove_reader(self.socket)
            self.loop.remove_writer(self.socket)
        self.socket.close()

    def describe(self):
        """What the kernel says of the connection: the server may have gone without a word, or its
        words may lie here unread."""
        state = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        unread = struct.unpack("i", fcntl.ioctl(self.socket, termios.FIONREAD, bytes(4)))[0]
        return f"{self.socket.getsockname()} TCP state {state}, {unread} bytes unread, {len(self.received)} not understood"

    async def connect(self):
        await self.loop.sock_connect(self.socket, self.peer)

    async def open(self, seconds=60):
        """The handshake, whole; the welcome is the first frame to come."""
        try:
            async with asyncio.timeout(seconds):
                await self.connect()
                await self.send(REQUEST)
                await self.upgraded()
        except TimeoutError:
            raise Broken(f"no answer to the handshake within {seconds} s; {self.describe()}") from None

    async def upgraded(self):
        """Reads the server's half of the handshake."""
        head = await self.head()
        status = int(head[9:12])
        if status != 101:
            raise Gone(status=status)
        if ACCEPT not in head:
            raise Broken(f"not the answer to this key: {head!r}")

    async def head(self):
        while b"\r\n\r\n" not in self.received:
            await self.more()
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        self.received = bytearray(rest)
        if not head.startswith(b"HTTP/1.1 "):
            raise Broken(f"not HTTP: {head[:60]!r}")
        return head

    async def send(self, data):
        await self.loop.sock_sendall(self.socket, data)

    async def more(self, bytes_max=65536, until=None):
        """Receives once. Only the waiting ends with a `TimeoutError`; no byte is lost by it (what
        `loop.sock_recv` has received is, when it is cancelled at that moment)."""
        while True:
            try:
                data = self.socket.recv(bytes_max)
                break
            except BlockingIOError:
                async with asyncio.timeout_at(until):
                    await self.readable()
        if not data:
            raise Gone()
        self.received += data

    async def readable(self):
        is_readable = self.loop.create_future()
        self.loop.add_reader(self.socket, lambda: is_readable.done() or is_readable.set_result(None))
        try:
            await is_readable
        finally:
            self.loop.remove_reader(self.socket)

    def frames(self):
        """The whole frames that have come, oldest first."""
        data, at = self.received, 0
        while len(data) - at >= 2:
            first, length = data[at], data[at + 1]
            start = at + 2
            if length == 126:
                if len(data) < at + 4:
                    break
                (length,), start = struct.unpack_from("!H", data, at + 2), at + 4
            elif length == 127:
                if len(data) < at + 10:
                    break
                (length,), start = struct.unpack_from("!Q", data, at + 2), at + 10
            elif length & 0x80:
                raise Broken("a server does not mask (RFC 6455 5.1)")
            if first & 0xF0 != 0x80:
                raise Broken(f"the first byte of a frame is {first:#x}")
            if len(data) < start + length:
                break
            payload = bytes(data[start : start + length])
            at = start + length
            yield first & 15, payload
        del data[:at]

    async def until_closed(self, seconds=15):
        """Reads to the close frame, answers it, and returns its code and reason; None and the
        HTTP status, or nothing, when there was none."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for opcode, payload in self.frames():
                        if opcode == CLOSE:
                            await self.send(frame(CLOSE, payload))
                            if not payload:
                                return 1005, ""  # RFC 6455 7.1.5: there was no code
                            return struct.unpack("!H", payload[:2])[0], payload[2:].decode()
                    await self.more()
        except TimeoutError:
            raise Broken(f"it was not closed within {seconds} s") from None
        except (Gone, OSError):
            return None, ""

    def vanish_with_reset(self):
        """Leaves without a good word: RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()
