"""What curl sees of a ringcast server's HTTP doors.

    curl_client.py BINARY uring|epoll        (curl from CURL, or the path)
"""

import asyncio
import json
import os
import subprocess
import sys

from server import Server, run_checks

CURL = os.environ.get("CURL", "curl")
BY_LINE = ("-H", "Content-Type: application/x-ndjson")
CONFIG = '[limits]\nbody_bytes_max = "1MiB"\n[timing]\ndrain_window = "300ms"\n'


def publish(server, *arguments, body=None):
    """The status and the body of the answer."""
    command = [CURL, "--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}",
               "http://127.0.0.1:{}/publish".format(server.port), *arguments]
    done = subprocess.run(command, input=body, capture_output=True, timeout=30)
    assert done.returncode == 0, (done.returncode, done.stderr)
    text, _, status = done.stdout.decode().rpartition("\n")
    return int(status), text


async def one_object_as_a_form_as_json_and_from_a_file_is_acknowledged_in_turn(server):
    message = '{"channel":"curl","payload":{"a":[1, 2]},"id":"x"}'
    for seq, arguments in enumerate([
        ["-d", message],
        ["--json", message],
        ["--data-binary", "@-"],
    ], 1):
        status, text = publish(server, *arguments, body=message.encode())
        assert status == 200, (status, text)
        assert json.loads(text) == {"type": "ack", "id": "x", "channel": "curl", "seq": seq}, text


async def an_upload_without_a_length_is_chunked_and_each_line_is_answered_in_order(server):
    body = "".join('{{"channel":"lines {}","payload":{},"id":{}}}\n'.format(n % 5, n, n) for n in range(3000))
    status, text = publish(server, "-X", "POST", "-T", "-", *BY_LINE, body=body.encode())
    assert status == 200, (status, text)
    answers = [json.loads(line) for line in text.splitlines()]
    expected = [{"type": "ack", "id": n, "channel": "lines {}".format(n % 5), "seq": n // 5 + 1} for n in range(3000)]
    assert answers == expected, (len(answers), answers[:3])


async def a_long_body_waits_for_leave_to_go_on_and_gets_it(server):
    message = json.dumps({"channel": "long", "payload": "x" * 60_000})
    status, text = publish(server, "-H", "Expect: 100-continue", "--expect100-timeout", "15", "-d", message)
    assert status == 200 and json.loads(text)["seq"] == 1, (status, text)


async def what_is_too_long_is_refused_with_413_and_an_error_object(server):
    message = json.dumps({"channel": "long", "payload": "x" * 70_000})
    status, text = publish(server, "-d", message)
    assert status == 413 and json.loads(text)["code"] == "content_too_large", (status, text)
    status, text = publish(server, "-X", "POST", "-T", "-", *BY_LINE, body=b"{}\n" * 500_000)
    last = json.loads(text.splitlines()[-1])
    assert last["code"] == "content_too_large" and "id" not in last, last


async def what_is_wrong_is_told_with_its_status(server):
    for arguments, expected in [
        (["-d", "{"], 400),
        (["-d", '{"channel":"a"}'], 400),
        (["-d", '{"channel":"a","payload":1}', "-H", "Origin: https://elsewhere.example"], 403),
        (["-X", "PUT", "-d", "{}"], 405),
        ([], 405),
    ]:
        status, text = publish(server, *arguments)
        assert status == expected and json.loads(text)["type"] == "error", (arguments, status, text)


async def the_server_ends_when_it_is_told_to(server):
    assert server.stop() == 0


CHECKS = [
    one_object_as_a_form_as_json_and_from_a_file_is_acknowledged_in_turn,
    an_upload_without_a_length_is_chunked_and_each_line_is_answered_in_order,
    a_long_body_waits_for_leave_to_go_on_and_gets_it,
    what_is_too_long_is_refused_with_413_and_an_error_object,
    what_is_wrong_is_told_with_its_status,
]


binary, driver = sys.argv[1:]
sys.exit(asyncio.run(run_checks(CHECKS, Server(binary, driver, CONFIG), farewell=the_server_ends_when_it_is_told_to)))
