// What ringcast's own client does when servers, networks and proxies misbehave, over each
// transport, against a server that follows a script.
//
//   node own_client.mjs        (`ws` is looked up from NODE_MODULES)

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Ringcast } from "../../src/web/ringcast.js";
import { Scripted } from "./scripted.mjs";
import { Checks, sleep, until } from "./server.mjs";

const WebSocket = createRequire(process.env.NODE_MODULES ? `${process.env.NODE_MODULES}/` : import.meta.url)("ws");
const checks = new Checks();

/** A client, and all it was told of channel "a". */
function listen(server, { handlers = {}, ...options } = {}) {
  const heard = [];
  const client = new Ringcast(server.url, {
    WebSocket, retryDelayMinMs: 30, retryDelayMaxMs: 100, publishTimeoutMs: 5_000,
    channels: {
      a: {
        onMessage: (payload, { seq }) => heard.push(seq),
        onGap: ({ from, to, reason }) => heard.push(`${from}-${to} ${reason}`),
        onSubscribed: ({ recovered, reason, from, seq, resumed }) =>
          heard.push(`${resumed ? "resumed" : "new"} ${recovered} ${reason} ${from}..${seq}`),
        ...handlers,
      },
    },
    ...options,
  });
  return { client, heard };
}

const isOpen = (client) => until(() => client.state === "open", "open");
const reached = (client, seq) => until(() => client.position("a")?.seq === seq, `number ${seq}`);

/** Cuts until the client notices: between two polls there is nothing to cut. */
const cutOff = (server, client) => until(() => server.cut() || client.state !== "open", "the end");

/** The same claim for each transport. */
async function everywhere(name, check) {
  for (const transport of ["websocket", "sse", "poll"]) {
    await checks.run(`${name}_over_${transport}`, async () => {
      const server = await Scripted.start();
      try {
        await check(server, transport);
      } finally {
        await server.stop();
      }
    });
  }
}

async function claim(name, check) {
  await checks.run(name, async () => {
    const server = await Scripted.start();
    try {
      await check(server);
    } finally {
      await server.stop();
    }
  });
}

await everywhere("what_was_missed_while_away_is_recovered_in_order_and_once", async (server, transport) => {
  for (let n = 1; n <= 4; n += 1) server.publish("a", n);
  const { client, heard } = listen(server, { transports: [transport] });
  await reached(client, 4);
  for (let n = 5; n <= 6; n += 1) server.publish("a", n);
  await reached(client, 6);
  await cutOff(server, client);
  for (let n = 7; n <= 9; n += 1) server.publish("a", n);
  await reached(client, 9);
  server.publish("a", 10);
  await reached(client, 10);
  assert.deepEqual(heard.filter((entry) => typeof entry === "number" || entry.includes("-")), [5, 6, 7, 8, 9, 10]);
  assert.match(heard[0], /^new false null 5\.\.4$/);
  assert.match(heard[3], /^resumed true null 7\.\.\d$/);
  const resume = server.requests.filter(({ since }) => since).at(transport === "websocket" ? -1 : 0);
  if (transport === "websocket") assert.deepEqual(resume.since, { epoch: "e1", seq: 6 });
  else assert.ok(server.requests.some(({ since }) => since === "e1.6"));
  assert.equal(client.transport, transport);
  client.close();
});

await everywhere("what_is_too_old_is_one_gap_and_the_rest_is_recovered", async (server, transport) => {
  server.publish("a", 1);
  const { client, heard } = listen(server, { transports: [transport] });
  await reached(client, 1);
  await cutOff(server, client);
  for (let n = 2; n <= 9; n += 1) server.publish("a", n);
  server.forget("a", 3);
  await reached(client, 9);
  await cutOff(server, client); // what was told once is not told again
  await isOpen(client);
  server.publish("a", 10);
  await reached(client, 10);
  assert.deepEqual(heard.filter((entry) => typeof entry === "number" || entry.includes("-")), ["2-6 too_old", 7, 8, 9, 10]);
  client.close();
});

