// The ringcast client for browsers and for Node 20 or newer. One file, an ES module, no
// dependencies; its types are in ringcast.d.ts beside it.
//
//   import { Ringcast } from "./ringcast.js";
//   const ringcast = new Ringcast("ws://127.0.0.1:8080/ws");
//   ringcast.subscribe("orders", {
//     onMessage: (payload, { seq }) => console.log(seq, payload),
//     onGap: ({ from, to, reason }) => console.warn("lost", from, to, reason),
//   });
//   const { seq } = await ringcast.publish("orders", { order: "123", status: "paid" }, { retry: true });
//
// What it promises: after a lost connection it comes back by itself and goes on where it stopped,
// and nothing goes missing in silence. Every message of a channel carries `seq`, counted up by one
// within an `epoch`. The last number that was received or told as lost is the channel's position;
// what the server still has after it is delivered, once and in order, and what it has not reaches
// `onGap`, once. Where a WebSocket cannot get through, the same goes over Server-Sent Events, and
// where these cannot either, over long polling: the position is the same on all three.
//
// Reading order: Ringcast (what is called, the connection, what the server says, what we say), then
// the three links, each of which is one connection's life: WebSocketLink, SseLink, PollLink.

/** The subprotocol this client speaks. */
export const SUBPROTOCOL = "ringcast.json.v1";

const DEFAULTS = {
  transports: ["websocket", "sse", "poll"], // which may be used, the best first
  fallbackAfter: 2, // attempts in a row that a WebSocket, or what was open last, failed before others are tried
  betterAfterMs: 60_000, // on another transport: time until the better ones are tried again
  retryDelayMinMs: 1_000,
  retryDelayMaxMs: 30_000,
  retryJitter: 0.2, // a delay is stretched or shrunk by up to this part of itself
  stableAfterMs: 10_000, // open for this long: the next retry starts from the minimum again
  connectTimeoutMs: 10_000,
  pingIntervalMs: 25_000, // until the server's welcome says otherwise
  pingGraceMs: 5_000, // silence beyond the server's own interval before we ask
  pongTimeoutMs: 10_000, // silence after asking that ends the connection
  pollTimeoutMs: 25_000, // how long the server may hold a poll without an answer
  publishTimeoutMs: 60_000, // how long a publish with `retry` is tried; servers remember keys longer
  publishesMax: 1_000, // publishes with `retry` that wait for their acks
};

// Answers that would be the same next time: asking again is no use.
const FINAL_CLOSE_CODES = new Set([4400, 4401, 4403]);

// Errors of a publish that a later try may not meet.
const PASSING_ERRORS = new Set(["overloaded", "connection_lost", "not_connected"]);

// Channels that are remembered for the sake of patterns; a server lets one client have as many.
const MATCHED_CHANNELS_MAX = 1_024;

// What one POST carries at most; a larger message goes alone.
const BATCH_MESSAGES_MAX = 64;
const BATCH_CHARACTERS_MAX = 32_768;

/** An answer of the server, or a failure to get one. `code` is stable, `message` is for people. */
export class RingcastError extends Error {
  constructor(code, reason) {
    super(reason ?? code);
    this.name = "RingcastError";
    this.code = code;
  }
}

export class Ringcast {
  #url;
  #options;
  #WebSocket;
  #state = "closed";
  #link = null; // the connection that is used, or being opened
  #candidate = null; // a better one, being opened beside it
  #untried = []; // transports this attempt may still go on to
  #better = []; // transports that may still be tried beside the one that works
  #preferred = 0; // index of the transport that the next attempt begins with
  #unopened = new Map(); // transport -> attempts in a row that did not open it
  #worked = null; // the transport that was open last
  #isProven = false; // whether a WebSocket ever was
  #channels = new Map(); // name -> Subscription: those asked for, and those that patterns matched
  #patterns = new Map(); // pattern -> Pattern
  #channelsMax = 128; // that may be asked for at once, until the server's welcome says otherwise
  #pending = new Map(); // request id -> { type, resolve, reject, retry }
  #retrying = 0; // of these, publishes that are tried again
  #listeners = new Map(); // event name -> Set of functions
  #nextId = 1;
  #failures = 0; // attempts in a row that did not become stable
  #openedAt = 0;
  #heardAt = 0;
  #pingedAt = 0; // 0: no ping of ours is unanswered
  #away = null; // { until }: when the server asked us to come back
  #timer = null; // the one timer of the current state
  #betterTimer = null; // for the candidate, or the next one
  #flushTimer = null; // for what is published again
  #wake = () => this.#state === "waiting" && this.#connect();

