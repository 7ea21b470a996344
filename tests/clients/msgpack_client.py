#!/usr/bin/env python3
"""What the Python packages `websockets` and `msgpack` see of a ringcast server.

    msgpack_client.py BINARY uring|epoll
"""

import asyncio
import math
import sys

import msgpack
import websockets
from websockets.asyncio.client import connect as open_websocket

from connection import Connection
from server import Server, run_checks

CONFIG = """
[timing]
drain_window = "200ms"
"""

# What JSON can say and MessagePack cannot comes as its JSON text.
EXT_JSON = 74


class Client(Connection):
    SUBPROTOCOL = "ringcast.msgpack.v1"
    pack = staticmethod(msgpack.packb)

    @staticmethod
    def unpack(message):
        assert isinstance(message, bytes), message
        return msgpack.unpackb(message)


async def subprotocol_is_agreed_and_the_welcome_is_a_map(server):
    async with Client(server, ["chat.example", Client.SUBPROTOCOL, "ringcast.json.v1"]) as client:
        assert client.socket.subprotocol == Client.SUBPROTOCOL
        assert client.welcome["type"] == "welcome" and client.welcome["message_bytes_max"] == 65536


async def every_value_comes_back_as_it_was(server):
    values = [
        None, True, False, 0, -1, 127, 128, -128, -129, 2**31, -(2**31) - 1, 2**63, 2**64 - 1, -(2**63),
        0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, "", "é😀", "\0\n\"\\", "x" * 300, b"", bytes(range(256)), b"\0" * 1000,
        [], {}, list(range(20)), {str(number): [number] for number in range(20)}, [[[{"a": {"b": []}}]]],
        msgpack.ExtType(5, b"ext"), msgpack.Timestamp(1685440800, 5), msgpack.ExtType(EXT_JSON, b"1e400"),
    ]
    async with Client(server) as client:
        await client.ask(type="subscribe", id="s", channel="msgpack.values")
        for value in values:
            await client.say(type="publish", channel="msgpack.values", payload=value)
            heard = await client.hear()
            assert heard["type"] == "message" and heard["channel"] == "msgpack.values"
            assert heard["payload"] == value and type(heard["payload"]) is type(value), (heard, value)
            if isinstance(value, float):
                assert math.copysign(1, heard["payload"]) == math.copysign(1, value)


async def a_float_of_32_bits_is_the_same_number(server):
    async with Client(server) as client:
        await client.ask(type="subscribe", id=1, channel="msgpack.single")
        message = {"type": "publish", "channel": "msgpack.single", "payload": 0.1}
        await client.socket.send(msgpack.packb(message, use_single_float=True))
        assert (await client.hear())["payload"] == msgpack.unpackb(msgpack.packb(0.1, use_single_float=True))


async def what_json_publishes_is_heard_to_the_last_digit(server):
    async with Client(server) as client, open_websocket(server.url) as publisher:
        await client.ask(type="subscribe", id=1, channel="msgpack.json")
        payload = '[18446744073709551616, 1e400, 12, 1.50, {"k":1}, "\\ud83d\\ude00", {"$bin":"AAH/"}, "\\ud83d"]'
        await publisher.send('{"type":"publish","channel":"msgpack.json","payload":' + payload + "}")
        heard = (await client.hear())["payload"]
        as_json = lambda text: msgpack.ExtType(EXT_JSON, text)
        assert heard == [
            as_json(b"18446744073709551616"), as_json(b"1e400"), 12, 1.5, {"k": 1}, "😀", b"\x00\x01\xff", as_json(b'"\\ud83d"'),
        ], heard


async def answers_echo_the_id_and_errors_have_a_code(server):
    async with Client(server) as client:
        for request_id in (7, -7, "seven", 2**64 - 1, 1.5):
            assert await client.ask(type="ping", id=request_id) == {"type": "pong", "id": request_id}
        answer = await client.ask(type="publish", id=8, channel="msgpack.ack", payload=b"bytes")
        assert answer == {"type": "ack", "id": 8, "channel": "msgpack.ack", "seq": 1}, answer
        answer = await client.ask(type="subscribe", id=9)
        assert (answer["type"], answer["code"]) == ("error", "missing_field"), answer


async def what_is_not_a_map_of_json_values_ends_the_connection(server):
    for message, code in (
        ("{}", 1003),
        (b"\xc1", 4400),
        (msgpack.packb([1]), 4400),
        (msgpack.packb({"type": "ping"})[:-1], 4400),
        (msgpack.packb({"type": "ping", "t": float("nan")}), 4400),
        (msgpack.packb({"type": "ping", 5: 6}), 4400),
        (msgpack.packb({"type": "publish", "channel": "c", "payload": bytes(60_000)}), 1009),
    ):
        async with Client(server) as client:
            await client.socket.send(message)
            try:
                heard = await client.hear()
                raise AssertionError("{} was answered with {}".format(message[:40], heard))
            except websockets.ConnectionClosed as closed:
                assert closed.rcvd.code == code, (message[:40], closed)


async def goaway_and_1001_come_before_the_end(server):
    async with Client(server) as client:
        status = asyncio.get_running_loop().run_in_executor(None, server.stop)
        assert (await client.hear())["type"] == "goaway"
        try:
            await client.hear()
            raise AssertionError("something came after goaway")
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd.code == 1001, closed
        assert await status == 0


CHECKS = [
    subprotocol_is_agreed_and_the_welcome_is_a_map,
    every_value_comes_back_as_it_was,
    a_float_of_32_bits_is_the_same_number,
    what_json_publishes_is_heard_to_the_last_digit,
    answers_echo_the_id_and_errors_have_a_code,
    what_is_not_a_map_of_json_values_ends_the_connection,
]


binary, driver = sys.argv[1:]
sys.exit(asyncio.run(run_checks(CHECKS, Server(binary, driver, CONFIG), farewell=goaway_and_1001_come_before_the_end)))