await everywhere("a_new_epoch_is_told_as_a_loss_nobody_can_count_and_then_read_from_its_start", async (server, transport) => {
  server.publish("a", 1);
  const { client, heard } = listen(server, { transports: [transport] });
  await reached(client, 1);
  await cutOff(server, client);
  server.renumber("a", "e2");
  for (let n = 1; n <= 5; n += 1) server.publish("a", n);
  server.forget("a", 2);
  await reached(client, 5);
  assert.deepEqual(client.position("a"), { epoch: "e2", seq: 5 });
  const losses = heard.filter((entry) => typeof entry === "number" || entry.includes("-"));
  assert.deepEqual(losses, ["null-null epoch_changed", "1-3 epoch_changed", 4, 5]);
  assert.ok(heard.some((entry) => /^resumed false epoch_changed 1\.\.\d$/.test(entry)), heard.join("; "));
  client.close();
});

await everywhere("gaps_and_breaks_are_told_exactly_once", async (server, transport) => {
  const { client, heard } = listen(server, { transports: [transport] });
  await reached(client, 0);
  const said = [
    { type: "message", seq: 1, payload: 1 },
    { type: "gap", from: 2, to: 4, reason: "slow_consumer" },
    { type: "gap", from: 3, to: 4, reason: "slow_consumer" }, // again
    { type: "message", seq: 4, payload: 4 }, // what was told as lost stays lost
    { type: "message", seq: 7, payload: 7 }, // a break that nobody told
    { type: "gap", from: 9, to: 9, reason: "memory" }, // begins behind a break
    { type: "message", seq: 10, payload: 10 },
    { type: "message", seq: 13, from: 11, payload: 13 }, // stands for three
    { type: "message", seq: 16, from: 15, payload: 16 }, // and for two, behind a break
  ];
  for (const event of said) {
    server.deliver({ channel: "a", ...event });
    await sleep(20);
  }
  await reached(client, 16);
  const told = heard.filter((entry) => typeof entry === "number" || entry.includes("-"));
  assert.deepEqual(told, [1, "2-4 slow_consumer", "5-6 missed", 7, "8-9 memory", 10, 13, "14-14 missed", 16]);
  client.close();
});

await claim("an_interval_is_asked_for_again_after_a_break", async (server) => {
  const { client } = listen(server, { handlers: { conflate: "500ms" } });
  await isOpen(client);
  await cutOff(server, client);
  const asked = () => server.requests.filter(({ type }) => type === "subscribe").map(({ conflate }) => conflate);
  await until(() => asked().length === 2, "two subscribes");
  assert.deepEqual(asked(), ["500ms", "500ms"]);
  client.close();
});

await everywhere("a_subscription_may_begin_with_the_latest_the_last_few_or_a_position", async (server, transport) => {
  for (let n = 1; n <= 9; n += 1) server.publish("a", n);
  server.forget("a", 4);
  const all = ["null-null epoch_changed", "1-5 epoch_changed", 6, 7, 8, 9];
  for (const [since, expected] of [
    ["latest", [9]],
    [{ last: 3 }, [7, 8, 9]],
    [{ last: 50 }, [6, 7, 8, 9]],
    [{ epoch: "e1", seq: 3 }, ["4-5 too_old", 6, 7, 8, 9]],
    [{ epoch: "e0", seq: 3 }, all],
    // Beyond the newest: it is another life with the same name.
    ...(transport === "poll" ? [] : [[{ epoch: "e1", seq: 30 }, all]]),
  ]) {
    const { client, heard } = listen(server, { transports: [transport], handlers: { since } });
    await reached(client, 9);
    const told = heard.filter((entry) => typeof entry === "number" || entry.includes("-"));
    assert.deepEqual(told, expected, JSON.stringify(since));
    client.close();
  }
});

await everywhere("a_publish_whose_ack_was_lost_arrives_once", async (server, transport) => {
  const { client, heard } = listen(server, { transports: [transport] });
  await reached(client, 0);
  server.losesAcks = 1;
  const first = client.publish("a", "one", { retry: true });
  const second = client.publish("a", "two", { retry: true });
  assert.deepEqual(await first, { seq: 1, duplicate: true });
  assert.equal((await second).seq, 2);
  await reached(client, 2);
  assert.deepEqual(heard.filter((entry) => typeof entry === "number"), [1, 2]);
  server.losesAcks = 1;
  await assert.rejects(client.publish("a", "three"), { code: "connection_lost" });
  client.close();
});

