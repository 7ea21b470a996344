// The demo page in headless Chromium, as a visitor would use it.
//
//   node page.mjs BINARY uring|epoll ARTIFACTS       (`playwright-core` from NODE_MODULES,
//                                                      the browser from CHROMIUM)

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { Proxy } from "./proxy.mjs";
import { Checks, Server, sleep, until } from "./server.mjs";

const { chromium } = createRequire(process.env.NODE_MODULES ? `${process.env.NODE_MODULES}/` : import.meta.url)("playwright-core");
const [binary, driver, artifacts] = process.argv.slice(2);
mkdirSync(artifacts, { recursive: true });

const server = await Server.start(binary, driver, {
  command: "demo",
  config: '[timing]\ndrain_window = "500ms"\n',
});
const address = `http://127.0.0.1:${server.port}/`;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});
const requests = [];
const complaints = [];
let page;

/** The page that is looked at from now on. */
async function open(expected) {
  await page?.close();
  page = await browser.newPage({ viewport: { width: 1440, height: 900 }, colorScheme: "dark" });
  page.on("request", (request) => requests.push(request.url()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // A browser logs each connection that fails by itself; where that is expected, it is right.
    if (message.type() === "error" && !expected.some((text) => message.text().includes(text))) complaints.push(message.text());
  });
}
const AWAY = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_INTERNET_DISCONNECTED"];
await open(AWAY);

const shown = (id) => page.locator(`#${id}`).innerText();
const figure = async (id) => Number((await shown(id)).split(/\s/)[0].replaceAll(",", ""));
const price = (symbol) => page.locator(`[data-symbol=${symbol}] .price`).innerText();
const picture = (name) => page.screenshot({ path: join(artifacts, `page-${driver}-${name}.png`) });
const connected = () => until(async () => (await shown("state")) === "Connected", "Connected", 35_000);
const returned = async () => {
  try {
    await until(async () => (await figure("recovered")) > 0, "what was missed");
  } catch (error) {
    const log = (await page.locator("#log").innerText()).replaceAll("\n", " | ");
    throw new Error(`${error.message}; the page says: ${await shown("resume")} Its log: ${log}`);
  }
};
/**
 * Stops the server and starts it again. The page comes back a moment later: at once, there might be
 * nothing yet that it missed.
 */
async function restart() {
  assert.equal(await server.stop(), 0);
  await until(async () => /^Reconnecting/.test(await shown("state")), "Reconnecting");
  await page.context().setOffline(true);
  await server.again();
  await sleep(1_000);
  await page.context().setOffline(false);
  await connected();
}
const checks = new Checks();

await checks.run("the_page_connects_and_shows_live_ticks", async () => {
  await page.goto(address);
  await connected();
  await until(async () => (await figure("rate")) > 0, "a rate");
  // The first tick counted may be another symbol's.
  await until(async () => /^\d[\d,]*\.\d\d$/.test(await price("AAPL")), "a price of AAPL");
  const before = await price("AAPL");
  await until(async () => (await price("AAPL")) !== before, "the price to move");
  assert.equal(await page.locator(".tick").count(), 8);
});

