// A server that does what a test tells it to: the protocol over all three doors, kept small, with
// handles for what real servers and networks do only now and then. What the real server does with
// ringcast's client is in ws_client.mjs and page.mjs.

import { createServer } from "node:http";
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_MODULES ? `${process.env.NODE_MODULES}/` : import.meta.url);
const { WebSocketServer } = require("ws");

const rangeOf = (event) => event.from ?? event.seq;
const endOf = (event) => event.to ?? event.seq;

class Channel {
  epoch = "e1";
  events = []; // messages and gaps, as they are delivered
  keys = new Map();
  get seq() { return this.events.length > 0 ? endOf(this.events.at(-1)) : this.before; }
  before = 0; // the number before the first event that is kept
}

export class Scripted {
  blocked = new Set(); // "websocket", "sse", "poll": answered with 403
  silent = new Set(); // "sse": a proxy holds the stream back
  losesAcks = 0; // publishes that are taken while their connection breaks
  losesPosts = 0; // posts whose connection breaks before anything is taken
  refuses = []; // codes that the next publishes are refused with
  opened = []; // the doors, in the order they were opened
  requests = []; // { door, ...} of what was asked
  posts = []; // bodies of POST /publish
  #channels = new Map();
  #listeners = new Set(); // { names, send(event), end() }

