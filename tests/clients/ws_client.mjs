// What the npm package `ws` sees of a ringcast server, alone and under ringcast's own client.
//
//   node ws_client.mjs BINARY uring|epoll        (`ws` is looked up from NODE_MODULES)

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { Ringcast, RingcastError } from "../../src/web/ringcast.js";
import { Proxy } from "./proxy.mjs";
import { Checks, Server, sleep, until } from "./server.mjs";

const WebSocket = createRequire(process.env.NODE_MODULES ? `${process.env.NODE_MODULES}/` : import.meta.url)("ws");
const [binary, driver] = process.argv.slice(2);
const SUBPROTOCOL = "ringcast.json.v1";

/** Little room for each client. */
const SMALL = `
[limits]
outbox_messages_max = 32
channels_per_client_max = 8
[socket]
send_buffer_bytes = 8192
notsent_lowat_bytes = 4096
`;
const server = await Server.start(binary, driver, {
  config: `${SMALL}
[timing]
ping_interval = "1500ms"
pong_timeout = "1500ms"
drain_window = "300ms"
[[channel]]
match = "own.kept*"
history = { messages = 5, age = "10m" }
[[channel]]
match = "own.many.*"
history = { messages = 50, age = "10m" }
[[channel]]
match = "own.once"
history = { messages = 1000, age = "10m" }
[[channel]]
match = "own.room"
presence = { grace = "300ms", events = "20ms" }
[[channel]]
match = "own.moves"
history = { messages = 1000, age = "10m" }
`,
});
const checks = new Checks();

/** A bare connection: what came is in `heard`, in order. */
class Client {
  heard = [];
  texts = [];

  static async open({ url = server.url, ...options } = {}) {
    const client = new Client();
    client.socket = new WebSocket(url, [SUBPROTOCOL], options);
    client.closed = new Promise((resolve) => client.socket.once("close", (code, reason) => resolve({ code, reason: String(reason) })));
    client.socket.on("message", (data, binary) => {
      assert.equal(binary, false);
      client.texts.push(String(data));
      client.heard.push(JSON.parse(data));
    });
    await new Promise((resolve, reject) => client.socket.once("open", resolve).once("error", reject));
    await until(() => client.heard[0], "the welcome");
    return client;
  }

  say(message) { this.socket.send(JSON.stringify(message)); }

  async ask(message) {
    this.say(message);
    return until(() => this.heard.find(({ id }) => id === message.id), `the answer to ${JSON.stringify(message)}`);
  }

  messages(channel) { return this.heard.filter((message) => message.type === "message" && message.channel === channel); }

  async close() {
    this.socket.close(1000);
    return this.closed;
  }
}

await checks.run("the_handshake_agrees_on_the_subprotocol_and_on_compression_if_it_is_offered", async () => {
  for (const perMessageDeflate of [true, false]) {
    const client = await Client.open({ perMessageDeflate });
    assert.equal(client.socket.protocol, SUBPROTOCOL);
    assert.equal(client.socket.extensions, perMessageDeflate ? "permessage-deflate" : "");
    assert.equal(client.heard[0].type, "welcome");
    assert.equal((await client.close()).code, 1000);
  }
});

await checks.run("messages_are_the_same_compressed_or_not_and_fewer_bytes_come", async () => {
  const options = [
    { perMessageDeflate: { threshold: 0 } },
    { perMessageDeflate: { threshold: 0, clientNoContextTakeover: true } },
    { perMessageDeflate: { threshold: 0, serverMaxWindowBits: 9, clientMaxWindowBits: 10 } },
    { perMessageDeflate: false },
  ];
  const clients = await Promise.all(options.map((each) => Client.open(each)));
  for (const client of clients) await client.ask({ type: "subscribe", id: 1, channel: "ws.deflate" });
  const received = () => clients.map((client) => client.socket._socket.bytesRead);
  const before = received();
  const payloads = Array.from({ length: 20 }, (_, round) =>
    Array.from({ length: 100 }, (_, number) => ({ order: round * number, status: "paid", text: "é😀" })));
  let sent = 0;
  for (const payload of payloads) {
    // Whoever publishes refers back to what it has published before.
    const client = clients[sent % clients.length];
    const ack = await client.ask({ type: "publish", id: `p${sent}`, channel: "ws.deflate", payload });
    assert.equal(ack.type, "ack");
    sent += 1;
  }
  for (const client of clients) {
    await until(() => client.messages("ws.deflate").length === sent, "every message");
    assert.deepEqual(client.messages("ws.deflate").map((message) => message.payload), payloads);
  }
  const bytes = received().map((now, index) => now - before[index]);
  for (const index of [0, 1, 2]) assert.ok(bytes[index] * 4 < bytes[3], `${bytes}`);
  for (const client of clients) assert.equal((await client.close()).code, 1000);
});

