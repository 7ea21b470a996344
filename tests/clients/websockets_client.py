#!/usr/bin/env python3
"""What the Python package `websockets` sees of a ringcast server.

    websockets_client.py BINARY uring|epoll
"""

import asyncio
import json
import socket
import sys

import websockets
from websockets.asyncio.client import connect as open_websocket
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from connection import Connection
from server import Server, run_checks

CONFIG = """
[limits]
outbox_messages_max = 32
[timing]
ping_interval = "1500ms"
pong_timeout = "1500ms"
drain_window = "200ms"
[socket]
send_buffer_bytes = 8192
notsent_lowat_bytes = 4096
"""


class Client(Connection):
    SUBPROTOCOL = "ringcast.json.v1"
    pack = staticmethod(json.dumps)
    unpack = staticmethod(json.loads)


async def subprotocol_is_agreed_and_the_welcome_comes_first(server):
    async with Client(server) as client:
        assert client.socket.subprotocol == Client.SUBPROTOCOL
        assert client.welcome["type"] == "welcome"
        assert client.welcome["ping_interval_ms"] == 1500
        assert client.welcome["message_bytes_max"] == 65536


async def no_subprotocol_and_an_unknown_one_open_too(server):
    for offered in (None, ["chat.example"]):
        async with open_websocket(server.url, subprotocols=offered) as client:
            assert client.subprotocol is None
            assert json.loads(await client.recv())["type"] == "welcome"


def received_bytes(client):
    """Counts what comes on the wire from now on, in the one item of a list."""
    count = [0]
    data_received = client.socket.data_received

    def counted(data):
        count[0] += len(data)
        data_received(data)

    client.socket.data_received = counted
    return count


async def what_is_long_comes_compressed_and_says_the_same(server):
    payload = {"orders": [{"order": number, "status": "paid", "note": "é😀"} for number in range(200)]}
    async with Client(server, compression="deflate") as listener, Client(server, compression=None) as plain:
        answer = listener.socket.response.headers["Sec-WebSocket-Extensions"]
        assert answer.startswith("permessage-deflate; server_no_context_takeover"), answer
        assert "Sec-WebSocket-Extensions" not in plain.socket.response.headers
        fewer, more = received_bytes(listener), received_bytes(plain)
        for client in (listener, plain):
            await client.ask(type="subscribe", id=1, channel="python.deflate")
        # The library's default asks for small windows, and refers back to earlier messages.
        for round in range(1, 6):
            await listener.say(type="publish", channel="python.deflate", payload=payload)
            await listener.say(type="publish", channel="python.deflate", payload=round)
            for client in (listener, plain):
                for expected in (payload, round):
                    heard = await client.hear()
                    assert heard["type"] == "message" and heard["payload"] == expected, heard
        assert more[0] > 5 * 200 * 40 and 0 < fewer[0] < more[0] / 5, (fewer, more)


async def every_window_and_takeover_is_agreed_to(server):
    payload = "".join(str(number * number) for number in range(2000))
    factories = [
        ClientPerMessageDeflateFactory(server_max_window_bits=bits, client_max_window_bits=bits) for bits in range(9, 16)
    ]
    factories += [
        ClientPerMessageDeflateFactory(server_max_window_bits=8),
        ClientPerMessageDeflateFactory(client_no_context_takeover=True),
        ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_max_window_bits=True),
    ]
    for factory in factories:
        async with Client(server, compression=None, extensions=[factory]) as client:
            assert client.socket.protocol.extensions, client.socket.response.headers
            await client.ask(type="subscribe", id=1, channel="python.windows")
            for round in range(3):
                await client.say(type="publish", channel="python.windows", payload=payload)
                assert (await client.hear())["payload"] == payload


async def a_bomb_ends_with_1009_and_costs_the_server_nothing(server):
    def resident_kib():
        with open("/proc/{}/status".format(server.process.pid)) as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    await a_bomb(server)
    before = resident_kib()
    for _ in range(20):
        await a_bomb(server)
    # Each would be 32 MiB.
    assert resident_kib() - before < 2048, (before, resident_kib())


async def a_bomb(server):
    async with Client(server, compression="deflate") as client:
        await client.socket.send("[" + " " * (32 << 20) + "]")
        try:
            await client.socket.recv()
            raise AssertionError("the connection lived on")
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd.code == 1009, closed


async def publisher_hears_its_own_message_and_its_ack(server):
    async with Client(server) as client:
        subscribed = await client.ask(type="subscribe", id="s", channel="python.own")
        assert subscribed["type"] == "subscribed" and subscribed["recovered"] is False
        await client.say(type="publish", id="p", channel="python.own", payload={"a": [1, None]})
        heard = [await client.hear(), await client.hear()]
        assert sorted(message["type"] for message in heard) == ["ack", "message"]
        for message in heard:
            assert message["seq"] == subscribed["seq"] + 1 and message["channel"] == "python.own"
        message = next(message for message in heard if message["type"] == "message")
        assert message["payload"] == {"a": [1, None]}


async def payload_keeps_its_bytes(server):
    payload = '{"n":123456789012345678901234567890,"z":-0.0,"e":1e400,"s":"\\u00e9\\ud83d\\ude00\\/","k":1,"k":2,"u":"é😀"}'
    async with Client(server) as client:
        await client.ask(type="subscribe", id=1, channel="python.bytes")
        await client.socket.send('{"type":"publish","channel":"python.bytes","payload":' + payload + "}")
        text = await client.socket.recv()
        assert text.endswith('"payload":' + payload + "}"), text