  static async start() {
    const scripted = new Scripted();
    scripted.server = createServer((request, response) => scripted.#request(request, response));
    scripted.sockets = new WebSocketServer({ noServer: true });
    scripted.server.on("upgrade", (request, socket, head) => {
      if (scripted.blocked.has("websocket")) return socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
      scripted.sockets.handleUpgrade(request, socket, head, (client) => scripted.#webSocket(client));
    });
    await new Promise((resolve) => scripted.server.listen(0, "127.0.0.1", resolve));
    return scripted;
  }

  get url() { return `ws://127.0.0.1:${this.server.address().port}/ws`; }

  channel(name) {
    if (!this.#channels.has(name)) this.#channels.set(name, new Channel());
    return this.#channels.get(name);
  }

  /** Publishes, and returns the number. */
  publish(name, payload, key) {
    const channel = this.channel(name);
    if (key !== undefined && channel.keys.has(key)) return { seq: channel.keys.get(key), duplicate: true };
    const seq = channel.seq + 1;
    if (key !== undefined) channel.keys.set(key, seq);
    this.deliver({ type: "message", channel: name, seq, payload });
    return { seq };
  }

  /** Says this to all who listen, whatever it is. */
  deliver(event) {
    this.channel(event.channel).events.push(event);
    for (const listener of this.#listeners) if (listener.names.includes(event.channel)) listener.send(event);
  }

  /** Says this to all who listen, and keeps none of it. */
  say(text) { for (const listener of this.#listeners) listener.say?.(text); }

  /** Numbers anew, as a restarted server does; what is kept is gone. */
  renumber(name, epoch) { Object.assign(this.channel(name), { epoch, events: [], before: 0 }); }

  /** Forgets all but the last `count` events. */
  forget(name, count) {
    const channel = this.channel(name);
    channel.before = channel.seq;
    channel.events = channel.events.slice(-count);
    if (channel.events.length > 0) channel.before = rangeOf(channel.events[0]) - 1;
  }

  /** Breaks every connection off, without a word. */
  cut() {
    for (const listener of this.#listeners) listener.end();
    this.#listeners.clear();
  }

  async stop() {
    this.cut();
    this.server.closeAllConnections();
    this.sockets.close();
    await new Promise((resolve) => this.server.close(resolve));
  }

  #webSocket(client) {
    this.opened.push("websocket");
    const listener = { names: [], send: (event) => client.send(JSON.stringify(event)), end: () => client.terminate() };
    listener.say = (text) => client.send(text);
    this.#listeners.add(listener);
    client.on("close", () => this.#listeners.delete(listener));
    client.on("error", () => {});
    client.send(JSON.stringify({ type: "welcome", client: "c", ping_interval_ms: 25_000, message_bytes_max: 1_000 }));
    client.on("message", (data) => {
      const message = JSON.parse(data);
      this.requests.push({ door: "websocket", ...message });
      this.#answer(listener, message, client);
    });
  }

  #answer(listener, { type, id, channel, since, payload, key, from, limit }, client) {
    const say = (answer) => client.send(JSON.stringify({ id, channel, ...answer }));
    switch (type) {
      case "subscribe": {
        const { epoch, seq } = this.channel(channel);
        const { answer, events } = this.#resume(channel, since);
        say({ type: "subscribed", epoch, seq, ...answer });
        for (const event of events) listener.send(event);
        listener.names.push(channel);
        return;
      }
      case "unsubscribe":
        listener.names = listener.names.filter((name) => name !== channel);
        return say({ type: "ack", seq: this.channel(channel).seq });
      case "publish": {
        if (this.refuses.length > 0) return say({ type: "error", code: this.refuses.shift(), reason: "as asked" });
        const taken = this.publish(channel, payload, key);
        if (this.losesAcks > 0 && this.losesAcks--) return client.terminate();
        return say({ type: "ack", ...taken });
      }
      case "history": {
        const { epoch, seq, events } = this.channel(channel);
        const kept = events.filter((event) => event.type === "message" && event.seq >= (from ?? 1));
        return say({ type: "history", epoch, seq, messages: kept.slice(0, limit), more: kept.length > limit });
      }
      case "ping":
        return say({ type: "pong" });
    }
  }

  /** What a subscription with `since` is answered, and what follows at once. */
  #resume(name, since) {
    const { epoch, seq, events, before } = this.channel(name);
    if (since === undefined) return { answer: { recovered: false }, events: [] };
    if (since === "latest" || since.last) {
      const last = events.slice(since === "latest" ? -1 : -since.last);
      return { answer: { recovered: true, from: last.length > 0 ? rangeOf(last[0]) : seq + 1 }, events: last };
    }
    const isKnown = since.epoch === epoch && since.seq <= seq;
    const after = isKnown ? since.seq : 0;
    const reason = isKnown ? (after < before ? "too_old" : undefined) : "epoch_changed";
    const missed = events.filter((event) => endOf(event) > after);
    if (after < before) missed.unshift({ type: "gap", channel: name, from: after + 1, to: before, reason });
    return { answer: { recovered: reason === undefined, reason, from: after + 1 }, events: missed };
  }

  async #request(request, response) {
    const url = new URL(request.url, "http://server");
    const door = url.pathname.slice(1);
    const names = url.searchParams.getAll("channel");
    if (request.method !== "HEAD") this.requests.push({ door, names, since: url.searchParams.get("since"), token: url.searchParams.get("token") });
    if (this.blocked.has(door)) return response.writeHead(403).end();
    if (request.method === "HEAD") return response.writeHead(200).end();
    this.opened.push(door);
    if (door === "sse") return this.#sse(names, url.searchParams.get("since"), response);
    if (door === "poll") return this.#poll(names, url, response);
    if (door === "publish" && request.method === "POST") return this.#post(request, response);
    response.writeHead(404).end();
  }

  #positions(names, cursor) {
    const parts = cursor ? cursor.split(",") : names.map(() => "-");
    return names.map((name, index) => {
      const [epoch, seq] = parts[index].split(".");
      return parts[index] === "-" ? undefined : { epoch, seq: Number(seq) };
    });
  }

  #sse(names, cursor, response) {
    const at = new Map(names.map((name) => [name, "-"]));
    const queue = [];
    for (const [index, since] of this.#positions(names, cursor).entries()) {
      const channel = names[index];
      const { epoch, seq } = this.channel(channel);
      const { answer, events } = this.#resume(channel, since);
      queue.push({ type: "subscribed", channel, epoch, seq, ...answer }, ...events);
    }
    const send = (event) => {
      const position = event.type === "subscribed" ? (event.from ?? event.seq + 1) - 1 : endOf(event);
      at.set(event.channel, `${this.channel(event.channel).epoch}.${position}`);
      // In two pieces, cut where it hurts.
      const text = `id: ${[...at.values()].join(",")}\r\ndata: ${JSON.stringify(event)}\r\n\r\n`;
      response.write(text.slice(0, text.length - 3));
      setImmediate(() => response.write(text.slice(text.length - 3)));
    };
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    if (this.silent.has("sse")) return response.flushHeaders();
    response.write("retry: 1000\n:\n\n");
    const ordered = { queue: Promise.resolve() };
    const listener = {
      names,
      // One after the other, though each is written in two turns.
      send: (event) => (ordered.queue = ordered.queue.then(() => { send(event); return new Promise(setImmediate); })),
      say: (text) => response.write(`data: ${text}\n\n`),
      end: () => response.destroy(),
    };
    for (const event of queue) listener.send(event);
    this.#listeners.add(listener);
    response.on("close", () => this.#listeners.delete(listener));
  }

  #poll(names, url, response) {
    const since = this.#positions(names, url.searchParams.get("since"));
    const batch = () => names.flatMap((name, index) => this.#resume(name, since[index]).events);
    const reply = () => {
      clearTimeout(timer);
      this.#listeners.delete(listener);
      const cursor = names.map((name) => `${this.channel(name).epoch}.${this.channel(name).seq}`).join(",");
      const events = batch();
      if (events.length === 0) return response.writeHead(204, { "Ringcast-Cursor": cursor }).end();
      // Spread out as a server need not: the text of each event is still its own.
      response.writeHead(200, { "Content-Type": "application/json", "Ringcast-Cursor": cursor });
      response.end(`{"cursor":"${cursor}","events":[ ${events.map((event) => JSON.stringify(event)).join(" ,\n")} ]}`);
    };
    const listener = { names, send: () => reply(), end: () => response.destroy() };
    const timer = setTimeout(reply, Number(url.searchParams.get("timeout").slice(0, -1)) * 1000);
    this.#listeners.add(listener);
    response.on("close", () => {
      clearTimeout(timer);
      this.#listeners.delete(listener);
    });
    if (batch().length > 0 || since.some((position) => position === undefined)) reply();
  }

  async #post(request, response) {
    let body = "";
    for await (const piece of request) body += piece;
    this.posts.push(body);
    if (this.losesPosts > 0 && this.losesPosts--) return response.destroy();
    if (body.length > 1_000) return response.writeHead(413).end();
    const answers = body.split("\n").map((line) => {
      if (line.length > 600) return { type: "error", code: "content_too_large", reason: "a line too long" };
      const { id, channel, payload, key } = JSON.parse(line);
      if (this.refuses.length > 0) return { type: "error", id, code: this.refuses.shift(), reason: "as asked" };
      return { type: "ack", id, channel, ...this.publish(channel, payload, key) };
    });
    if (this.losesAcks > 0 && this.losesAcks--) return response.destroy();
    response.writeHead(200, { "Content-Type": request.headers["content-type"] });
    response.end(answers.map((answer) => JSON.stringify(answer)).join("\n"));
  }
}