await everywhere("a_publish_with_retry_waits_for_a_connection_and_for_better_times", async (server, transport) => {
  const { client } = listen(server, { transports: [transport] });
  await assert.rejects(client.publish("a", 0), { code: "not_connected" });
  const early = client.publish("a", "early", { retry: true, key: "mine" });
  assert.deepEqual(await early, { seq: 1, duplicate: false });
  assert.deepEqual(await client.publish("a", "again", { key: "mine" }), { seq: 1, duplicate: true });
  server.refuses = ["overloaded", "overloaded"];
  assert.equal((await client.publish("a", "later", { retry: true })).seq, 2);
  server.refuses = ["forbidden"];
  await assert.rejects(client.publish("a", "never", { retry: true }), { code: "forbidden" });
  await assert.rejects(client.publish("a", "x".repeat(2_000), { retry: true }), { code: "content_too_large" });
  const late = client.publish("a", 1, { retry: true });
  client.close();
  await assert.rejects(late, { code: "closed" });
});

await everywhere("publishes_keep_their_order", async (server, transport) => {
  const { client } = listen(server, { transports: [transport] });
  await isOpen(client);
  const acks = await Promise.all(Array.from({ length: 200 }, (_, index) => client.publish("a", index, { retry: index % 2 === 0 })));
  assert.deepEqual(acks.map(({ seq }) => seq), Array.from({ length: 200 }, (_, index) => index + 1));
  assert.deepEqual(server.channel("a").events.map(({ payload }) => payload), Array.from({ length: 200 }, (_, index) => index));
  client.close();
});

await everywhere("publishes_with_retry_keep_their_order_through_broken_connections", async (server, transport) => {
  const { client } = listen(server, { transports: [transport] });
  await isOpen(client);
  const acks = [];
  for (let number = 0; number < 300; number += 1) {
    acks.push(client.publish("a", number, { retry: true }));
    if (number % 60 === 20) server.losesPosts = 1;
    if (number % 60 === 40) server.losesAcks = 1;
    if (number % 7 === 0) await sleep(1);
  }
  await Promise.all(acks);
  const numbers = server.channel("a").events.map(({ payload }) => payload);
  assert.deepEqual(numbers, Array.from({ length: 300 }, (_, index) => index));
  client.close();
});

await everywhere("history_is_read_in_pages", async (server, transport) => {
  for (let n = 1; n <= 9; n += 1) server.publish("a", { n });
  server.forget("a", 7);
  const { client } = listen(server, { transports: [transport], channels: {} });
  await isOpen(client);
  const page = await client.history("a", { from: 1, limit: 3 });
  assert.deepEqual(page.messages.map(({ seq, payload }) => [seq, payload.n]), [[3, 3], [4, 4], [5, 5]]);
  assert.deepEqual([page.epoch, page.seq, page.more], ["e1", 9, true]);
  const rest = await client.history("a", { from: 6, limit: 100 });
  assert.deepEqual(rest.messages.map(({ seq }) => seq), [6, 7, 8, 9]);
  assert.equal(rest.more, false);
  const oldest = await client.history("a", { limit: 2 });
  assert.deepEqual(oldest.messages.map(({ seq }) => seq), [3, 4]);
  client.close();
});

await everywhere("channels_come_and_go_and_the_others_lose_nothing", async (server, transport) => {
  const { client, heard } = listen(server, { transports: [transport] });
  await reached(client, 0);
  const others = [];
  let published = 0;
  const publishing = setInterval(() => server.publish("a", (published += 1)), 2);
  for (let round = 0; round < 5; round += 1) {
    const stop = client.subscribe(`b${round}`, { onMessage: (payload) => others.push(payload) });
    await until(() => client.position(`b${round}`), "the subscription");
    server.publish(`b${round}`, round);
    await until(() => others.length === round + 1, "the message");
    if (round % 2) stop();
  }
  clearInterval(publishing);
  await reached(client, published);
  assert.deepEqual(others, [0, 1, 2, 3, 4]);
  assert.deepEqual(heard.slice(1), Array.from({ length: published }, (_, index) => index + 1));
  assert.deepEqual(client.channels, ["a", "b0", "b2", "b4"]);
  await client.unsubscribe("a");
  server.publish("a", "unheard");
  await client.ping();
  assert.equal(heard.length, published + 1);
  client.close();
});

await everywhere("payloads_keep_their_text", async (server, transport) => {
  const texts = [];
  const { client } = listen(server, { transports: [transport], handlers: { onMessage: (_, { text }) => texts.push(text) } });
  await reached(client, 0);
  const payload = { "]": ['"},{', "\\", "\\\""], events: [1, [2]], "\u2028": "\n" };
  for (let n = 1; n <= 3; n += 1) server.publish("a", payload);
  await reached(client, 3);
  assert.deepEqual(texts, [1, 2, 3].map((seq) => JSON.stringify({ type: "message", channel: "a", seq, payload })));
  client.close();
});