await checks.run("every_subscriber_hears_every_message_once_and_in_order", async () => {
  const listeners = await Promise.all(Array.from({ length: 20 }, () => Client.open()));
  for (const listener of listeners) await listener.ask({ type: "subscribe", id: 1, channel: "ws.all" });
  const publisher = await Client.open();
  // Below the outbox's 32 at a time: nobody here is slow.
  for (let round = 0; round < 20; round += 1) {
    for (let number = 0; number < 24; number += 1) publisher.say({ type: "publish", channel: "ws.all", payload: round * 25 + number });
    const ack = await publisher.ask({ type: "publish", id: round, channel: "ws.all", payload: round * 25 + 24 });
    assert.equal(ack.type, "ack");
    await until(() => listeners.every((listener) => listener.messages("ws.all").length === (round + 1) * 25), "every message");
  }
  for (const listener of listeners) {
    const messages = listener.messages("ws.all");
    assert.deepEqual(messages.map(({ payload }) => payload), Array.from({ length: 500 }, (_, index) => index));
    assert.ok(messages.every(({ seq }, index) => seq === messages[0].seq + index));
    await listener.close();
  }
  await publisher.close();
});

await checks.run("payloads_keep_their_bytes", async () => {
  const client = await Client.open();
  await client.ask({ type: "subscribe", id: 1, channel: "ws.bytes" });
  const payload = '[18446744073709551616,-0.0,1e400,0.1000,"\\u0000\\ud83d\\ude00",{"k":1,"k":2},"\u2028"]';
  client.socket.send(`{"payload":${payload},"type":"publish","channel":"ws.bytes"}`);
  const text = await until(() => client.texts[2], "the message");
  assert.ok(text.endsWith(`"payload":${payload}}`), text);
  await client.close();
});

await checks.run("fragments_with_a_ping_between_them_are_joined", async () => {
  const client = await Client.open();
  const pong = new Promise((resolve) => client.socket.once("pong", resolve));
  client.socket.send('{"type":"ping",', { fin: false });
  client.socket.ping("between");
  client.socket.send('"id":"', { fin: false });
  client.socket.send('joined"}', { fin: true });
  assert.equal(String(await pong), "between");
  await until(() => client.heard.find(({ type, id }) => type === "pong" && id === "joined"), "the pong");
  await client.close();
});

await checks.run("binary_is_refused_with_1003_and_no_json_with_4400", async () => {
  for (const [data, code] of [[Buffer.from("{}"), 1003], ["{", 4400], ["[1]", 4400], ['"text"', 4400]]) {
    const client = await Client.open();
    client.socket.send(data);
    assert.equal((await client.closed).code, code, String(data));
  }
});

await checks.run("pings_are_answered_by_ws_and_keep_it_connected", async () => {
  const client = await Client.open();
  let pings = 0;
  client.socket.on("ping", () => (pings += 1));
  await sleep(6_500); // twice the interval and the timeout together
  assert.ok(pings >= 3, `only ${pings} pings in 6.5 s`);
  assert.equal((await client.ask({ type: "ping", id: 1 })).type, "pong");
  await client.close();
});

