// A ringcast child process for the foreign clients, and the counting of their checks.

import { spawn } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export { sleep };

export function freePort() {
  return new Promise((resolve, reject) => {
    const listener = createServer().once("error", reject).listen(0, "127.0.0.1", () => {
      const { port } = listener.address();
      listener.close(() => resolve(port));
    });
  });
}

/** A server that keeps its ports when it is started again. */
export class Server {
  static async start(binary, driver, { command = "serve", config = "" } = {}) {
    const server = new Server();
    server.binary = binary;
    [server.port, server.adminPort] = [await freePort(), await freePort()];
    server.directory = mkdtempSync(join(tmpdir(), "ringcast-"));
    writeFileSync(join(server.directory, "ringcast.toml"), config);
    server.arguments = [
      command, "--config", join(server.directory, "ringcast.toml"), "--driver", driver,
      "--listen", `127.0.0.1:${server.port}`, "--admin", `127.0.0.1:${server.adminPort}`,
    ];
    await server.again();
    return server;
  }

  get url() { return `ws://127.0.0.1:${this.port}/ws`; }

  async again() {
    const log = openSync(join(this.directory, "log"), "a");
    this.child = spawn(this.binary, this.arguments, { stdio: ["ignore", log, log] });
    this.ended = new Promise((resolve) => this.child.once("exit", (status, signal) => resolve(status ?? signal)));
    for (let attempt = 0; attempt < 500; attempt += 1) {
      if (this.child.exitCode !== null) break;
      const ready = await fetch(`http://127.0.0.1:${this.adminPort}/readyz`).catch(() => null);
      if (ready?.ok) return;
      await sleep(20);
    }
    throw new Error(`the server did not get ready:\n${this.output()}`);
  }

  output() { return readFileSync(join(this.directory, "log"), "utf8").slice(-4000); }

  /** Ends the server and resolves with its exit status (or the signal's name). */
  async stop(signal = "SIGTERM") {
    this.child.kill(signal);
    const patience = setTimeout(() => this.child.kill("SIGKILL"), 15_000);
    const status = await this.ended;
    clearTimeout(patience);
    return status;
  }

  async discard() {
    if (this.child.exitCode === null && this.child.signalCode === null) await this.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export class Checks {
  passed = 0;
  failed = 0;

  async run(name, check, msMax = 60_000) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not done within ${msMax} ms`)), msMax);
    });
    try {
      await Promise.race([check(), late]);
      this.passed += 1;
      console.log(`  ok ${name}`);
    } catch (error) {
      this.failed += 1;
      console.log(`  FAILED ${name}\n${error.stack}`);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Prints the sum, discards the servers, and ends the process. */
  async end(...servers) {
    for (const server of servers) {
      if (this.failed) console.log(server.output());
      await server.discard();
    }
    console.log(`${this.passed} passed, ${this.failed} failed`);
    process.exit(this.failed ? 1 : 0);
  }
}

/** Resolves once `probe()` is truthy, with what it returned. */
export async function until(probe, what, msMax = 10_000) {
  const deadline = performance.now() + msMax;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`waited ${msMax} ms for ${what}`);
    await sleep(15);
  }
}