await everywhere("goaway_decides_when_to_come_back", async (server, transport) => {
  if (transport === "poll") return; // a poll ends by itself; there is nothing to be sent away from
  const waits = [];
  const { client } = listen(server, { transports: [transport] });
  client.on("state", ({ state, retryInMs }) => state === "waiting" && waits.push(retryInMs));
  await reached(client, 0);
  server.say('{"type":"goaway","reconnect_after_ms":400}');
  await sleep(50);
  server.cut();
  await until(() => waits.length > 0, "the wait");
  assert.ok(waits[0] > 250 && waits[0] <= 400, String(waits[0]));
  await isOpen(client);
  client.close();
});

await claim("where_websockets_are_blocked_it_goes_over_sse_and_then_over_polls", async (server) => {
  for (const [blocked, transport] of [[["websocket"], "sse"], [["websocket", "sse"], "poll"]]) {
    server.blocked = new Set(blocked);
    server.requests = [];
    const { client, heard } = listen(server);
    const states = [];
    client.on("state", ({ state, transport }) => states.push(`${state} ${transport}`));
    await isOpen(client);
    assert.equal(client.transport, transport);
    // The constructor had entered "connecting" before anybody could listen.
    const expected = ["waiting null", "connecting websocket", "connecting sse", "connecting poll", "open"];
    assert.deepEqual(states.map((state) => (state.startsWith("open") ? "open" : state)), expected.filter((state) => transport === "poll" || !state.includes("poll")));
    assert.equal(states.at(-1), `open ${transport}`);
    const { seq } = await client.publish("a", "hello");
    await reached(client, seq);
    assert.equal(heard.at(-1), seq);
    client.close();
  }
});

await claim("a_stream_that_a_proxy_holds_back_is_given_up_for_polls", async (server) => {
  server.blocked.add("websocket");
  server.silent.add("sse");
  const { client } = listen(server, { connectTimeoutMs: 300 });
  await isOpen(client);
  assert.equal(client.transport, "poll");
  client.close();
});

await claim("a_server_that_is_down_for_long_is_met_over_a_websocket_again", async (server) => {
  const { client } = listen(server);
  await reached(client, 0);
  const { port } = server.server.address();
  server.cut();
  await new Promise((resolve) => { server.server.close(resolve); server.server.closeAllConnections(); });
  const seen = new Set();
  client.on("state", ({ transport }) => seen.add(transport));
  await until(() => seen.has("poll"), "every transport to be tried");
  await new Promise((resolve) => server.server.listen(port, "127.0.0.1", resolve));
  // At worst it came back between two attempts of one round; then the better ones come soon.
  await until(() => client.state === "open" && client.transport === "websocket", "the WebSocket", 2_000);
  client.close();
});

await claim("one_position_goes_with_it_over_all_transports_and_back", async (server) => {
  const { client, heard } = listen(server, { betterAfterMs: 100 });
  let published = 0;
  const publishing = setInterval(() => server.publish("a", (published += 1)), 3);
  await until(() => client.transport === "websocket" && client.position("a")?.seq > 5, "messages over a WebSocket");
  const first = heard.find((entry) => typeof entry === "number");
  for (const [blocked, transport] of [
    [["websocket"], "sse"], [["websocket", "sse"], "poll"], [["websocket"], "sse"], [[], "websocket"],
  ]) {
    server.blocked = new Set(blocked);
    if (blocked.includes(client.transport)) server.cut();
    await until(() => client.state === "open" && client.transport === transport, `open over ${transport}`);
    const { seq } = client.position("a");
    await until(() => client.position("a").seq > seq + 20, "messages");
  }
  clearInterval(publishing);
  await reached(client, published);
  const numbers = heard.filter((entry) => typeof entry === "number" || entry.includes("-"));
  assert.deepEqual(numbers, Array.from({ length: published - first + 1 }, (_, index) => first + index));
  client.close();
});

await claim("a_stream_that_was_open_is_asked_for_once_more_before_polls_are", async (server) => {
  server.blocked.add("websocket");
  const { client } = listen(server);
  await isOpen(client);
  assert.equal(client.transport, "sse");
  // The server starts again: it is away for one attempt.
  let waits = 0;
  client.on("state", ({ state }) => state === "waiting" && (waits += 1) === 2 && server.blocked.delete("sse"));
  server.blocked.add("sse");
  server.cut();
  await until(() => waits === 2, "an attempt that failed");
  await isOpen(client);
  assert.equal(client.transport, "sse");
  client.close();
});