// One that waits for a pong as long as servers usually do: on a busy machine eight thousand
// publishes take longer than the other one lets a client be silent.
const patient = await Server.start(binary, driver, { config: SMALL });
await checks.run("a_paused_client_is_told_exactly_what_it_lost", async () => {
  const slow = await Client.open({ url: patient.url });
  const publisher = await Client.open({ url: patient.url });
  const { seq: first } = await slow.ask({ type: "subscribe", id: 1, channel: "ws.slow" });
  slow.socket.pause();
  const count = 8_000;
  for (let number = 1; number < count; number += 1) {
    publisher.say({ type: "publish", channel: "ws.slow", payload: [number, ".".repeat(500)] });
    if (number % 500 === 0) await until(() => publisher.socket.bufferedAmount === 0, "the socket to take it");
  }
  const { seq: last } = await publisher.ask({ type: "publish", id: 2, channel: "ws.slow", payload: "last" });
  assert.equal(last, first + count);
  slow.socket.resume();
  const reached = () => slow.heard.findLast(({ channel }) => channel === "ws.slow");
  await until(() => (reached().to ?? reached().seq) === last, "the last message");
  let expected = first + 1;
  let lost = 0;
  for (const heard of slow.heard.filter(({ type }) => type === "message" || type === "gap")) {
    assert.equal(heard.from ?? heard.seq, expected);
    if (heard.type === "gap") lost += heard.to - heard.from + 1;
    expected = (heard.to ?? heard.seq) + 1;
  }
  assert.equal(expected, last + 1);
  assert.equal(slow.messages("ws.slow").length + lost, count);
  assert.ok(lost > 0, "nothing was lost: the client was not slow enough for this to show anything");
  await slow.close();
  await publisher.close();
}, 60_000);
await patient.discard();

// ---- ringcast's own client, over `ws` ----

const own = (options = {}) => new Ringcast(server.url, { WebSocket, retryDelayMinMs: 100, ...options });

await checks.run("the_own_client_subscribes_publishes_and_unsubscribes", async () => {
  const heard = [];
  const client = own({ channels: { "own.a": { onMessage: (payload, { seq }) => heard.push([seq, payload]) } } });
  await new Promise((resolve) => client.on("subscribed", resolve));
  const { seq } = await client.publish("own.a", { x: 1 });
  await until(() => heard.length, "the message");
  assert.deepEqual(heard, [[seq, { x: 1 }]]);
  assert.ok((await client.ping()) < 2_000);
  await client.unsubscribe("own.a");
  await client.publish("own.a", 2);
  await client.ping();
  assert.equal(heard.length, 1);
  client.close();
  assert.equal(client.state, "closed");
  await assert.rejects(client.publish("own.a", 3), { code: "not_connected" });
});

await checks.run("the_own_client_is_told_of_a_refusal", async () => {
  const client = own();
  await until(() => client.state === "open", "open");
  await assert.rejects(client.publish("", 1), (error) => error instanceof RingcastError && error.code === "bad_channel");
  const refused = new Promise((resolve) => client.subscribe("\u0001", { onError: resolve }));
  assert.equal((await refused).code, "bad_channel");
  assert.deepEqual(client.channels, []);
  client.close();
});

await checks.run("the_own_client_tells_what_was_published_while_it_was_away", async () => {
  const gaps = [];
  const keeper = own({ channels: { "own.away": {} } }); // keeps the numbering alive
  const client = own({ channels: { "own.away": { onGap: (gap) => gaps.push(gap) } } });
  await new Promise((resolve) => client.on("subscribed", resolve));
  await until(() => keeper.state === "open", "open");
  const { seq } = await keeper.publish("own.away", 0);
  await client.ping();
  client.close();
  for (let number = 1; number <= 5; number += 1) await keeper.publish("own.away", number);
  client.connect();
  await until(() => gaps.length, "the gap");
  assert.deepEqual(gaps.map(({ from, to, reason }) => ({ from, to, reason })), [{ from: seq + 1, to: seq + 5, reason: "too_old" }]);
  client.close();
  keeper.close();
});

