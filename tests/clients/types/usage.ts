// Never run: the TypeScript compiler checks that ringcast.d.ts lets a user write this, and that it
// lets nobody write what is marked as an error.

import { Ringcast, RingcastError, SUBPROTOCOL } from "../../../src/web/ringcast.js";
import type { Gap, History, Position, Presence, PresenceEvent, PresenceStats, Subscribed, Transport } from "../../../src/web/ringcast.js";

interface Order {
  order: string;
  status: "paid" | "open";
}

const protocol: "ringcast.json.v1" = SUBPROTOCOL;

const ringcast = new Ringcast(new URL("wss://edge.example/ws"), {
  transports: ["websocket", "sse"],
  user: "ann",
  channels: { news: { onMessage: (payload: string) => payload.trim() } },
  retryDelayMinMs: 500,
  WebSocket: class {
    constructor(public url: string, public protocols: string[]) {}
  },
});
new Ringcast("ws://127.0.0.1:8080/ws", { WebSocket: null, start: false });
// A browser's own class fits.
new Ringcast("ws://127.0.0.1:8080/ws", { WebSocket });

const stop: () => void = ringcast.subscribe<Order>("orders", {
  since: { epoch: "k3x9", seq: 120 },
  conflate: "500ms",
  onMessage(payload, { seq, from, text }) {
    const status: "paid" | "open" = payload.status;
    return [status, (seq - from).toFixed(), text.length];
  },
  onGap(gap) {
    if (gap.from === null) return gap.epoch;
    return gap.to - gap.from + 1;
  },
  onSubscribed: ({ recovered, reason, from, seq, resumed }: Subscribed) => [recovered, reason?.length, seq - from, resumed],
  onError: (error) => error.channel.length,
});
ringcast.subscribe("latest", { since: "latest" });
ringcast.subscribe<Order>("iot.*.temp", { onMessage: (payload, { channel }) => [payload.order, channel.length] });
const patterns: string[] = ringcast.patterns;
ringcast.subscribe("last", { since: { last: 10 } });

ringcast.on("state", ({ state, transport, retryInMs = 0 }) => {
  const name: Transport | null = transport;
  return state === "waiting" ? retryInMs : name;
});
ringcast.on("gap", (gap: Gap) => gap.reason === "slow_consumer");
const end: () => void = ringcast.on("error", (error) => error instanceof RingcastError && error.code);

async function use(): Promise<number> {
  const { seq, duplicate } = await ringcast.publish("orders", { order: "1" }, { retry: true, key: "1" });
  const { messages, more }: History<Order> = await ringcast.history<Order>("orders", { from: 1, limit: 5 });
  const { users, epoch }: Presence = await ringcast.presence("room", { after: "ann", limit: 5 });
  const { anonymous }: PresenceStats = await ringcast.presenceStats("room");
  ringcast.subscribe<PresenceEvent>("presence:room", {
    onMessage: (told) => (told.event === "presence.many" ? told.joined : told.users.length + anonymous),
  });
  users.map(({ user, connections }) => [user.length, connections, epoch]);
  const position: Position | null = ringcast.position("orders");
  if (position) ringcast.subscribe("again", { since: position });
  await ringcast.unsubscribe("orders");
  stop();
  end();
  ringcast.close(1000, protocol);
  return duplicate || more ? seq : messages.length + (await ringcast.ping());
}
void use();

// @ts-expect-error there is no such transport
new Ringcast("ws://a/ws", { transports: ["pigeon"] });
// @ts-expect-error there is no such event
ringcast.on("massage", () => {});
// @ts-expect-error a position has a number
ringcast.subscribe("orders", { since: { epoch: "k3x9" } });
// @ts-expect-error it is not for everybody to say what the state is
ringcast.state = "open";
ringcast.subscribe("orders", {
  // @ts-expect-error nobody knows what a payload is before it is said
  onMessage: (payload) => payload.order,
});