await claim("moving_to_a_better_transport_loses_no_publish", async (server) => {
  server.blocked.add("websocket");
  const { client } = listen(server, { betterAfterMs: 60, fallbackAfter: 1 });
  await isOpen(client);
  assert.equal(client.transport, "sse");
  const acks = [];
  const publishing = setInterval(() => acks.push(client.publish("a", acks.length)), 1);
  await sleep(30);
  server.blocked.clear();
  await until(() => client.transport === "websocket", "the WebSocket");
  await sleep(30);
  clearInterval(publishing);
  const numbers = (await Promise.all(acks)).map(({ seq }) => seq);
  assert.equal(new Set(numbers).size, numbers.length);
  assert.equal(server.channel("a").seq, numbers.length);
  client.close();
});

await claim("without_a_websocket_class_it_works_all_the_same", async (server) => {
  const { client } = listen(server, { WebSocket: null });
  await isOpen(client);
  assert.equal(client.transport, "sse");
  client.close();
  assert.throws(() => new Ringcast(server.url, { WebSocket: null, transports: ["websocket"] }), TypeError);
  assert.throws(() => new Ringcast(server.url, { transports: ["pigeon"] }), /pigeon/);
});

await claim("what_else_the_address_says_is_said_at_every_door", async (server) => {
  for (const transports of [["sse"], ["poll"]]) {
    const client = new Ringcast(`${server.url}?token=t`, { transports, channels: { a: {} } });
    await isOpen(client);
    await client.publish("a", 1);
    client.close();
  }
  assert.deepEqual([...new Set(server.requests.map(({ door, token }) => `${door} ${token}`))].sort(), ["poll t", "publish t", "sse t"]);
});

await claim("publishes_that_are_too_much_for_one_post_go_alone", async (server) => {
  const { client } = listen(server, { transports: ["sse"] });
  await isOpen(client);
  const acks = await Promise.all(Array.from({ length: 8 }, () => client.publish("a", "x".repeat(300))));
  assert.deepEqual(acks.map(({ seq }) => seq), [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.ok(server.posts.some((body) => body.length > 1_000), "no batch was too large");
  const { client: other } = listen(server, { transports: ["sse"] });
  await isOpen(other);
  const before = server.posts.length;
  const mixed = await Promise.allSettled(["a", "x".repeat(700), "b"].map((payload) => other.publish("a", payload)));
  assert.deepEqual(mixed.map(({ value, reason }) => value?.seq ?? reason.code), [9, "content_too_large", 10]);
  assert.ok(server.posts.slice(before).some((body) => body.includes("\n")), "they did not go together");
  other.close();
  client.close();
});

await claim("publishes_that_wait_are_bounded_in_number_and_time", async (server) => {
  server.blocked = new Set(["websocket", "sse", "poll"]);
  const { client } = listen(server, { publishesMax: 3, publishTimeoutMs: 200 });
  const waiting = [1, 2, 3].map((n) => client.publish("a", n, { retry: true }).catch(({ code }) => code));
  await assert.rejects(client.publish("a", 4, { retry: true }), { code: "too_many_publishes" });
  assert.deepEqual(await Promise.all(waiting), ["timeout", "timeout", "timeout"]);
  const again = client.publish("a", 5, { retry: true }).catch(({ code }) => code);
  assert.equal(await again, "timeout");
  client.close();
});

await checks.run("the_types_name_everything_there_is_and_nothing_else", async () => {
  const [types, source] = ["ringcast.d.ts", "ringcast.js"].map((name) => readFileSync(new URL(`../../src/web/${name}`, import.meta.url), "utf8"));
  const block = (start) => types.slice(types.indexOf(start)).split("\n}")[0];
  const named = (text) => [...text.matchAll(/^ {2}(?:readonly )?(\w+)[?:(<]/gm)].map(([, name]) => name).sort();
  assert.deepEqual(named(block("export declare class Ringcast {")), Object.getOwnPropertyNames(Ringcast.prototype).sort());
  const defaults = source.match(/const DEFAULTS = \{\n(.*?)\n\};/s)[1];
  const options = [...named(defaults), "WebSocket", "channels", "start", "user"].sort();
  assert.deepEqual(named(block("export interface Options {")), options);
});

await checks.end();