await checks.run("the_own_client_recovers_what_is_kept_and_tells_the_rest", async () => {
  const keeper = own();
  await until(() => keeper.state === "open", "open");
  const heard = [];
  const client = own({ channels: { "own.kept": {
    since: "latest",
    onMessage: (payload) => heard.push(payload),
    onGap: ({ from, to, reason }) => heard.push({ from, to, reason }),
    onSubscribed: ({ recovered, from, seq }) => heard.push({ recovered, from, seq }),
  } } });
  await new Promise((resolve) => client.on("subscribed", resolve));
  let number = 0;
  const publish = async (count) => {
    for (let more = count; more > 0; more -= 1) await keeper.publish("own.kept", (number += 1));
  };
  const away = async (count) => {
    client.close();
    await publish(count);
    client.connect();
    await until(() => client.position("own.kept")?.seq === number, "what was missed");
  };
  await publish(2);
  await until(() => client.position("own.kept").seq === 2, "both");
  await away(4);
  await away(8);
  assert.deepEqual(heard, [
    { recovered: true, from: 1, seq: 0 }, 1, 2,
    { recovered: true, from: 3, seq: 6 }, 3, 4, 5, 6,
    { recovered: false, from: 7, seq: 14 }, { from: 7, to: 9, reason: "too_old" }, 10, 11, 12, 13, 14,
  ]);
  const late = [];
  keeper.subscribe("own.kept", { since: { last: 3 }, onMessage: (payload) => late.push(payload) });
  await until(() => late.length === 3, "the last three");
  assert.deepEqual(late, [12, 13, 14]);
  const page = await keeper.history("own.kept", { from: 11, limit: 2 });
  assert.deepEqual(page.messages.map(({ seq, payload }) => [seq, payload]), [[11, 11], [12, 12]]);
  assert.deepEqual([page.seq, page.more], [14, true]);
  assert.deepEqual((await keeper.history("own.kept")).messages.map(({ seq }) => seq), [10, 11, 12, 13, 14]);
  client.close();
  keeper.close();
});

await checks.run("the_own_client_says_who_it_is_and_is_told_who_comes_and_goes", async () => {
  const told = [];
  const observer = new Ringcast(server.url, { WebSocket });
  observer.subscribe("presence:own.room", { onMessage: (payload) => told.push(payload) });
  await until(() => observer.position("presence:own.room"), "the observer's place");
  const tabs = [1, 2].map(() => new Ringcast(server.url, { WebSocket, user: "ann b", channels: { "own.room": {} } }));
  await until(async () => (await observer.presenceStats("own.room")).connections === 2, "both tabs");
  const { users, total, more, unlisted, epoch, seq } = await observer.presence("own.room", { limit: 1 });
  assert.deepEqual([users, total, more, unlisted], [[{ user: "ann b", connections: 2 }], 1, false, 0]);
  assert.deepEqual([typeof epoch, typeof seq], ["string", "number"]);
  assert.deepEqual((await observer.presence("own.room", { after: "ann b" })).users, []);
  for (const tab of tabs) tab.close();
  await until(() => told.some(({ event }) => event === "presence.leave"), "the leave");
  assert.deepEqual(told.at(-1), { event: "presence.leave", users: ["ann b"], total: 0 });
  assert.ok(told.slice(0, -1).every(({ event }) => event === "presence.join"));
  await assert.rejects(observer.presence("own.many.1"), { code: "no_presence" });
  observer.close();
});

