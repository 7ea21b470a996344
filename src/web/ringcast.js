// The ringcast client for browsers, and for Node wherever a WebSocket class is at hand.
// One file, an ES module, no dependencies.
//
//   import { Ringcast } from "./ringcast.js";
//   const ringcast = new Ringcast("ws://127.0.0.1:8080/ws");
//   ringcast.subscribe("orders", {
//     onMessage: (payload, { seq }) => console.log(seq, payload),
//     onGap: ({ from, to, reason }) => console.warn("lost", from, to, reason),
//   });
//   const { seq } = await ringcast.publish("orders", { order: "123", status: "paid" });
//
// What it promises: after a lost connection it comes back by itself and subscribes again, and
// nothing goes missing in silence. Every message of a channel carries `seq`, counted up by one
// within an `epoch`; whatever was passed over reaches `onGap`, whether the server told it, the
// connection was down at the time, or the numbering began anew.

/** The subprotocol this client speaks. */
export const SUBPROTOCOL = "ringcast.json.v1";

const DEFAULTS = {
  retryDelayMinMs: 1_000,
  retryDelayMaxMs: 30_000,
  retryJitter: 0.2, // a delay is stretched or shrunk by up to this part of itself
  stableAfterMs: 10_000, // open for this long: the next retry starts from the minimum again
  connectTimeoutMs: 10_000,
  pingIntervalMs: 25_000, // until the server's welcome says otherwise
  pingGraceMs: 5_000, // silence beyond the server's own interval before we ask
  pongTimeoutMs: 10_000, // silence after asking that ends the connection
};

