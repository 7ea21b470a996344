// What the npm package `ws` sees of ringcast.raw.v1: bare payloads of one channel.
//
//   node raw_client.mjs BINARY uring|epoll        (`ws` is looked up from NODE_MODULES)

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { Checks, Server, until } from "./server.mjs";

const WebSocket = createRequire(process.env.NODE_MODULES ? `${process.env.NODE_MODULES}/` : import.meta.url)("ws");
const [binary, driver] = process.argv.slice(2);
const SUBPROTOCOL = "ringcast.raw.v1";

const server = await Server.start(binary, driver, {
  config: `
[limits]
outbox_messages_max = 32
[timing]
drain_window = "300ms"
[socket]
send_buffer_bytes = 8192
notsent_lowat_bytes = 4096
`,
});
const checks = new Checks();

/** A bare connection: payloads are in `heard`, in order, bytes as Buffers and JSON as text. */
class Client {
  heard = [];

  static async open(channel, query = "", protocols = [SUBPROTOCOL]) {
    const client = new Client();
    const url = new URL(`/raw/${encodeURIComponent(channel)}${query}`, server.url);
    client.socket = new WebSocket(url, protocols);
    client.closed = new Promise((resolve) => client.socket.once("close", (code, reason) => resolve({ code, reason: String(reason) })));
    client.socket.on("message", (data, binary) => client.heard.push(binary ? data : String(data)));
    await new Promise((resolve, reject) => client.socket.once("open", resolve).once("error", reject));
    return client;
  }

  send(payload) { this.socket.send(payload); }

  async close() {
    this.socket.close(1000);
    return this.closed;
  }
}

/** Opens a client that is known to be subscribed. */
async function subscribed(channel) {
  const client = await Client.open(channel);
  client.send('"here"');
  await until(() => client.heard.includes('"here"'), "its own message");
  client.heard.length = 0;
  return client;
}

await checks.run("both_kinds_of_payload_come_as_they_were_sent", async () => {
  const listener = await subscribed("raw/both ä");
  assert.equal(listener.socket.protocol, SUBPROTOCOL);
  const publisher = await Client.open("raw/both ä", "?mode=pub", []);
  assert.equal(publisher.socket.protocol, "");
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  const payloads = ["1e400", '{"a":[1,2.50,"\\u00e9"]}', bytes, Buffer.alloc(0), "null", '"text"'];
  for (const payload of payloads) publisher.send(payload);
  await until(() => listener.heard.length === payloads.length, "every payload");
  assert.deepEqual(listener.heard, payloads);
  assert.deepEqual(publisher.heard, []);
  assert.equal((await listener.close()).code, 1000);
  await publisher.close();
});

await checks.run("bytes_are_an_object_with_base64_to_a_json_subscriber", async () => {
  const socket = new WebSocket(server.url, ["ringcast.json.v1"]);
  const heard = [];
  socket.on("message", (data) => heard.push(JSON.parse(data)));
  await until(() => heard.length === 1, "the welcome");
  socket.send('{"type":"subscribe","id":1,"channel":"raw.json"}');
  await until(() => heard.length === 2, "the answer");
  const publisher = await Client.open("raw.json", "?mode=pub");
  publisher.send(Buffer.from([0, 1, 255]));
  publisher.send('{"order":"123"}');
  await until(() => heard.length === 4, "the messages");
  assert.deepEqual(heard.slice(2).map(({ payload }) => payload), [{ $bin: "AAH/" }, { order: "123" }]);
  socket.close();
  await publisher.close();
});

await checks.run("what_is_no_payload_closes_with_its_code", async () => {
  for (const [query, payload, code] of [
    ["", "hello", 4400],
    ["", "{", 4400],
    ["", Buffer.alloc(60_000), 1009],
    ["?mode=sub", "1", 1003],
  ]) {
    const client = await Client.open("raw.no", query);
    client.send(payload);
    const { code: said, reason } = await client.closed;
    assert.equal(said, code, reason);
    assert.ok(reason);
  }
});

await checks.run("a_url_that_names_no_channel_or_mode_gets_400", async () => {
  for (const path of ["/raw/", "/raw/%00", "/raw/a?mode=all"]) {
    const socket = new WebSocket(new URL(path, server.url));
    const error = await new Promise((resolve) => socket.once("error", resolve));
    assert.match(error.message, /400/, path);
  }
});

await checks.run("a_paused_client_is_closed_with_the_numbers_it_lost", async () => {
  const slow = await subscribed("raw.slow");
  const publisher = await Client.open("raw.slow", "?mode=pub");
  slow.socket.pause();
  const count = 8_000;
  for (let number = 1; number <= count; number += 1) {
    publisher.send(JSON.stringify([number, ".".repeat(500)]));
    if (number % 500 === 0) await until(() => publisher.socket.bufferedAmount === 0, "the socket to take it");
  }
  // Its pong says that the server has read everything.
  const pong = new Promise((resolve) => publisher.socket.once("pong", resolve));
  publisher.socket.ping();
  await pong;
  slow.socket.resume();
  const { code, reason } = await slow.closed;
  assert.equal(code, 4409);
  const [, from, to] = reason.match(/^lost (\d+) to (\d+) of epoch [0-9a-z]{8} \(slow_consumer\)$/).map(Number);
  slow.heard.forEach((payload, index) => assert.equal(JSON.parse(payload)[0], index + 1));
  // The first number was for the message that showed that it is subscribed.
  assert.equal(from, slow.heard.length + 2);
  assert.ok(to >= from && to <= count + 1, reason);
  await publisher.close();
}, 60_000);

await checks.run("1001_comes_when_the_server_leaves", async () => {
  const client = await subscribed("raw.bye");
  assert.equal(await server.stop(), 0);
  assert.equal((await client.closed).code, 1001);
  assert.deepEqual(client.heard, []);
});

await checks.end(server);
