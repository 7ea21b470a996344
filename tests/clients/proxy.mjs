// What stands between a client and a server in some networks: an HTTP proxy that lets some doors
// through and not others.

import { createServer, request as ask } from "node:http";
import { connect } from "node:net";

export class Proxy {
  blocked = new Set(); // "websocket", "sse", "poll", "publish": refused with 403
  held = new Set(); // the same: answered only when the answer has ended, which a stream never does
  passed = []; // what went through, by door
  #sockets = new Set();

  /** Stands in front of `upstream`, a port of this machine. */
  static async start(upstream) {
    const proxy = new Proxy();
    proxy.upstream = upstream;
    proxy.server = createServer((request, response) => proxy.#request(request, response));
    proxy.server.on("upgrade", (request, socket, head) => proxy.#upgrade(request, socket, head));
    proxy.server.on("connection", (socket) => {
      proxy.#sockets.add(socket);
      socket.on("close", () => proxy.#sockets.delete(socket));
      socket.on("error", () => {});
    });
    await new Promise((resolve) => proxy.server.listen(0, "127.0.0.1", resolve));
    proxy.port = proxy.server.address().port;
    return proxy;
  }

  get url() { return `ws://127.0.0.1:${this.port}/ws`; }

  /** Breaks off what goes through just now. */
  cut() { for (const socket of this.#sockets) socket.destroy(); }

  async stop() {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }

  #request(request, response) {
    const door = new URL(request.url, "http://proxy").pathname.slice(1);
    if (this.blocked.has(door)) return response.writeHead(403).end();
    const { method, url: path, headers } = request;
    const upstream = ask({ host: "127.0.0.1", port: this.upstream, method, path, headers, agent: false });
    upstream.on("error", () => response.destroy());
    upstream.on("response", (answer) => {
      this.passed.push(door);
      const pieces = [];
      answer.on("error", () => response.destroy());
      answer.on("close", () => answer.complete || response.destroy());
      if (!this.held.has(door)) {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      } else {
        answer.on("data", (piece) => pieces.push(piece));
        answer.on("end", () => response.writeHead(answer.statusCode, answer.headers).end(Buffer.concat(pieces)));
      }
    });
    response.on("close", () => upstream.destroy());
    request.pipe(upstream);
  }

  #upgrade(request, socket, head) {
    if (this.blocked.has("websocket")) return socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    this.passed.push("websocket");
    const upstream = connect(this.upstream, "127.0.0.1");
    upstream.on("error", () => socket.destroy());
    upstream.on("close", () => socket.destroy());
    socket.on("close", () => upstream.destroy());
    const lines = [`${request.method} ${request.url} HTTP/1.1`];
    for (let index = 0; index < request.rawHeaders.length; index += 2) {
      lines.push(`${request.rawHeaders[index]}: ${request.rawHeaders[index + 1]}`);
    }
    upstream.write(`${lines.join("\r\n")}\r\n\r\n`);
    upstream.write(head);
    upstream.pipe(socket).pipe(upstream);
  }
}