  /**
   * @param {string|URL} url ws:// or wss://, ending in /ws; the other doors are its neighbours
   * @param {object} [options] any of the DEFAULTS; `channels`: { name: handlers } to subscribe
   *   to at once; `user`: what others are told that this client is called; `WebSocket`: the class to
   *   use (Node before 22 has none of its own: pass `ws`'s, or leave it to SSE); `start: false` to wait
   *   for connect().
   */
  constructor(url, { channels = {}, user, WebSocket = globalThis.WebSocket, start = true, ...options } = {}) {
    this.#options = { ...DEFAULTS, ...options };
    for (const name of this.#options.transports) {
      if (!Object.hasOwn(LINKS, name)) throw new TypeError(`no transport is called ${name}`);
    }
    if (!WebSocket) this.#options.transports = this.#options.transports.filter((name) => name !== "websocket");
    if (this.#options.transports.length === 0) throw new TypeError("no WebSocket here: pass one as options.WebSocket");
    this.#url = user === undefined ? String(url) : withUser(url, user);
    this.#WebSocket = WebSocket;
    for (const [name, handlers] of Object.entries(channels)) this.subscribe(name, handlers);
    if (start) this.connect();
  }

  /** "connecting", "open", "waiting" (for the next attempt) or "closed" (for good, by choice). */
  get state() {
    return this.#state;
  }

  /** "websocket", "sse" or "poll" while connecting or open, or null. */
  get transport() {
    return this.#link?.transport ?? null;
  }

  /** Names of the channels that are subscribed to, or will be once connected; of patterns, those known. */
  get channels() {
    return [...this.#channels.keys()];
  }

  /** The patterns that are subscribed to, or will be once connected. */
  get patterns() {
    return [...this.#patterns.keys()];
  }

  /** { epoch, seq } of the last message that came or was told as lost: a `since` for later. */
  position(channel) {
    return this.#channels.get(channel)?.position ?? null;
  }

  /**
   * Calls `listener` on: "state" { state, transport, code?, reason?, retryInMs? }, "welcome" (the
   * server's), "message" { channel, seq, from, payload, text }, "gap" { channel, from, to, reason, epoch },
   * "subscribed" { channel, epoch, seq, recovered, reason, from, resumed }, "goaway"
   * { reconnectAfterMs }, "watching" { pattern, channels }, "error" RingcastError. Returns a function that ends it.
   */
  on(event, listener) {
    if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
    this.#listeners.get(event).add(listener);
    return () => this.#listeners.get(event).delete(listener);
  }

  /** Connects now, whatever delay was running. */
  connect() {
    if (this.#state === "closed" || this.#state === "waiting") this.#connect();
  }

  /** Closes for good; connect() opens again, with the same channels, where they stopped. */
  close(code = 1000, reason = "") {
    globalThis.removeEventListener?.("online", this.#wake);
    this.#letGo(code, reason);
    this.#fail(() => true, "closed", "the client was closed");
    if (this.#state !== "closed") this.#enter("closed", { code, reason });
  }

  /**
   * Subscribes, now or as soon as there is a connection, and after every reconnect goes on where
   * it stopped. `onMessage(payload, { channel, seq, from, text })`: `text` is the message as it
   * came, for payloads with numbers that JavaScript would round; `from` is below `seq` where the
   * channel is conflated and the message stands for others that newer values superseded. `onGap({ channel, from, to, reason,
   * epoch })`: `from` and `to` (both lost, and all between) are null when the numbering began anew
   * and nobody can say how much of the old one was missed. `onSubscribed({ channel, epoch, seq,
   * recovered, reason, from, resumed })`: what comes next is number `from`, and what has been
   * published up to now ends with `seq`. `onError` as it sounds.
   * `since` says where to begin: { epoch, seq } (after that one), "latest" (the last value, then
   * live) or { last: n }; without it, with what is published from now on. `conflate` asks for the
   * newest value of each key no oftener than this ("500ms"), in channels that are conflated. Both
   * count for the first subscription to a channel, and not where a pattern has brought it before.
   * A pattern (`iot.*.temp`, one segment; `md.>`, all below) subscribes to every channel that it
   * matches, also to those to come; it has no `since` and no `conflate`, and is heard over WebSockets.
   * Its handlers are told the channel, and what several of your subscriptions match reaches each
   * handler once. After a reconnect each channel goes on by its own position.
   * `onWatching({ pattern, channels })`: nothing is missed from here on, of as many channels as match
   * by now and of those to come.
   * Returns a function that takes these handlers away, and unsubscribes with the last of them.
   */
  subscribe(channel, handlers = {}) {
    const known = isPattern(channel) ? this.#patterns : this.#channels;
    const entry = known === this.#patterns ? this.#toPattern(channel, handlers) : this.#toChannel(channel, handlers);
    entry.listeners.add(handlers);
    return () => {
      entry.listeners.delete(handlers);
      if (entry.listeners.size === 0 && known.get(channel) === entry) this.unsubscribe(channel).catch(() => {});
    };
  }

  #toChannel(channel, handlers) {
    let entry = this.#channels.get(channel);
    if (!entry?.isAsked) {
      entry ??= this.#know(channel, handlers);
      entry.isAsked = true;
      if (this.#state === "open") this.#sendSubscribe(channel, entry);
    }
    return entry;
  }

  #toPattern(pattern, { since, conflate }) {
    if (since !== undefined) throw new TypeError("a pattern has no position to begin after");
    if (conflate !== undefined) throw new TypeError("a pattern has no interval: its channels have their own");
    let entry = this.#patterns.get(pattern);
    if (!entry) {
      entry = { listeners: new Set(), matches: matcher(pattern) };
      this.#patterns.set(pattern, entry);
      for (const [channel, { patterns }] of this.#channels) if (entry.matches(channel)) patterns.add(entry);
      if (this.#state === "open") this.#sendPattern(pattern, entry);
    }
    return entry;
  }

  /** A channel that was not known, with the patterns that match it. */
  #know(channel, handlers = {}) {
    const entry = new Subscription(handlers);
    for (const pattern of this.#patterns.values()) if (pattern.matches(channel)) entry.patterns.add(pattern);
    this.#channels.set(channel, entry);
    return entry;
  }

  /** Ends the subscription. Resolves once the server has confirmed: nothing follows after that. */
  async unsubscribe(channel) {
    const isKnown = isPattern(channel) ? this.#dropPattern(channel) : this.#dropChannel(channel);
    while (isKnown && this.#state === "open" && !(this.#patterns.has(channel) || this.#channels.get(channel)?.isAsked)) {
      const error = await this.#request({ type: "unsubscribe", channel }).then(() => null, (refusal) => refusal);
      if (error?.code !== "too_many_requests") {
        if (error) throw error;
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, this.#options.retryDelayMinMs));
    }
  }

  #dropChannel(channel) {
    const entry = this.#channels.get(channel);
    if (!entry?.isAsked) return false;
    entry.isAsked = false;
    entry.listeners.clear();
    if (entry.patterns.size === 0) this.#channels.delete(channel);
    return true;
  }

  /** Forgets a pattern, and the channels that only it had brought. */
  #dropPattern(pattern) {
    const ended = this.#patterns.get(pattern);
    this.#patterns.delete(pattern);
    for (const [channel, entry] of this.#channels) {
      if (entry.patterns.delete(ended) && entry.patterns.size === 0 && !entry.isAsked) this.#channels.delete(channel);
    }
    return ended !== undefined;
  }

  /**
   * Publishes and resolves with { seq, duplicate } once the server has taken it. Rejects with a
   * RingcastError: "not_connected" (not sent), "connection_lost" (sent, but nobody can say
   * whether it arrived), or the server's code.
   * With `retry` it waits for a connection, and what was not acknowledged when one broke is sent
   * again, for as long as `publishTimeoutMs` allows. Such a message carries a `key` (yours, or one
   * of chance), by which the server knows it again: `duplicate` is true when it had arrived the
   * first time, and `seq` is then that time's.
   */
  async publish(channel, payload, { key, retry = false } = {}) {
    const value = JSON.stringify(payload);
    if (value === undefined) throw new TypeError("a payload is any JSON value, not undefined");
    if (retry) key ??= randomKey();
    const members = key === undefined ? "" : `,"key":${JSON.stringify(String(key))}`;
    const text = `"channel":${JSON.stringify(channel)}${members},"payload":${value}`;
    const { seq, duplicate = false } = await this.#request({ type: "publish", text }, retry);
    return { seq, duplicate };
  }

  /**
   * Asks for what the server keeps of a channel: up to `limit` messages from number `from` on, or
   * from the oldest one. Resolves with { epoch, seq, messages: [{ channel, seq, payload }], more };
   * a page may hold fewer than `limit`, and `more` says whether there are others behind it.
   */
  async history(channel, { from, limit } = {}) {
    const { epoch, seq, messages, more } = await this.#request({ type: "history", channel, from, limit });
    return { epoch, seq, messages, more };
  }

  /**
   * Asks who is in a channel: up to `limit` users behind the name `after`, or from the first one on.
   * Resolves with { users: [{ user, connections }], total, unlisted, more, epoch, seq }; what comes in
   * the channel `presence:NAME` behind number `seq` of `epoch` has happened since.
   */
  async presence(channel, { after, limit } = {}) {
    const answer = await this.#request({ type: "presence", channel, after, limit });
    const { users, total, unlisted = 0, more, epoch = null, seq = null } = answer;
    return { users, total, unlisted, more, epoch, seq };
  }

  /** Asks how many are in a channel; resolves with { users, connections, anonymous, unlisted }. */
  async presenceStats(channel) {
    const answer = await this.#request({ type: "presence_stats", channel });
    const { users, connections, anonymous, unlisted = 0 } = answer;
    return { users, connections, anonymous, unlisted };
  }

  /** Asks the server for a sign of life; resolves with the milliseconds it took. */
  async ping() {
    const asked = performance.now();
    await this.#request({ type: "ping" });
    return performance.now() - asked;
  }

  // ---- the connection ----

  /** One attempt: the preferred transport and, where that is blocked, those after it. */
  #connect() {
    this.#letGo();
    this.#away = null;
    this.#untried = this.#options.transports.slice(this.#preferred);
    // A laptop that wakes up or finds its network again should not sit out a long delay.
    globalThis.addEventListener?.("online", this.#wake);
    this.#tryNext();
  }

  #tryNext() {
    const name = this.#untried.shift();
    this.#enter("connecting", { transport: name });
    if (this.#state !== "connecting" || this.#link) return; // a listener changed its mind
    try {
      this.#link = this.#open(name);
    } catch (error) {
      // A URL that no WebSocket can have: trying again would not change it.
      this.#enter("closed", { reason: error.message });
      throw error;
    }
    const link = this.#link;
    this.#arm(this.#options.connectTimeoutMs, () => this.#ended(link, 1006, "no answer in time"));
  }

  /** A new link, and what it may tell us. */
  #open(name) {
    return new LINKS[name]({
      url: this.#url,
      options: this.#options,
      WebSocket: this.#WebSocket,
      channels: this.#channels,
      opened: (link) => this.#opened(link),
      alive: (link) => link === this.#link && (this.#heardAt = performance.now()),
      heard: (link, message, text) => this.#heard(link, message, text),
      failed: (id, code, reason) => this.#pending.has(id) && this.#refused(id, new RingcastError(code, reason)),
      ended: (link, code, reason, retryAfterMs) => this.#ended(link, code, reason, retryAfterMs),
    });
  }

  #opened(link) {
    if (link === this.#candidate) this.#adopt(link);
    if (link !== this.#link) return;
    const { transport } = link;
    this.#unopened.delete(transport);
    this.#worked = transport;
    if (transport === "websocket") this.#isProven = true;
    this.#preferred = this.#options.transports.indexOf(transport);
    this.#openedAt = this.#heardAt = performance.now();
    this.#pingedAt = 0;
    this.#enter("open", { transport });
    if (link !== this.#link) return; // a listener changed its mind
    this.#resume();
    this.#flush();
    this.#watch();
    // Where a WebSocket was open before, it was the server that was away, and it is back.
    this.#seekBetter(this.#isProven ? this.#options.retryDelayMinMs : this.#options.betterAfterMs);
  }

  /** A better link is open: the old one is let go of, once what it was asked to publish is answered. */
  #adopt(link) {
    const old = this.#link;
    this.#link = link;
    this.#candidate = null;
    this.#suspend();
    this.#fail(({ type }) => type === "subscribe", "connection_lost");
    old?.retire();
  }

  /**
   * Asks for every channel by its own position: first for those that were asked for, then for those
   * that patterns have brought, as many as may be; then for the patterns, which take these over.
   */
  #resume() {
    const known = [...this.#channels];
    for (const [channel, entry] of known) if (entry.isAsked) this.#sendSubscribe(channel, entry);
    const brought = known.filter(([, entry]) => !entry.isAsked);
    const room = Math.max(this.#channelsMax - (known.length - brought.length), 0);
    for (const [channel, entry] of brought.slice(0, room)) this.#sendSubscribe(channel, entry);
    for (const [pattern, entry] of this.#patterns) this.#sendPattern(pattern, entry);
  }

  /** The connection is gone, or did not come: says so, and waits as long as is polite. */
  #ended(link, code, reason, retryAfterMs) {
    if (link === this.#candidate) {
      this.#candidate = null;
      link.close();
      this.#tryBetter();
    }
    if (link !== this.#link) return;
    const wasOpen = this.#state === "open";
    const isStable = wasOpen && performance.now() - this.#openedAt >= this.#options.stableAfterMs;
    if (isStable) this.#failures = 0;
    if (retryAfterMs !== undefined) this.#away ??= { until: performance.now() + retryAfterMs };
    this.#letGo();
    this.#fail(({ retry }) => !retry, "connection_lost", `the connection ended with ${code} before the answer`);
    if (FINAL_CLOSE_CODES.has(code)) {
      this.#fail(() => true, "closed", reason);
      this.#enter("closed", { code, reason });
      return;
    }
    // A server that has no room now has none at its other doors.
    if (!wasOpen && retryAfterMs === undefined && this.#mayFallBack(link)) {
      this.#tryNext();
      return;
    }
    // When nothing came through at all, the next attempt begins with the best again.
    if (!wasOpen) this.#preferred = 0;
    const retryInMs = Math.round(this.#retryDelay());
    this.#enter("waiting", { code, reason, retryInMs });
    if (this.#state === "waiting") this.#arm(retryInMs, () => this.#connect());
  }

  /**
   * One failure of a WebSocket, or of what was open last, says little: the server may be starting.
   * What never opens may be what is in the way.
   */
  #mayFallBack({ transport }) {
    const unopened = (this.#unopened.get(transport) ?? 0) + 1;
    this.#unopened.set(transport, unopened);
    const isTrusted = transport === "websocket" || transport === this.#worked;
    return unopened >= (isTrusted ? this.#options.fallbackAfter : 1) && this.#untried.length > 0;
  }

  #retryDelay() {
    if (this.#away) {
      // The server spreads its clients over time; that is its choice, not ours.
      const remaining = this.#away.until - performance.now();
      this.#away = null;
      return Math.max(remaining, 0);
    }
    const { retryDelayMinMs, retryDelayMaxMs } = this.#options;
    const delay = Math.min(retryDelayMinMs * 2 ** this.#failures, retryDelayMaxMs);
    this.#failures = Math.min(this.#failures + 1, 30);
    return this.#jittered(delay);
  }

  #jittered(delay) {
    return delay * (1 + this.#options.retryJitter * (2 * Math.random() - 1));
  }

  /** Lets go of every link: what they may still say is not heard any more. */
  #letGo(code, reason) {
    for (const timer of [this.#timer, this.#betterTimer, this.#flushTimer]) clearTimeout(timer);
    this.#flushTimer = null;
    const links = [this.#link, this.#candidate];
    this.#link = this.#candidate = null;
    for (const link of links) link?.close(code, reason);
    this.#suspend();
    for (const { retry } of this.#pending.values()) if (retry) retry.isSent = false;
  }

  /** No channel is live before the next link's server has said where it goes on. */
  #suspend() {
    for (const entry of this.#channels.values()) Object.assign(entry, { live: false, request: null });
  }

  #enter(state, details = {}) {
    this.#state = state;
    this.#emit("state", { state, transport: null, ...details });
  }

  #arm(delayMs, callback) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(callback, delayMs);
  }

  /** On a transport that is not the best: tries the better ones now and then, beside it. */
  #seekBetter(delayMs = this.#options.betterAfterMs) {
    clearTimeout(this.#betterTimer);
    if (this.#state !== "open" || this.#preferred === 0) return;
    this.#betterTimer = setTimeout(() => {
      this.#better = this.#options.transports.slice(0, this.#preferred);
      this.#tryBetter();
    }, this.#jittered(delayMs));
  }

  #tryBetter() {
    clearTimeout(this.#betterTimer);
    const name = this.#better.shift();
    if (name === undefined) return this.#seekBetter();
    let candidate;
    try {
      candidate = this.#candidate = this.#open(name);
    } catch {
      return this.#tryBetter();
    }
    this.#betterTimer = setTimeout(() => this.#ended(candidate, 1006, "no answer in time"), this.#options.connectTimeoutMs);
  }

  /**
   * The server's own pings are answered below JavaScript and never seen here, so a connection
   * that died without a word looks just like a quiet one. After a silence, ask; after more, leave.
   */
  #watch() {
    const now = performance.now();
    const { pingIntervalMs, pingGraceMs, pongTimeoutMs } = this.#options;
    if (this.#pingedAt > 0 && this.#heardAt < this.#pingedAt) {
      const remaining = this.#pingedAt + pongTimeoutMs - now;
      if (remaining > 0) return this.#arm(remaining, () => this.#watch());
      return this.#ended(this.#link, 1006, "the server fell silent");
    }
    this.#pingedAt = 0;
    const remaining = this.#heardAt + pingIntervalMs + pingGraceMs - now;
    if (remaining > 0) return this.#arm(remaining, () => this.#watch());
    this.#pingedAt = now;
    // A stream that only comes cannot be asked; its next heartbeat is awaited.
    if (this.#link.transport === "websocket") this.ping().catch(() => {});
    this.#arm(pongTimeoutMs, () => this.#watch());
  }

  // ---- what the server says ----

  #heard(link, message, text) {
    const isCurrent = link === this.#link;
    if (isCurrent) this.#heardAt = performance.now();
    switch (message.type) {
      case "ack":
      case "pong":
      case "history":
      case "presence":
      case "presence_stats":
        return this.#settle(message.id)?.resolve(message);
      case "error":
        return this.#refused(message.id, new RingcastError(message.code, message.reason));
    }
    // What a link says of channels that has been replaced, its successor says again.
    if (!isCurrent) return;
    switch (message.type) {
      case "message":
        return this.#message(message, text);
      case "gap":
        return this.#gap(message);
      case "subscribed":
        if (message.channel === undefined) return this.#settle(message.id)?.resolve(message);
        return message.pattern === undefined ? this.#subscribed(message) : this.#matched(message);
      case "unsubscribed":
        return this.#endPattern(message.pattern, new RingcastError(message.code, message.reason));
      case "welcome":
        this.#options.pingIntervalMs = message.ping_interval_ms ?? this.#options.pingIntervalMs;
        this.#channelsMax = message.channels_max ?? this.#channelsMax;
        this.#watch();
        return this.#emit("welcome", message);
      case "goaway":
        this.#away = { until: this.#heardAt + message.reconnect_after_ms };
        return this.#emit("goaway", { reconnectAfterMs: message.reconnect_after_ms });
      // Other types come from a newer server; an older client has no use for them.
    }
  }

  #message({ channel, seq, from = seq, payload }, text) {
    const entry = this.#channels.get(channel);
    // Late for a subscription that has ended, or had already, from the link before.
    if (!entry?.live || seq <= entry.seq) return;
    if (from > entry.seq + 1) this.#lost(channel, entry, entry.seq + 1, from - 1, "missed");
    entry.seq = seq;
    const about = { channel, seq, from, text };
    for (const listener of entry.handlers) guard(listener.onMessage, payload, about);
    this.#emit("message", { payload, ...about });
  }

  #gap({ channel, to, reason }) {
    const entry = this.#channels.get(channel);
    if (!entry?.live || to <= entry.seq) return;
    // From where we stopped, whatever the notice begins with: each number is told once, and none
    // is passed over.
    const from = entry.seq + 1;
    entry.seq = to;
    if (to > entry.floor) this.#lost(channel, entry, from, to, reason);
  }

  #subscribed(message) {
    const entry = this.#channels.get(message.channel);
    this.#settle(message.id)?.resolve();
    if (!entry || (entry.request ?? undefined) !== message.id) return;
    entry.request = null;
    this.#goOn(entry, message);
  }

  /** The channel goes on at `from`. */
  #goOn(entry, { channel, epoch, seq, recovered = false, reason, from = seq + 1 }) {
    const wasLive = entry.live && entry.epoch === epoch;
    const resumed = entry.epoch !== null;
    entry.live = true;
    // The same epoch is another life of the channel, too, where our number is beyond its newest.
    if (entry.epoch !== epoch || reason === "epoch_changed") {
      Object.assign(entry, { epoch, seq: from - 1 });
      // How much of the old numbering was missed, nobody knows any more.
      if (resumed) this.#lost(channel, entry, null, null, "epoch_changed");
    } else if (from > entry.seq + 1) {
      const first = entry.seq + 1;
      entry.seq = from - 1;
      this.#lost(channel, entry, first, from - 1, reason ?? "missed");
    }
    if (wasLive) return; // it went on all the time: for another channel's sake, or by a pattern
    const about = { channel, epoch, seq, recovered, reason: reason ?? null, from, resumed };
    for (const listener of entry.handlers) guard(listener.onSubscribed, about);
    this.#emit("subscribed", about);
  }

  /** A channel begins that a pattern matches, or goes on by the pattern behind `seq`. */
  #matched({ channel, pattern, epoch, seq }) {
    if (!this.#patterns.has(pattern)) return; // it has been let go of meanwhile
    if (!this.#channels.has(channel)) this.#forgetOldest();
    const entry = this.#channels.get(channel) ?? this.#know(channel);
    this.#goOn(entry, { channel, epoch, seq, recovered: entry.epoch === epoch && entry.seq === seq });
  }

  /** Of the channels that patterns have brought, the first that is not live, if they are many. */
  #forgetOldest() {
    if (this.#channels.size < MATCHED_CHANNELS_MAX) return;
    for (const [channel, { isAsked, live }] of this.#channels) {
      if (!isAsked && !live) return this.#channels.delete(channel);
    }
  }

  /** The server has ended a pattern, or not taken it. */
  #endPattern(pattern, error) {
    const ended = this.#patterns.get(pattern);
    if (!ended) return;
    this.#dropPattern(pattern);
    error.channel = pattern;
    for (const listener of ended.listeners) guard(listener.onError, error);
    this.#emit("error", error);
  }

  #lost(channel, entry, from, to, reason) {
    const gap = { channel, from, to, reason, epoch: entry.epoch };
    for (const listener of entry.handlers) guard(listener.onGap, gap);
    this.#emit("gap", gap);
  }

  /** A request was refused, or nobody can say whether it was heard. */
  #refused(id, error) {
    const waiting = this.#pending.get(id);
    if (waiting?.retry && PASSING_ERRORS.has(error.code)) {
      waiting.retry.isSent = false;
      this.#flushTimer ??= setTimeout(() => {
        this.#flushTimer = null;
        this.#flush();
      }, this.#jittered(this.#options.retryDelayMinMs));
    } else if (waiting) {
      this.#settle(id).reject(error);
    } else {
      this.#emit("error", error);
    }
  }

  // ---- what we say ----

  #sendSubscribe(channel, entry) {
    entry.request = this.#nextId;
    // Where a pattern has brought it already, it is asked for as it is.
    const { position, since, conflate } = entry;
    const terms = entry.live ? {} : { since: position ?? since, conflate };
    this.#request({ type: "subscribe", channel, ...terms }).catch((error) => {
      // A lost connection is not the end of a subscription; a refusal is.
      if (error.code === "connection_lost" || error.code === "closed") return;
      entry.request = null;
      // Its pattern brings it back, without what was missed.
      if (!entry.isAsked) return;
      entry.isAsked = false;
      if (entry.patterns.size === 0 && this.#channels.get(channel) === entry) this.#channels.delete(channel);
      error.channel = channel;
      for (const listener of entry.listeners) guard(listener.onError, error);
      this.#emit("error", error);
    });
  }

  #sendPattern(pattern, entry) {
    const answered = ({ channels }) => {
      // What was asked for only to go on where it was is the pattern's from here on.
      for (const [channel, { isAsked, patterns }] of this.#channels) {
        if (!isAsked && patterns.has(entry) && entry.resumed.delete(channel)) {
          this.#request({ type: "unsubscribe", channel }).catch(() => {});
        }
      }
      for (const listener of entry.listeners) guard(listener.onWatching, { pattern, channels });
      this.#emit("watching", { pattern, channels });
    };
    entry.resumed = new Set([...this.#channels].filter(([, { request }]) => request !== null).map(([name]) => name));
    this.#request({ type: "subscribe", channel: pattern }).then(answered, (error) => {
      if (error.code === "connection_lost" || error.code === "closed") return;
      // Until there is a WebSocket again, the channels that are known go on.
      if (error.code === "unsupported") return this.#emit("error", Object.assign(error, { channel: pattern }));
      if (this.#patterns.get(pattern) === entry) this.#endPattern(pattern, error);
    });
  }

  #request(message, isRetried = false) {
    return new Promise((resolve, reject) => {
      if (!isRetried && this.#state !== "open") {
        reject(new RingcastError("not_connected", "there is no connection just now"));
        return;
      }
      if (isRetried && this.#retrying >= this.#options.publishesMax) {
        reject(new RingcastError("too_many_publishes", `${this.#retrying} publishes wait for their acks`));
        return;
      }
      const id = this.#nextId++;
      const waiting = { type: message.type, resolve, reject, retry: null };
      this.#pending.set(id, waiting);
      if (!isRetried) return this.#link.send({ id, ...message });
      const giveUp = () => this.#settle(id)?.reject(new RingcastError("timeout", "not acknowledged in time"));
      const timer = setTimeout(giveUp, this.#options.publishTimeoutMs);
      waiting.retry = { message: { id, ...message }, isSent: false, timer };
      this.#retrying += 1;
      // While something older waits to be sent again, this waits behind it.
      if (this.#flushTimer === null) this.#flush();
    });
  }

  /** Sends what is to be published and has not been sent on this link, in its order. */
  #flush() {
    if (this.#state !== "open") return;
    for (const { retry } of this.#pending.values()) {
      if (!retry || retry.isSent) continue;
      retry.isSent = true;
      this.#link.send(retry.message);
    }
  }

  #settle(id) {
    const waiting = this.#pending.get(id);
    this.#pending.delete(id);
    if (waiting?.retry) {
      clearTimeout(waiting.retry.timer);
      this.#retrying -= 1;
    }
    return waiting;
  }

  #fail(isMeant, code, reason) {
    for (const [id, waiting] of [...this.#pending]) {
      if (isMeant(waiting)) this.#settle(id).reject(new RingcastError(code, reason));
    }
  }

  #emit(event, value) {
    for (const listener of this.#listeners.get(event) ?? []) guard(listener, value);
  }
}

/** What is known of one channel. */
class Subscription {
  listeners = new Set();
  isAsked = false; // by its name, and not only by patterns
  patterns = new Set(); // the patterns that match it
  live = false; // whether the link's server has said where it goes on
  request = null; // the id of the subscribe that is not answered
  epoch = null;
  seq = 0; // the position: the last number that came, or was told as lost
  floor = 0; // what is gone up to here is no loss: it was not asked for by number
  since; // where to begin as long as there is no position: "latest", { last } or nothing
  conflate; // how often it wants the newest values, or nothing

  constructor({ since, conflate }) {
    this.conflate = conflate;
    if (since?.epoch === undefined) this.since = since;
    else Object.assign(this, { epoch: since.epoch, seq: since.seq });
  }

  get position() {
    return this.epoch === null ? null : { epoch: this.epoch, seq: this.seq };
  }

  /** Whoever is told, each once. */
  get handlers() {
    if (this.patterns.size === 0) return this.listeners;
    return new Set([this.listeners, ...[...this.patterns].map(({ listeners }) => listeners)].flatMap((set) => [...set]));
  }
}

// ---- a WebSocket ----

class WebSocketLink {
  transport = "websocket";
  #host;
  #socket;
  #isOpen = false;
  #messageBytesMax = Infinity;

  constructor(host) {
    this.#host = host;
    const url = host.url.replace(/^http/i, "ws");
    const socket = (this.#socket = new host.WebSocket(url, [SUBPROTOCOL]));
    socket.onmessage = ({ data }) => this.#received(data);
    socket.onclose = ({ code, reason }) => host.ended(this, code, reason);
    socket.onerror = () => {}; // `close` follows and says all there is to say
  }

  /**
   * It is open when the server has said something: there are proxies that let a handshake through
   * and nothing after it.
   */
  #received(text) {
    const message = parse(text);
    if (message?.type === "welcome") this.#messageBytesMax = message.message_bytes_max ?? Infinity;
    if (!this.#isOpen) {
      this.#isOpen = true;
      this.#host.opened(this);
    }
    if (message) this.#host.heard(this, message, text);
  }

  send({ type, id, text, ...members }) {
    const rest = text === undefined ? JSON.stringify(members).slice(1, -1) : text;
    const whole = `{"type":"${type}","id":${id}${rest && `,${rest}`}}`;
    // It would cost the connection, and again after each reconnect.
    if (whole.length * 3 > this.#messageBytesMax && new TextEncoder().encode(whole).length > this.#messageBytesMax) {
      this.#host.failed(id, "content_too_large", `the server takes messages of ${this.#messageBytesMax} bytes`);
    } else {
      this.#socket.send(whole);
    }
  }

  close(code, reason) {
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close(code, reason);
  }

  retire() {
    this.close(1000, "");
  }
}

// ---- HTTP: what comes is a stream or polls, what we say are requests of their own ----

/** What the server answered instead of what was asked for. */
class StatusError extends Error {
  constructor(response) {
    super(`the server answered ${response.status}`);
    this.code = response.status;
    const seconds = Number(response.headers.get("Retry-After") ?? NaN);
    if (Number.isFinite(seconds)) this.retryAfterMs = seconds * 1000;
  }
}

/**
 * Turns requests into HTTP and what comes back into the objects that a WebSocket would bring. The
 * positions of all channels travel as one cursor: `EPOCH.SEQ` for each, `-` where there is none yet.
 */
class HttpLink {
  host;
  isOpen = false;
  isAway = false; // the server has said that it ends this
  names = []; // the channels of the current stream, in the order of its cursors
  #asked = new Map(); // channel -> id of the subscribe that waits for its answer
  #told = new Set(); // channels that the current stream has told the beginning of
  #located = new Map(); // channel -> where "latest" or { last } begins
  #stream = null; // AbortController of the current stream
  #isChanging = false;
  #isPosting = false;
  #outgoing = []; // publishes that are not posted yet
  #batchMax = BATCH_MESSAGES_MAX;

  constructor(host) {
    this.host = host;
    this.#begin();
  }

  send(message) {
    const { type, id, channel } = message;
    const answer = (details) => this.host.heard(this, { type, id, channel, ...details });
    const fail = (error) => this.host.failed(id, "connection_lost", error.message);
    switch (type) {
      case "subscribe":
        if (isPattern(channel)) return queueMicrotask(() => this.host.failed(id, "unsupported", "patterns need a WebSocket"));
        this.#asked.set(channel, id);
        return this.names.includes(channel) || this.#change();
      case "unsubscribe":
        this.#asked.delete(channel);
        if (this.names.includes(channel)) this.#change();
        return answer({ type: "ack" });
      case "publish":
        this.#outgoing.push(message);
        return this.#post();
      case "history":
        return this.#history(message).then(answer, fail);
      case "presence":
      case "presence_stats":
        return queueMicrotask(() => this.host.failed(id, "unsupported", "who is there is told to a WebSocket"));
      case "ping":
        return this.#knock().then(() => answer({ type: "pong" }), fail);
    }
  }

  /** Ends what comes; what is on its way to the server still gets there, and is answered. */
  retire() {
    this.#stream?.abort();
    this.#stream = null;
  }

  close() {
    this.retire();
    this.#outgoing = [];
  }

  // ---- what comes ----

  /** Opens the stream for the channels there are now. */
  async #begin() {
    this.#stream?.abort();
    const stream = (this.#stream = new AbortController());
    this.names = [...this.host.channels.keys()];
    this.#told.clear();
    try {
      if (this.names.length === 0) {
        await this.#knock();
        if (stream === this.#stream) this.open();
        return;
      }
      await this.#locate(stream.signal);
      await this.receive(stream.signal);
      throw Object.assign(new Error("the stream ended"), { code: this.isAway ? 1001 : 1006 });
    } catch (error) {
      if (stream !== this.#stream) return;
      this.host.ended(this, error.code ?? 1006, error.message, error.retryAfterMs);
    }
  }

  /** Channels came or went: one new stream for all that did in this turn. */
  #change() {
    if (this.#isChanging) return;
    this.#isChanging = true;
    queueMicrotask(() => {
      this.#isChanging = false;
      if (this.#stream) this.#begin();
    });
  }

  open() {
    if (this.isOpen) return;
    this.isOpen = true;
    this.host.opened(this);
  }

  /** A cursor knows positions only: "latest" and { last } are counted back from the newest. */
  async #locate(signal) {
    const names = this.names.filter((name) => {
      const entry = this.host.channels.get(name);
      return entry.epoch === null && entry.since !== undefined;
    });
    if (names.length === 0) return;
    const { cursor } = await this.poll(signal, names, names.map(() => "-").join(","), 0);
    for (const [name, newest] of positions(names, cursor)) {
      const entry = this.host.channels.get(name);
      if (!entry || !newest) continue;
      const count = entry.since === "latest" ? 1 : entry.since.last;
      entry.floor = newest.seq;
      this.#located.set(name, { epoch: newest.epoch, seq: Math.max(newest.seq - count, 0) });
    }
  }

  get cursor() {
    const positions = this.names.map((name) => this.host.channels.get(name)?.position ?? this.#located.get(name));
    return positions.map((position) => (position ? `${position.epoch}.${position.seq}` : "-")).join(",");
  }

  address(path, names = this.names) {
    // The neighbour of /ws, with what else the address says.
    const address = new URL(this.host.url.replace(/^ws/i, "http"));
    address.pathname = address.pathname.replace(/[^/]*$/, path);
    for (const name of names) address.searchParams.append("channel", name);
    return address;
  }

  /** One poll: { cursor, events: [[object, text]] }. */
  async poll(signal, names, cursor, timeoutMs) {
    const address = this.address("poll", names);
    address.searchParams.set("since", cursor);
    address.searchParams.set("timeout", `${Math.round(timeoutMs / 1000)}s`);
    const response = await fetch(address, { signal, cache: "no-store" });
    if (response.status === 204) return { cursor: response.headers.get("Ringcast-Cursor"), events: [] };
    if (!response.ok) throw new StatusError(response);
    const text = await response.text();
    const answer = parse(text);
    if (!Array.isArray(answer?.events)) throw new Error("what answered is not ringcast");
    const texts = elements(text, "events");
    return { cursor: answer.cursor, events: answer.events.map((event, index) => [event, texts[index]]) };
  }

  /**
   * Hands on what came up to `cursor`. A WebSocket's server says for each channel where it goes on;
   * here the cursor says so, where no "subscribed" does.
   */
  arrived(cursor, events) {
    const at = positions(this.names, cursor);
    for (const [event, text] of events) {
      if (event.type === "goaway") this.isAway = true;
      if (event.type === "subscribed") this.#tell(event);
      else if (at.has(event.channel)) this.#reconcile(event.channel, at.get(event.channel), event.from ?? event.seq);
      this.host.heard(this, event, text);
    }
    for (const [name, position] of at) this.#reconcile(name, position, (position?.seq ?? 0) + 1);
  }

  #tell(subscribed) {
    const { channel } = subscribed;
    this.#told.add(channel);
    subscribed.id = this.#asked.get(channel);
    this.#asked.delete(channel);
  }

  #reconcile(channel, position, from) {
    const entry = this.host.channels.get(channel);
    if (!entry || !position || from === undefined) return;
    if (this.#told.has(channel) && entry.epoch === position.epoch) return;
    const recovered = entry.epoch === position.epoch;
    const reason = entry.epoch === null || recovered ? undefined : "epoch_changed";
    const subscribed = { type: "subscribed", channel, ...position, recovered, reason, from };
    this.#tell(subscribed);
    this.host.heard(this, subscribed);
  }

  // ---- what goes ----

  /** Posts what waits, one request at a time: two at once might overtake each other. */
  async #post() {
    if (this.#isPosting) return;
    this.#isPosting = true;
    while (this.#outgoing.length > 0) {
      const batch = takeBatch(this.#outgoing, this.#batchMax);
      const unanswered = new Map(batch.map((message) => [message.id, message]));
      const [code, reason] = await this.#publish(batch, unanswered).catch((error) => ["connection_lost", error.message]);
      if (code === "content_too_large" && batch.length > 1) {
        // Together they are; perhaps none of them is alone.
        this.#outgoing.unshift(...unanswered.values());
        this.#batchMax = 1;
      } else {
        for (const id of unanswered.keys()) this.host.failed(id, code, reason);
        // What waits behind it must not overtake what is sent again.
        const behind = unanswered.size > 0 && code === "connection_lost" ? this.#outgoing.splice(0) : [];
        for (const { id } of behind) this.host.failed(id, "not_connected", "not sent: the publish before it failed");
      }
    }
    this.#isPosting = false;
  }

  /** Returns what it means for those that got no answer of their own. */
  async #publish(batch, unanswered) {
    const response = await fetch(this.address("publish", []), {
      method: "POST",
      headers: { "Content-Type": batch.length === 1 ? "application/json" : "application/x-ndjson" },
      body: batch.map(({ id, text }) => `{"id":${id},${text}}`).join("\n"),
      signal: AbortSignal.timeout(this.host.options.connectTimeoutMs),
    });
    const { status, ok } = response;
    const answers = (await response.text()).split("\n").map(parse).filter(Boolean);
    // They come in the order of the messages; what could not be read is answered without its id.
    // An answer too few, and one without id is about the whole.
    const isEach = ok && answers.length === batch.length;
    let whole = null;
    for (const [index, answer] of answers.entries()) {
      if (isEach) answer.id ??= batch[index].id;
      if (answer.id === undefined) whole = answer;
      else if (unanswered.delete(answer.id)) this.host.heard(this, answer);
    }
    const isTooLarge = status === 413 || whole?.code === "content_too_large";
    const isPassing = ok || status === 408 || status === 429 || status >= 500;
    const code = isTooLarge ? "content_too_large" : isPassing ? "connection_lost" : "refused";
    return [code, whole?.reason ?? `the server answered ${status}`];
  }

  /** There is no request for history here; a poll from the number before brings the same. */
  async #history({ channel, from, limit = 100 }) {
    const signal = AbortSignal.timeout(this.host.options.connectTimeoutMs);
    const newest = positions([channel], (await this.poll(signal, [channel], "-", 0)).cursor).get(channel);
    if (!newest) throw new Error("the server does not say where the channel is");
    const { epoch, seq } = newest;
    const messages = [];
    let cursor = `${epoch}.${Math.max((from ?? 1) - 1, 0)}`;
    while (messages.length < limit) {
      const answer = await this.poll(signal, [channel], cursor, 0);
      if (answer.events.length === 0) break;
      for (const [event] of answer.events) if (event.type === "message") messages.push(event);
      cursor = answer.cursor;
    }
    messages.length = Math.min(messages.length, limit);
    return { epoch, seq, messages, more: messages.length > 0 && messages.at(-1).seq < seq };
  }

  /** Whether anybody is there; what is answered does not matter, and may be kept from us. */
  #knock() {
    const signal = AbortSignal.timeout(this.host.options.connectTimeoutMs);
    return fetch(this.address("ringcast.js", []), { method: "HEAD", mode: "no-cors", cache: "no-store", signal });
  }
}

/** Server-Sent Events, read by hand: EventSource tells no status, and Node has none. */
class SseLink extends HttpLink {
  transport = "sse";

  async receive(signal) {
    const address = this.address("sse");
    address.searchParams.set("since", this.cursor);
    const response = await fetch(address, { signal, cache: "no-store", headers: { Accept: "text/event-stream" } });
    if (!response.ok) throw new StatusError(response);
    if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
      throw new Error("what answered is not ringcast");
    }
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    let fields = {};
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.open(); // a proxy that holds streams back would not have let this through
      this.host.alive(this);
      const piece = decoder.decode(value, { stream: true });
      rest += piece;
      if (!piece.includes("\n")) continue; // a long line is looked at once, when it is whole
      const lines = rest.split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (signal.aborted) return;
        if (line === "") {
          this.#dispatch(fields);
          fields = {};
        } else {
          readField(fields, line);
        }
      }
    }
  }

  #dispatch({ id, data }) {
    const event = data && parse(data);
    if (event) this.arrived(id ?? null, [[event, data]]);
  }
}