await checks.run("the_own_client_goes_on_in_every_channel_that_a_pattern_matches", async () => {
  const proxy = await Proxy.start(server.port);
  const keeper = own();
  await until(() => keeper.state === "open", "open");
  const client = new Ringcast(proxy.url, { WebSocket, retryDelayMinMs: 50, stableAfterMs: 0 });
  const [told, begun, both, gaps] = [[], [], [], []];
  client.subscribe("own.many.*", {
    onMessage: (payload, { channel }) => told.push(`${channel} ${payload}`),
    onGap: (gap) => gaps.push(gap),
    onSubscribed: ({ channel, from }) => begun.push(`${channel} ${from}`),
    onWatching: ({ pattern, channels }) => begun.push(`${pattern} ${channels}`),
  });
  assert.throws(() => client.subscribe("own.>", { since: "latest" }), TypeError);
  assert.throws(() => client.subscribe("own.>", { conflate: "1s" }), TypeError);
  await until(() => begun.length > 0, "the pattern's answer");
  assert.deepEqual(begun, ["own.many.* 0"]);
  // As many as one client may ask for, and some more.
  const names = Array.from({ length: 12 }, (_, index) => `own.many.${index}`);
  const last = new Map();
  const publish = async (payload, channels = names) => {
    for (const channel of channels) last.set(channel, (await keeper.publish(channel, payload)).seq);
  };
  const has = (payload, channels = names) =>
    until(() => channels.every((channel) => told.includes(`${channel} ${payload}`)), `all of ${payload}`);
  await publish(1, names.slice(0, 6));
  await has(1, names.slice(0, 6));
  for (let life = 2; life < 5; life += 1) {
    proxy.cut();
    await publish(life, names.slice(0, 6));
    await has(life, names.slice(0, 6));
  }
  await publish(5);
  await has(5);
  assert.equal(told.length, 6 * 5 + 6, "each once");
  assert.deepEqual(gaps, []);
  assert.deepEqual(client.position("own.many.0"), { epoch: client.position("own.many.0").epoch, seq: 5 });
  // Asked for by its name, too, each handler hears it once; and it goes on when that has ended.
  const stop = client.subscribe("own.many.0", { onMessage: (payload) => both.push(payload) });
  await publish(6, names.slice(0, 1));
  await until(() => both.includes(6), "both");
  stop();
  await publish(7, names.slice(0, 1));
  await has(7, names.slice(0, 1));
  assert.deepEqual([both, told.filter((text) => text === "own.many.0 6").length], [[6], 1]);
  // More than may be asked for at once: the pattern brings the rest, and what was missed is told.
  proxy.cut();
  await publish(8);
  await publish(9);
  await until(() => names.every((channel) => client.position(channel).seq === last.get(channel)), "all up to the last");
  const missed = gaps.reduce((sum, { from, to }) => sum + to - from + 1, 0);
  const came = told.filter((text) => / [89]$/.test(text)).length;
  assert.equal(came + missed, 24, `${came} came, and ${JSON.stringify(gaps)}`);
  assert.ok(came >= 16, `${came} of those that are asked for`);
  await client.unsubscribe("own.many.*");
  const count = told.length;
  await publish(10);
  await client.ping();
  assert.deepEqual([told.length, client.channels, client.patterns], [count, [], []]);
  client.close();
  keeper.close();
  await proxy.stop();
});

await checks.run("the_own_client_is_told_what_is_no_pattern", async () => {
  const client = own();
  await until(() => client.state === "open", "open");
  const error = await new Promise((resolve) => client.subscribe("a.>.b", { onError: resolve }));
  assert.deepEqual([error.code, error.channel, client.patterns], ["bad_pattern", "a.>.b", []]);
  client.close();
});

await checks.run("the_own_client_publishes_once_though_its_connection_breaks", async () => {
  const proxy = await Proxy.start(server.port);
  const client = new Ringcast(proxy.url, { WebSocket, retryDelayMinMs: 50, stableAfterMs: 0 });
  const acks = [];
  for (let number = 1; number <= 400; number += 1) {
    acks.push(client.publish("own.once", number, { retry: true }));
    if (number % 100 === 50) {
      await sleep(number % 7);
      proxy.cut();
    }
    if (number % 10 === 0) await sleep(1);
  }
  const expected = Array.from({ length: 400 }, (_, index) => index + 1);
  assert.deepEqual((await Promise.all(acks)).map(({ seq }) => seq), expected);
  // What they were sent in may have been too much at once for a subscriber's small outbox.
  const { messages, more } = await client.history("own.once");
  assert.deepEqual(messages.map(({ payload }) => payload), expected);
  assert.equal(more, false);
  const [first, again] = [await client.publish("own.once", 0, { key: "same" }), await client.publish("own.once", 0, { key: "same" })];
  assert.deepEqual([again.seq, first.duplicate, again.duplicate], [first.seq, false, true]);
  client.close();
  await proxy.stop();
});