await checks.run("a_click_follows_a_symbol_and_another_lets_go", async () => {
  const chip = page.getByRole("button", { name: "NFLX" });
  assert.equal(await chip.getAttribute("aria-pressed"), "false");
  await chip.click();
  assert.equal(await chip.getAttribute("aria-pressed"), "true");
  await until(async () => /^\d/.test(await price("NFLX")), "a price of NFLX");
  await chip.click();
  await until(async () => (await page.locator("[data-symbol=NFLX]").count()) === 0, "NFLX to be gone");
  assert.match(await page.evaluate(() => location.hash), /^#AAPL,/);
});

await checks.run("sparklines_are_drawn", async () => {
  await until(() => page.evaluate(() => {
    const canvas = document.querySelector("[data-symbol=AAPL] canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.some((value) => value > 0);
  }), "ink on the canvas");
});

await checks.run("the_visitor_can_disconnect_and_connect", async () => {
  await page.getByRole("button", { name: "Disconnect" }).click();
  assert.equal(await shown("state"), "Disconnected");
  await sleep(300);
  const still = await price("AAPL");
  await sleep(700);
  assert.equal(await price("AAPL"), still);
  assert.match(await shown("resume"), /^Away\./);
  await page.getByRole("button", { name: "Connect" }).click();
  await connected();
  await until(async () => (await price("AAPL")) !== still, "the price to move again");
  // A second's ticks came after all, and nothing is missing.
  await returned();
  assert.equal(await shown("lost"), "0");
  assert.equal(await figure("gaps"), 0);
  await sleep(6_000); // enough for a picture that says something
  await picture("dark");
});

await checks.run("a_server_restart_is_survived_and_told", async () => {
  assert.equal(await shown("transport"), "WebSocket");
  const gaps = await figure("gaps");
  await restart();
  const received = await figure("received");
  await until(async () => (await figure("received")) > received, "ticks after the restart");
  await until(async () => (await figure("gaps")) > gaps, "the gap to be told");
  // What all symbols have to tell is gathered for a moment and said once.
  const log = () => page.locator("#log").innerText();
  await until(async () => /numbering began anew/.test(await log()), "the new numbering to be told");
  assert.match(await log(), /going away/);
  assert.match(await log(), /Connected again/);
  // What the server published before we came back was recovered; what it had forgotten was told.
  await returned();
  assert.match(await shown("lost"), /\?$/);
  assert.match(await shown("resume"), /anew/);
  await picture("returned");
});

await checks.run("a_killed_server_is_survived", async () => {
  await server.stop("SIGKILL");
  await until(async () => /^Reconnecting/.test(await shown("state")), "Reconnecting");
  await picture("waiting");
  await server.again();
  await connected();
});

for (const [transport, blocked, held] of [["sse", ["websocket"], []], ["poll", ["websocket"], ["sse"]]]) {
  const proxy = await Proxy.start(server.port);
  await checks.run(`where_the_better_ways_are_blocked_it_works_over_${transport}`, async () => {
    proxy.blocked = new Set(blocked);
    proxy.held = new Set(held);
    await open(["403", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET", ...AWAY]);
    await page.goto(`http://127.0.0.1:${proxy.port}/`);
    await connected();
    assert.equal(await shown("transport"), { sse: "SSE", poll: "long polling" }[transport]);
    await until(async () => (await figure("received")) > 40, "ticks");
    const gaps = await figure("gaps");
    assert.equal(gaps, 0);
    await page.getByRole("button", { name: "Disconnect" }).click();
    await sleep(1_000);
    await page.getByRole("button", { name: "Connect" }).click();
    await connected();
    await returned();
    assert.equal(await shown("lost"), "0");
    await restart();
    assert.equal(await shown("transport"), { sse: "SSE", poll: "long polling" }[transport]);
    await until(async () => /\?$/.test(await shown("lost")), "the new numbering to be told");
    await returned();
    const received = await figure("received");
    await until(async () => (await figure("received")) > received + 40, "ticks after the restart");
    await picture(transport);
  }, 90_000);
  await proxy.stop();
}

await checks.run("the_browsers_own_event_source_goes_on_where_it_was", async () => {
  const proxy = await Proxy.start(server.port);
  await open(["ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET", ...AWAY]);
  await page.goto(`http://127.0.0.1:${proxy.port}/#none`);
  await page.evaluate(() => {
    globalThis.heard = [];
    new EventSource("/sse?channel=md.AAPL").onmessage = ({ data, lastEventId }) =>
      globalThis.heard.push({ ...JSON.parse(data), lastEventId });
  });
  const heard = () => page.evaluate(() => globalThis.heard);
  const messages = async () => (await heard()).filter(({ type }) => type === "message");
  await until(async () => (await messages()).length > 3, "ticks");
  proxy.cut();
  const before = (await messages()).length;
  await until(async () => (await messages()).length > before + 3, "ticks on another connection");
  const told = (await heard()).filter(({ type }) => type === "subscribed");
  assert.deepEqual(told.map(({ recovered }) => recovered), [false, true]);
  const [first, ...rest] = await messages();
  rest.forEach(({ seq, lastEventId }, index) => {
    assert.equal(seq, first.seq + 1 + index, "it misses nothing and repeats nothing");
    assert.equal(lastEventId, `${told[0].epoch}.${seq}`);
  });
  await proxy.stop();
});

await checks.run("the_transport_can_be_chosen_in_the_address", async () => {
  await open([]);
  for (const [name, label] of [["poll", "long polling"], ["sse", "SSE"], ["websocket", "WebSocket"]]) {
    await page.goto(`${address}?transport=${name}`);
    await connected();
    assert.equal(await shown("transport"), label);
    await until(async () => (await figure("received")) > 0, "ticks");
  }
});

await checks.run("by_day_and_on_a_phone_it_fits", async () => {
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 390, height: 844 });
  await sleep(2_500);
  const overhang = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overhang <= 0, `the page is ${overhang} px too wide`);
  await picture("light-phone");
  await page.setViewportSize({ width: 1440, height: 900 });
  await sleep(1_000);
  await picture("light");
});

await checks.run("nothing_was_asked_of_anybody_else_and_nothing_complained", async () => {
  const own = /^(data:|http:\/\/127\.0\.0\.1:\d+\/)/;
  const foreign = requests.filter((url) => !own.test(url));
  assert.deepEqual(foreign, []);
  assert.deepEqual(complaints, []);
});

await browser.close();
await checks.end(server);