async def fragments_are_joined(server):
    async with Client(server) as client:
        text = json.dumps({"type": "ping", "id": "in pieces é😀", "t": 7}, ensure_ascii=False)
        await client.socket.send([text[i : i + 3] for i in range(0, len(text), 3)])
        assert await client.hear() == {"type": "pong", "id": "in pieces é😀", "t": 7}


async def nothing_follows_the_ack_of_an_unsubscribe(server):
    async with Client(server) as listener, Client(server) as publisher:
        await listener.ask(type="subscribe", id=1, channel="python.off")
        for number in range(50):
            await publisher.say(type="publish", channel="python.off", payload=number)
        assert (await listener.ask(type="unsubscribe", id=2, channel="python.off"))["type"] == "ack"
        last = await publisher.ask(type="publish", id=3, channel="python.off", payload="late")
        assert last["seq"] == 51
        assert await listener.ask(type="ping", id=4) == {"type": "pong", "id": 4}


async def a_client_that_only_answers_pings_stays(server):
    async with Client(server) as client:
        await client.ask(type="subscribe", id=1, channel="python.quiet")
        await asyncio.sleep(6.5)  # twice the interval and the timeout together
        assert (await client.ask(type="ping", id=2))["type"] == "pong"


async def pings_of_the_client_are_answered(server):
    async with Client(server) as client:
        for payload in (b"", b"x", bytes(range(125))):
            await asyncio.wait_for(await client.socket.ping(payload), 2)


async def a_request_that_cannot_be_met_gets_a_code_and_the_connection_lives(server):
    async with Client(server) as client:
        for request, code in (
            ({"type": "dance"}, "unknown_type"),
            ({"type": "subscribe"}, "missing_field"),
            ({"type": "subscribe", "channel": 5}, "wrong_type"),
            ({"type": "subscribe", "channel": ""}, "bad_channel"),
        ):
            answer = await client.ask(id=1, **request)
            assert (answer["type"], answer["code"]) == ("error", code), answer
            assert answer["reason"]


async def what_is_not_json_ends_with_4400(server):
    async with Client(server) as client:
        await client.socket.send("hello?")
        try:
            await client.socket.recv()
            raise AssertionError("the connection lived on")
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd.code == 4400, closed


async def a_close_is_answered_in_kind(server):
    client = Client(server)
    async with client:
        pass
    assert client.socket.close_code == 1000, client.socket.close_code


async def a_client_that_stops_reading_is_told_exactly_what_it_lost(server):
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", server.port))
    raw.setblocking(False)
    count = 3000
    # A queue of two messages: the library soon stops reading from the socket.
    async with Client(server, sock=raw, max_queue=2) as slow, Client(server) as publisher:
        first = (await slow.ask(type="subscribe", id=1, channel="python.slow"))["seq"] + 1
        for number in range(count - 1):
            await publisher.say(type="publish", channel="python.slow", payload=[number, "." * 500])
        last = await publisher.ask(type="publish", id=2, channel="python.slow", payload="last")
        assert last["seq"] == first + count - 1
        expected, received, lost = first, 0, 0
        while expected <= last["seq"]:
            heard = await slow.hear()
            if heard["type"] == "message":
                assert heard["seq"] == expected, (heard["seq"], expected)
                expected, received = expected + 1, received + 1
            else:
                assert heard["type"] == "gap" and heard["from"] == expected <= heard["to"], (heard, expected)
                expected, lost = heard["to"] + 1, lost + heard["to"] - heard["from"] + 1
        assert received + lost == count and lost > 0 and received > 32, (received, lost)


async def goaway_and_1001_come_before_the_end(server):
    async with Client(server) as client:
        status = asyncio.get_running_loop().run_in_executor(None, server.stop)
        goaway = await client.hear()
        assert goaway["type"] == "goaway" and goaway["reconnect_after_ms"] >= 0
        try:
            await client.hear()
            raise AssertionError("something came after goaway")
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd.code == 1001, closed
        assert await status == 0


CHECKS = [
    subprotocol_is_agreed_and_the_welcome_comes_first,
    no_subprotocol_and_an_unknown_one_open_too,
    what_is_long_comes_compressed_and_says_the_same,
    every_window_and_takeover_is_agreed_to,
    a_bomb_ends_with_1009_and_costs_the_server_nothing,
    publisher_hears_its_own_message_and_its_ack,
    payload_keeps_its_bytes,
    fragments_are_joined,
    nothing_follows_the_ack_of_an_unsubscribe,
    a_client_that_only_answers_pings_stays,
    pings_of_the_client_are_answered,
    a_request_that_cannot_be_met_gets_a_code_and_the_connection_lives,
    what_is_not_json_ends_with_4400,
    a_close_is_answered_in_kind,
    a_client_that_stops_reading_is_told_exactly_what_it_lost,
]


binary, driver = sys.argv[1:]
sys.exit(asyncio.run(run_checks(CHECKS, Server(binary, driver, CONFIG), farewell=goaway_and_1001_come_before_the_end)))