/** Long polling: the next poll begins where the last one ended. */
class PollLink extends HttpLink {
  transport = "poll";

  async receive(signal) {
    let cursor = this.cursor;
    let timeoutMs = 0; // the first answer comes at once: it says that there is somebody
    for (;;) {
      const asked = performance.now();
      const names = this.names;
      const answer = await this.poll(signal, names, cursor, timeoutMs);
      if (signal.aborted) return;
      this.open();
      this.host.alive(this);
      this.arrived(answer.cursor, answer.events);
      cursor = answer.cursor ?? cursor;
      // Something between us and the server may answer in its place, and at once.
      const isHasty = timeoutMs > 0 && answer.events.length === 0 && performance.now() - asked < 1_000;
      if (isHasty) await new Promise((resolve) => setTimeout(resolve, this.host.options.retryDelayMinMs));
      timeoutMs = this.host.options.pollTimeoutMs;
    }
  }
}

const LINKS = { websocket: WebSocketLink, sse: SseLink, poll: PollLink };

/** The channels' positions in a cursor; null where there is none yet. */
function positions(names, cursor) {
  const parts = cursor?.split(",") ?? [];
  if (parts.length !== names.length) return new Map();
  return new Map(names.map((name, index) => {
    const [, epoch, seq] = /^(.+)\.(\d+)$/.exec(parts[index]) ?? [];
    return [name, epoch === undefined ? null : { epoch, seq: Number(seq) }];
  }));
}