// Answers that would be the same next time: asking again is no use.
const FINAL_CLOSE_CODES = new Set([4400, 4401, 4403]);

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
  #socket = null;
  #state = "closed";
  #channels = new Map(); // name -> { listeners, live, epoch, seq, request }
  #pending = new Map(); // request id -> { resolve, reject }
  #listeners = new Map(); // event name -> Set of functions
  #nextId = 1;
  #failures = 0; // attempts in a row that did not become stable
  #openedAt = 0;
  #heardAt = 0;
  #pingedAt = 0; // 0: no ping of ours is unanswered
  #goaway = null; // { until } once the server has said so
  #timer = null; // the one timer of the current state
  #wake = () => this.#state === "waiting" && this.#connect();

  /**
   * @param {string|URL} url ws:// or wss://, ending in /ws
   * @param {object} [options] any of the DEFAULTS; `channels`: { name: handlers } to subscribe
   *   to at once; `WebSocket`: the class to use (Node before 22: `ws`'s); `start: false` to
   *   wait for connect().
   */
  constructor(url, { channels = {}, WebSocket = globalThis.WebSocket, start = true, ...options } = {}) {
    if (!WebSocket) throw new TypeError("no WebSocket here: pass one as options.WebSocket");
    this.#url = String(url);
    this.#options = { ...DEFAULTS, ...options };
    this.#WebSocket = WebSocket;
    for (const [name, handlers] of Object.entries(channels)) this.subscribe(name, handlers);
    if (start) this.connect();
  }

  /** "connecting", "open", "waiting" (for the next attempt) or "closed" (for good, by choice). */
  get state() {
    return this.#state;
  }

  /** Names of the channels that are subscribed to, or will be once connected. */
  get channels() {
    return [...this.#channels.keys()];
  }

  /**
   * Calls `listener` on: "state" { state, code?, reason?, retryInMs? }, "welcome" (the server's),
   * "message" { channel, seq, payload, text }, "gap" { channel, from, to, reason, epoch },
   * "subscribed" { channel, epoch, seq }, "goaway" { reconnectAfterMs }, "error" RingcastError.
   * Returns a function that ends it.
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

  /** Closes for good; connect() opens again, with the same channels. */
  close(code = 1000, reason = "") {
    const socket = this.#letGo();
    globalThis.removeEventListener?.("online", this.#wake);
    this.#openedAt = 0;
    for (const entry of this.#channels.values()) entry.live = false;
    this.#failPending("closed", "the client was closed");
    socket?.close(code, reason);
    if (this.#state !== "closed") this.#enter("closed", { code, reason });
  }

  /**
   * Subscribes, now or as soon as there is a connection, and again after every reconnect.
   * `onMessage(payload, { channel, seq, text })`: `text` is the frame as it came, for payloads
   * with numbers that JavaScript would round. `onGap({ channel, from, to, reason, epoch })`:
   * `from` and `to` (both lost, and all between) are null when the numbering began anew and
   * nobody can say how much was missed. `onSubscribed`, `onError` as they sound.
   * Returns a function that takes these handlers away, and unsubscribes with the last of them.
   */
  subscribe(channel, handlers = {}) {
    let entry = this.#channels.get(channel);
    if (!entry) {
      entry = { listeners: new Set(), live: false, epoch: null, seq: 0, request: null };
      this.#channels.set(channel, entry);
      if (this.#state === "open") this.#sendSubscribe(channel, entry);
    }
    entry.listeners.add(handlers);
    return () => {
      entry.listeners.delete(handlers);
      if (entry.listeners.size === 0 && this.#channels.get(channel) === entry) {
        this.unsubscribe(channel).catch(() => {});
      }
    };
  }

  /** Ends the subscription. Resolves once the server has confirmed: nothing follows after that. */
  async unsubscribe(channel) {
    if (!this.#channels.delete(channel)) return;
    if (this.#state === "open") await this.#request({ type: "unsubscribe", channel });
  }

  /**
   * Publishes and resolves with { seq } once the server has taken it. Rejects with a
   * RingcastError: "not_connected" (not sent), "connection_lost" (sent, but nobody can say
   * whether it arrived), or the server's code.
   */
  async publish(channel, payload) {
    if (payload === undefined) throw new TypeError("a payload is any JSON value, not undefined");
    const { seq } = await this.#request({ type: "publish", channel, payload });
    return { seq };
  }

  /** Asks the server for a sign of life; resolves with the milliseconds it took. */
  async ping() {
    const asked = performance.now();
    await this.#request({ type: "ping" });
    return performance.now() - asked;
  }

  // ---- the connection ----

  #connect() {
    this.#letGo();
    this.#goaway = null;
    this.#enter("connecting");
    if (this.#state !== "connecting") return; // a listener changed its mind
    // A laptop that wakes up or finds its network again should not sit out a long delay.
    globalThis.addEventListener?.("online", this.#wake);
    let socket;
    try {
      socket = new this.#WebSocket(this.#url, [SUBPROTOCOL]);
    } catch (error) {
      // A URL that no WebSocket can have: trying again would not change it.
      this.#enter("closed", { reason: error.message });
      throw error;
    }
    this.#socket = socket;
    socket.onopen = () => this.#opened();
    socket.onmessage = (event) => this.#received(event.data);
    socket.onclose = (event) => this.#ended(event.code, event.reason);
    socket.onerror = () => {}; // `close` follows and says all there is to say
    this.#arm(this.#options.connectTimeoutMs, () => {
      this.#letGo()?.close();
      this.#ended(1006, "no answer in time");
    });
  }

  #opened() {
    this.#openedAt = this.#heardAt = performance.now();
    this.#pingedAt = 0;
    this.#enter("open");
    for (const [channel, entry] of this.#channels) this.#sendSubscribe(channel, entry);
    this.#watch();
  }

  /** The connection is gone: says so, and waits as long as is polite. */
  #ended(code, reason) {
    this.#letGo();
    const stable = this.#openedAt && performance.now() - this.#openedAt >= this.#options.stableAfterMs;
    if (stable) this.#failures = 0;
    this.#openedAt = 0;
    for (const entry of this.#channels.values()) entry.live = false;
    this.#failPending("connection_lost", `the connection ended with ${code} before the answer`);
    if (FINAL_CLOSE_CODES.has(code)) {
      this.#enter("closed", { code, reason });
      return;
    }
    const retryInMs = Math.round(this.#retryDelay());
    this.#enter("waiting", { code, reason, retryInMs });
    if (this.#state === "waiting") this.#arm(retryInMs, () => this.#connect());
  }

  #retryDelay() {
    if (this.#goaway) {
      // The server spreads its clients over time; that is its choice, not ours.
      const remaining = this.#goaway.until - performance.now();
      this.#goaway = null;
      return Math.max(remaining, 0);
    }
    const { retryDelayMinMs, retryDelayMaxMs, retryJitter } = this.#options;
    const delay = Math.min(retryDelayMinMs * 2 ** this.#failures, retryDelayMaxMs);
    this.#failures = Math.min(this.#failures + 1, 30);
    return delay * (1 + retryJitter * (2 * Math.random() - 1));
  }

  /** Detaches the current socket: what it may still say is not heard any more. */
  #letGo() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
    return socket;
  }

  #enter(state, details = {}) {
    this.#state = state;
    this.#emit("state", { state, ...details });
  }

  #arm(delayMs, callback) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(callback, delayMs);
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
      this.#letGo()?.close();
      return this.#ended(1006, "the server fell silent");
    }
    this.#pingedAt = 0;
    const remaining = this.#heardAt + pingIntervalMs + pingGraceMs - now;
    if (remaining > 0) return this.#arm(remaining, () => this.#watch());
    this.#pingedAt = now;
    this.ping().catch(() => {});
    this.#arm(pongTimeoutMs, () => this.#watch());
  }

  // ---- what the server says ----

  #received(text) {
    this.#heardAt = performance.now();
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      this.#emit("error", new RingcastError("not_json", "the server sent something that is not JSON"));
      return;
    }
    switch (message.type) {
      case "message":
        return this.#message(message, text);
      case "gap":
        return this.#gap(message);
      case "subscribed":
        return this.#subscribed(message);
      case "ack":
      case "pong":
        return this.#settle(message.id)?.resolve(message);
      case "error":
        return this.#error(message);
      case "welcome":
        this.#options.pingIntervalMs = message.ping_interval_ms ?? this.#options.pingIntervalMs;
        this.#watch();
        return this.#emit("welcome", message);
      case "goaway":
        this.#goaway = { until: this.#heardAt + message.reconnect_after_ms };
        return this.#emit("goaway", { reconnectAfterMs: message.reconnect_after_ms });
      // Other types come from a newer server; an older client has no use for them.
    }
  }

  #message({ channel, seq, payload }, text) {
    const entry = this.#channels.get(channel);
    if (!entry?.live || seq <= entry.seq) return; // late for a subscription that has ended
    if (seq > entry.seq + 1) this.#lost(channel, entry, entry.seq + 1, seq - 1, "missed");
    entry.seq = seq;
    const about = { channel, seq, text };
    for (const listener of entry.listeners) guard(listener.onMessage, payload, about);
    this.#emit("message", { payload, ...about });
  }

  #gap({ channel, from, to, reason }) {
    const entry = this.#channels.get(channel);
    if (!entry?.live || to <= entry.seq) return;
    // A notice that does not begin where we stopped hides a second loss; tell both as one.
    this.#lost(channel, entry, Math.min(from, entry.seq + 1), to, reason);
    entry.seq = to;
  }

  #subscribed({ id, channel, epoch, seq }) {
    const entry = this.#channels.get(channel);
    this.#settle(id)?.resolve();
    if (!entry || entry.request !== id) return;
    if (entry.epoch === epoch && seq > entry.seq) {
      this.#lost(channel, entry, entry.seq + 1, seq, "disconnected");
    } else if (entry.epoch !== null && entry.epoch !== epoch) {
      entry.epoch = epoch;
      this.#lost(channel, entry, null, null, "new_epoch");
    }
    Object.assign(entry, { live: true, epoch, seq, request: null });
    for (const listener of entry.listeners) guard(listener.onSubscribed, { channel, epoch, seq });
    this.#emit("subscribed", { channel, epoch, seq });
  }

  #lost(channel, entry, from, to, reason) {
    const gap = { channel, from, to, reason, epoch: entry.epoch };
    for (const listener of entry.listeners) guard(listener.onGap, gap);
    this.#emit("gap", gap);
  }

  #error({ id, code, reason }) {
    const error = new RingcastError(code, reason);
    const waiting = this.#settle(id);
    if (waiting) waiting.reject(error);
    else this.#emit("error", error);
  }

  // ---- what we say ----

  #sendSubscribe(channel, entry) {
    entry.live = false;
    entry.request = this.#nextId;
    this.#request({ type: "subscribe", channel }).catch((error) => {
      // A lost connection is not the end of a subscription; a refusal is.
      if (error.code === "connection_lost" || error.code === "closed") return;
      if (this.#channels.get(channel) === entry) this.#channels.delete(channel);
      error.channel = channel;
      for (const listener of entry.listeners) guard(listener.onError, error);
      this.#emit("error", error);
    });
  }

  #request(message) {
    return new Promise((resolve, reject) => {
      if (this.#state !== "open") {
        reject(new RingcastError("not_connected", "there is no connection just now"));
        return;
      }
      const id = this.#nextId++;
      this.#pending.set(id, { resolve, reject });
      this.#socket.send(JSON.stringify({ id, ...message }));
    });
  }

  #settle(id) {
    const waiting = this.#pending.get(id);
    this.#pending.delete(id);
    return waiting;
  }

  #failPending(code, reason) {
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) reject(new RingcastError(code, reason));
  }

  #emit(event, value) {
    for (const listener of this.#listeners.get(event) ?? []) guard(listener, value);
  }
}

/** One listener's mistake is its own: told on the console, and the next one is called. */
function guard(listener, ...values) {
  try {
    listener?.(...values);
  } catch (error) {
    console.error(error);
  }
}
