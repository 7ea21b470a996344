// The types of ringcast.js.

/** The subprotocol this client speaks. */
export declare const SUBPROTOCOL: "ringcast.json.v1";

export type Transport = "websocket" | "sse" | "poll";

export type State = "connecting" | "open" | "waiting" | "closed";

/** A place in a channel: after the message with this number. */
export interface Position {
  /** The life of the numbering. */
  epoch: string;
  seq: number;
}

/** Where a subscription begins: after a position, with the last value, or with the last few. */
export type Since = Position | "latest" | { last: number };

/** What is known of a message besides its payload. */
export interface MessageInfo {
  channel: string;
  seq: number;
  /** The first number that it stands for: below `seq` where newer values superseded others. */
  from: number;
  /** The message as it came, for payloads with numbers that JavaScript would round. */
  text: string;
}

/**
 * Messages that are gone. `from` and `to` are both lost, and all between; they are null when the
 * numbering began anew and nobody can say how much of the old one was missed.
 */
export type Gap = { channel: string; reason: GapReason; epoch: string } & (
  | { from: number; to: number }
  | { from: null; to: null }
);

/**
 * Why messages are gone: "missed" is a break in the numbers that the server did not tell. A newer
 * server may have other reasons.
 */
export type GapReason =
  | "slow_consumer" | "memory" | "too_old" | "limit" | "stale" | "epoch_changed" | "missed"
  | (string & {});

/** The server's answer to a subscription, the first and after every reconnect. */
export interface Subscribed {
  channel: string;
  epoch: string;
  /** The newest message at that moment. */
  seq: number;
  /** What comes next: a message with this number, or a gap that begins with it. */
  from: number;
  /** Whether nothing is lost of what was missed. */
  recovered: boolean;
  /** Why not: "epoch_changed", "too_old" or "limit". */
  reason: string | null;
  /** Whether there was a position to go on from. */
  resumed: boolean;
}

/** The server's answer to a pattern, the first and after every reconnect. */
export interface Watching {
  pattern: string;
  /** How many channels match by now. */
  channels: number;
}

export interface Handlers<Payload = unknown> {
  /** Where to begin; without it, with what is published from now on. */
  since?: Since;
  /** How often to get the newest value of each key, at most ("500ms"), in conflated channels. */
  conflate?: string;
  onMessage?(payload: Payload, info: MessageInfo): void;
  onGap?(gap: Gap): void;
  onSubscribed?(subscribed: Subscribed): void;
  /** Of a pattern: nothing is missed from here on. */
  onWatching?(watching: Watching): void;
  /** The channel, or pattern, was refused or has ended, and is not subscribed to any more. */
  onError?(error: RingcastError & { channel: string }): void;
}

export interface StateInfo {
  state: State;
  /** What is being opened, or is open. */
  transport: Transport | null;
  /** Why a connection ended: a close code, or an HTTP status. */
  code?: number;
  reason?: string;
  /** Only of "waiting". */
  retryInMs?: number;
}

/** What the server says of itself when a WebSocket is open. */
export interface Welcome {
  type: "welcome";
  client: string;
  ping_interval_ms: number;
  message_bytes_max: number;
  channels_max?: number;
  [name: string]: unknown;
}

/** What `on` can listen to, and what its listeners are given. */
export interface Events {
  state: StateInfo;
  welcome: Welcome;
  message: MessageInfo & { payload: unknown };
  gap: Gap;
  subscribed: Subscribed;
  watching: Watching;
  goaway: { reconnectAfterMs: number };
  error: RingcastError & { channel?: string };
}

export interface PublishOptions {
  /** By which the server knows the message again when it comes a second time. */
  key?: string;
  /** Waits for a connection, and publishes again what was not acknowledged when one broke. */
  retry?: boolean;
}

export interface Published {
  seq: number;
  /** Whether the message had arrived before; `seq` is then that time's. */
  duplicate: boolean;
}

export interface HistoryOptions {
  /** The first number wanted; the oldest that is kept. */
  from?: number;
  /** The most messages wanted; a page may hold fewer. */
  limit?: number;
}

export interface History<Payload = unknown> extends Position {
  messages: { type: "message"; channel: string; seq: number; payload: Payload }[];
  /** Whether there are more after these. */
  more: boolean;
}

export interface PresenceOptions {
  /** Users behind this one in the order of names. */
  after?: string;
  /** The most users wanted; a page may hold fewer. */
  limit?: number;
}

export interface Presence {
  /** `connections` is 0 for who has just left and may come back. */
  users: { user: string; connections: number }[];
  /** How many users there are. */
  total: number;
  /** Connections that found no room on the list. */
  unlisted: number;
  /** Whether there are users behind these. */
  more: boolean;
  /** What comes in `presence:NAME` behind this has happened since; null where nothing is told. */
  epoch: string | null;
  seq: number | null;
}