await checks.run("the_own_client_publishes_without_a_websocket", async () => {
  const proxy = await Proxy.start(server.port);
  const client = new Ringcast(proxy.url, { transports: ["sse"], retryDelayMinMs: 50, stableAfterMs: 0 });
  await until(() => client.state === "open", "open");
  const large = "x".repeat(70_000);
  const outcomes = await Promise.allSettled(["before", large, "after"].map((payload) => client.publish("own.posted", payload)));
  assert.deepEqual(outcomes.map(({ value, reason }) => value?.seq ?? reason.code), [1, "content_too_large", 2]);
  await assert.rejects(client.publish("own.posted", large), { code: "content_too_large" });
  await assert.rejects(client.publish("", 1), { code: "bad_channel" });
  const [first, again] = [await client.publish("own.posted", 0, { key: "same" }), await client.publish("own.posted", 0, { key: "same" })];
  assert.deepEqual([first, again], [{ seq: 3, duplicate: false }, { seq: 3, duplicate: true }]);
  const acks = [];
  for (let number = 0; number < 400; number += 1) {
    acks.push(client.publish("own.posted", number, { retry: true }));
    if (number % 100 === 50) {
      await sleep(number % 7);
      proxy.cut();
    }
    if (number % 10 === 0) await sleep(2);
  }
  assert.deepEqual((await Promise.all(acks)).map(({ seq }) => seq), Array.from({ length: 400 }, (_, index) => index + 4));
  client.close();
  await proxy.stop();
});

await checks.run("the_own_client_moves_over_all_transports_and_back_and_misses_nothing", async () => {
  const proxy = await Proxy.start(server.port);
  const keeper = own();
  await until(() => keeper.state === "open", "open");
  const heard = [];
  const client = new Ringcast(proxy.url, {
    WebSocket, retryDelayMinMs: 50, stableAfterMs: 0, betterAfterMs: 200, connectTimeoutMs: 1_000,
    channels: { "own.moves": { onMessage: (payload) => heard.push(payload), onGap: (gap) => heard.push(gap) } },
  });
  await until(() => client.position("own.moves"), "the subscription");
  let published = 0;
  const publishing = setInterval(() => keeper.publish("own.moves", (published += 1)), 3);
  for (const [blocked, held, transport] of [
    [[], [], "websocket"], [["websocket"], [], "sse"], [["websocket"], ["sse"], "poll"], [["websocket"], [], "sse"], [[], [], "websocket"],
  ]) {
    [proxy.blocked, proxy.held] = [new Set(blocked), new Set(held)];
    if (blocked.includes(client.transport) || held.includes(client.transport)) proxy.cut();
    await until(() => client.state === "open" && client.transport === transport, `open over ${transport}`, 20_000);
    const { seq } = client.position("own.moves");
    await until(() => client.position("own.moves").seq > seq + 30, "messages");
  }
  clearInterval(publishing);
  await keeper.ping();
  await until(() => client.position("own.moves").seq === published, "the last message");
  assert.deepEqual(heard, Array.from({ length: published }, (_, index) => index + 1));
  client.close();
  keeper.close();
  await proxy.stop();
});

await checks.run("the_own_client_obeys_goaway_and_comes_back_to_a_restarted_server", async () => {
  const states = [];
  const gaps = [];
  let goaway = null;
  const client = own({ channels: { "own.restart": { onGap: (gap) => gaps.push(gap) } } });
  client.on("state", (state) => states.push(state));
  client.on("goaway", (value) => (goaway = value));
  await new Promise((resolve) => client.on("subscribed", resolve));
  await client.publish("own.restart", 1);
  assert.equal(await server.stop(), 0);
  await until(() => client.state !== "open", "the end");
  assert.ok(goaway && goaway.reconnectAfterMs >= 0);
  assert.equal(states.find(({ state }) => state === "waiting").code, 1001);
  await server.again();
  await until(() => client.state === "open", "open again", 20_000);
  await until(() => gaps.length, "the new epoch");
  assert.equal(gaps[0].reason, "epoch_changed");
  assert.equal((await client.publish("own.restart", 2)).seq, 1);
  client.close();
});

await checks.run("the_own_client_survives_a_killed_server", async () => {
  const client = own();
  await until(() => client.state === "open", "open");
  const late = client.publish("own.killed", 1).catch(({ code }) => code);
  await server.stop("SIGKILL");
  const outcome = await late;
  assert.ok(outcome === "connection_lost" || outcome.seq === 1, outcome);
  await until(() => client.state === "waiting" || client.state === "connecting", "the end");
  await server.again();
  await until(() => client.state === "open", "open again", 20_000);
  client.close();
});

await checks.end(server);