function takeBatch(outgoing, max) {
  let characters = 0;
  const end = outgoing.findIndex(({ text }, index) => {
    characters += text.length;
    return index === max || (index > 0 && characters > BATCH_CHARACTERS_MAX);
  });
  return outgoing.splice(0, end === -1 ? outgoing.length : end);
}

/** HTML standard, "interpreting an event stream"; of its fields, those that are used here. */
function readField(fields, line) {
  const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
  if (name === "data") fields.data = fields.data === undefined ? (value ?? "") : `${fields.data}\n${value ?? ""}`;
  if (name === "id") fields.id = value ?? "";
}

/** An object, or null for what is none. */
function parse(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

/** The elements of the array that is member `name` of an object, as they are written. */
function elements(text, name) {
  const found = [];
  let depth = 0;
  let start = -1; // of the element that is being passed
  let key = null; // the last string of the outer object
  let isWanted = false;
  const tokens = /"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{},]/gs;
  for (const { 0: token, index } of text.matchAll(tokens)) {
    if (depth === 1 && token[0] === '"') key = token;
    if (token === "]" || token === "}" || token === ",") {
      if (isWanted && depth === 2 && start >= 0 && text.slice(start, index).trim()) found.push(text.slice(start, index).trim());
      if (depth === 2) start = token === "," ? index + 1 : -1;
      if (token !== ",") depth -= 1;
    } else if (token === "[" || token === "{") {
      depth += 1;
      if (depth === 2) {
        isWanted = token === "[" && key === `"${name}"`;
        start = index + 1;
      }
    }
  }
  return found;
}

/** Not randomUUID(): a page that came over plain HTTP has none. */
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The address with which a client says what it is called, through whichever door. */
function withUser(url, user) {
  const address = new URL(url);
  address.searchParams.set("user", user);
  return String(address);
}

/** Whether a name stands for many channels. */
function isPattern(name) {
  return /[*>]/.test(name);
}

/** Says of a channel's name whether `pattern` matches. */
function matcher(pattern) {
  const segments = pattern.split(".").map((segment) => {
    if (segment === "*") return "[^.]*";
    return segment === ">" ? ".*" : segment.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
  });
  const whole = new RegExp(`^${segments.join("\\.")}$`, "su");
  return (channel) => whole.test(channel);
}

/** One listener's mistake is its own: told on the console, and the next one is called. */
function guard(listener, ...values) {
  try {
    listener?.(...values);
  } catch (error) {
    console.error(error);
  }
}