export interface PresenceStats {
  users: number;
  /** Of users and of others. */
  connections: number;
  /** Of these, those that have not said whose they are. */
  anonymous: number;
  /** Of these, those that found no room on the list. */
  unlisted: number;
}

/** The payload of a message of the channel `presence:NAME`. `total` users are there now. */
export type PresenceEvent =
  | { event: "presence.join" | "presence.leave"; users: string[]; total: number }
  /** Too many to be told by name: ask for the list again. */
  | { event: "presence.many"; joined: number; left: number; total: number };

export interface Options {
  /** What others are told that this client is called, where they may know who is there. */
  user?: string;
  /** Channels to subscribe to at once, by name. */
  channels?: Record<string, Handlers<any>>;
  /** The class to use for WebSockets; null for none. Node before 22 has none of its own. */
  WebSocket?: (new (url: string, protocols: string[]) => unknown) | null;
  /** false: waits for connect(). */
  start?: boolean;
  /** Which transports may be used, the best first; all three. */
  transports?: readonly Transport[];
  /**
   * Attempts in a row that a WebSocket, or the transport that was open last, fails to open before
   * others are tried; 2.
   */
  fallbackAfter?: number;
  /** On another transport: time until the better ones are tried again; 60 s. */
  betterAfterMs?: number;
  /** The first delay before a reconnect, which doubles; 1 s. */
  retryDelayMinMs?: number;
  /** The longest delay; 30 s. */
  retryDelayMaxMs?: number;
  /** A delay is stretched or shrunk by up to this part of itself; 0.2. */
  retryJitter?: number;
  /** Open for this long, a connection was a good one: the next delay is the first again; 10 s. */
  stableAfterMs?: number;
  connectTimeoutMs?: number;
  /** Silence that is usual, until the server's welcome says otherwise; 25 s. */
  pingIntervalMs?: number;
  /** Silence beyond it before the server is asked; 5 s. */
  pingGraceMs?: number;
  /** Silence after asking that ends a connection; 10 s. */
  pongTimeoutMs?: number;
  /** How long the server may hold a poll without an answer; 25 s. */
  pollTimeoutMs?: number;
  /** How long a publish with `retry` is tried; 60 s. */
  publishTimeoutMs?: number;
  /** Publishes with `retry` that wait for their acks; 1000. */
  publishesMax?: number;
}

/**
 * An answer of the server, or a failure to get one. `code` is stable: the server's, or
 * "not_connected", "connection_lost", "closed", "timeout", "content_too_large", "too_many_publishes",
 * "unsupported" (a pattern, or who is there, without a WebSocket) or "refused".
 */
export declare class RingcastError extends Error {
  constructor(code: string, reason?: string);
  readonly name: "RingcastError";
  readonly code: string;
  /** Of a refused subscription. */
  channel?: string;
}

export declare class Ringcast {
  /** `url`: ws:// or wss://, ending in /ws; the other doors are its neighbours. */
  constructor(url: string | URL, options?: Options);

  readonly state: State;
  /** What is being opened or is open. */
  readonly transport: Transport | null;
  /** Names of the channels that are subscribed to, or will be once connected; of patterns, those known. */
  readonly channels: string[];
  /** The patterns that are subscribed to, or will be once connected. */
  readonly patterns: string[];

  /** The last message that came or was told as lost: a `since` for later. */
  position(channel: string): Position | null;
  /** Returns a function that ends it. */
  on<Name extends keyof Events>(event: Name, listener: (value: Events[Name]) => void): () => void;
  /** Connects now, whatever delay was running. */
  connect(): void;
  /** Closes for good; connect() opens again, with the same channels, where they stopped. */
  close(code?: number, reason?: string): void;
  /**
   * Subscribes, now or as soon as there is a connection, and after every reconnect goes on where
   * it stopped. Returns a function that takes the handlers away, and unsubscribes with the last.
   * A pattern (`iot.*.temp`, `md.>`) subscribes to every channel that it matches, also to those to
   * come, over WebSockets; it has no `since` and no `conflate`.
   */
  subscribe<Payload = unknown>(channel: string, handlers?: Handlers<Payload>): () => void;
  /** Resolves once the server has confirmed: nothing follows after that. */
  unsubscribe(channel: string): Promise<void>;
  /** Resolves once the server has taken the message; rejects with a RingcastError. */
  publish(channel: string, payload: unknown, options?: PublishOptions): Promise<Published>;
  /** Asks for what the server keeps of a channel. */
  history<Payload = unknown>(channel: string, options?: HistoryOptions): Promise<History<Payload>>;
  /** Asks who is in a channel, over WebSockets. */
  presence(channel: string, options?: PresenceOptions): Promise<Presence>;
  /** Asks how many are in a channel, over WebSockets. */
  presenceStats(channel: string): Promise<PresenceStats>;
  /** Resolves with the milliseconds that a sign of life took. */
  ping(): Promise<number>;
}
