/** The driver and the WebSocket of Node's modules, over sockets of this machine. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer, type Server } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { test } from "node:test";
import { Client, type ClientOptions, type Message } from "../src/index.js";
import { NodeWebSocket } from "../src/node.js";
import { read, say } from "./server.js";

/** A server's end of a WebSocket. */
class Peer {
  private input = Buffer.alloc(0);
  private readonly frames: { opcode: number; payload: Buffer }[] = [];
  private waiting: (() => void) | undefined;

  constructor(readonly socket: Duplex) {
    socket.on("error", () => {});
    socket.on("data", (bytes: Buffer) => {
      this.input = Buffer.concat([this.input, bytes]);
      for (;;) {
        if (this.input.length < 2) break;
        const short = this.input[1]! & 127;
        const long = short < 126 ? 0 : short === 126 ? 2 : 8;
        if (this.input.length < 2 + long) break;
        const length =
          long === 0
            ? short
            : long === 2
              ? this.input.readUInt16BE(2)
              : Number(this.input.readBigUInt64BE(2));
        const end = 6 + long + length;
        if (this.input.length < end) break;
        assert(this.input[1]! & 128, "a client masks");
        const mask = this.input.subarray(2 + long, 6 + long);
        const payload = this.input.subarray(6 + long, end).map((byte, index) => byte ^ mask[index % 4]!);
        this.frames.push({ opcode: this.input[0]! & 15, payload: Buffer.from(payload) });
        this.input = this.input.subarray(end);
        this.waiting?.();
      }
    });
  }

  async next(): Promise<{ opcode: number; payload: Buffer }> {
    while (this.frames.length === 0) await new Promise<void>((resolve) => (this.waiting = resolve));
    return this.frames.shift()!;
  }

  /** The frames of the protocol in the next message. */
  async hear(): Promise<string[]> {
    const { payload } = await this.next();
    const lines = [];
    for (let from = 0; from < payload.length;) {
      const end = from + 10 + payload.readInt32BE(from + 6);
      lines.push(read(new Uint8Array(payload.subarray(from, end))));
      from = end;
    }
    return lines;
  }

  write(opcode: number, payload: Uint8Array, isLast = true): void {
    const long = payload.length < 126 ? 0 : payload.length < 65_536 ? 2 : 8;
    const head = Buffer.alloc(2 + long);
    head[0] = (isLast ? 128 : 0) | opcode;
    head[1] = long === 0 ? payload.length : long === 2 ? 126 : 127;
    if (long === 2) head.writeUInt16BE(payload.length, 2);
    if (long === 8) head.writeBigUInt64BE(BigInt(payload.length), 2);
    this.socket.write(Buffer.concat([head, payload]));
  }

  say(...frames: Uint8Array[]): void {
    this.write(2, Buffer.concat(frames));
  }
}

class Listener {
  private readonly peers: Peer[] = [];
  private waiting: (() => void) | undefined;
  private constructor(readonly server: Server) {
    server.on("upgrade", (request, socket) => {
      const key = `${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
      socket.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
          `Sec-WebSocket-Accept: ${createHash("sha1").update(key).digest("base64")}\r\n` +
          `Sec-WebSocket-Protocol: ${request.headers["sec-websocket-protocol"]}\r\n\r\n`,
      );
      this.peers.push(new Peer(socket));
      this.waiting?.();
    });
  }

  static async open(): Promise<Listener> {
    const server = createServer((_, response) => response.writeHead(426).end());
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new Listener(server);
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async accept(): Promise<Peer> {
    while (this.peers.length === 0) await new Promise<void>((resolve) => (this.waiting = resolve));
    return this.peers.shift()!;
  }
}

async function play(
  scene: (client: Client, listener: Listener) => Promise<void>,
  options: Partial<ClientOptions> = {},
): Promise<void> {
  const listener = await Listener.open();
  const client = new Client({
    url: listener.url,
    token: () => "t",
    WebSocket: NodeWebSocket,
    backoffMs: 20,
    ...options,
  });
  client.start();
  try {
    await scene(client, listener);
  } finally {
    client.stop();
    listener.server.closeAllConnections();
    listener.server.close();
  }
}

async function login(listener: Listener): Promise<Peer> {
  const peer = await listener.accept();
  assert.deepEqual(await peer.hear(), ["login t"]);
  peer.say(say.loggedIn());
  return peer;
}

test("a session: join, send, hear, ack, and what is ready together leaves together", () =>
  play(async (client, listener) => {
    const messages: Message[] = [];
    client.on("message", (message) => void messages.push(message));
    const joined = client.join(7, { last: 10 });
    const peer = await login(listener);
    assert.deepEqual(await peer.hear(), ["join 7 last 10"]);
    peer.say(say.joined(7, 9, 1));
    assert.deepEqual(await joined, { outcome: "joined", room: 7n, sequence: 9n, recovery: "complete" });
    const outcomes = Promise.all(
      [1, 2].map((number) =>
        client.send({ bizCode: 5555, target: "7", payload: `${number}`, clientMsgId: `m${number}` }),
      ),
    );
    assert.deepEqual([await peer.hear(), await peer.hear()], [["send 7 m1: 1"], ["send 7 m2: 2"]]);
    peer.say(
      say.sequenced("m1", 10),
      say.failed("m2", 8),
      say.direct(5, 9, "a", "hello"),
      say.direct(6, 9, "b", "you"),
    );
    assert.deepEqual(await outcomes, [
      { outcome: "sequenced", messageId: 42n, sequence: 10n },
      { outcome: "failed", reason: "too_long", messageId: 42n },
    ]);
    assert.deepEqual(await peer.hear(), ["ack 5 6"]);
    assert.deepEqual(
      messages.map(({ text }) => text),
      ["hello", "you"],
    );
    client.stop();
    assert.deepEqual(await peer.hear(), ["logout"]);
  }));

test("frames of a WebSocket in pieces and fragments, with pings between, are one stream", () =>
  play(async (client, listener) => {
    const texts: string[] = [];
    client.on("message", ({ text }) => void texts.push(text));
    const peer = await login(listener);
    const long = "x".repeat(200_000);
    const bytes = Buffer.concat([say.inRoom(1, 7, 1, "short"), say.inRoom(2, 7, 2, long)]);
    peer.write(2, bytes.subarray(0, 7), false);
    peer.write(9, Buffer.from("ping"));
    peer.write(0, bytes.subarray(7, 100_000), false);
    peer.write(0, bytes.subarray(100_000));
    const pong = await peer.next();
    assert.deepEqual([pong.opcode, pong.payload.toString()], [10, "ping"]);
    while (texts.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(texts, ["short", long]);
  }));

test("a cut connection comes back, and so does one that was closed before it was open", () =>
  play(async (client, listener) => {
    const first = await login(listener);
    void client.send({ bizCode: 6001, target: 9, payload: "hi", clientMsgId: "m1" });
    assert.deepEqual(await first.hear(), ["send 9 m1: hi"]);
    let refused = 0;
    const refuse = (socket: Duplex) => void (refused++ < 2 && socket.destroy());
    listener.server.on("connection", refuse);
    first.socket.destroy();
    const second = await login(listener);
    assert.deepEqual([await second.hear(), refused], [["send 9 m1: hi"], 3]);
  }));

test("the code of a Close says what a notice says", () =>
  play(async (client, listener) => {
    const peer = await login(listener);
    const stopped = new Promise((resolve) =>
      client.on("status", (status) => status.name === "stopped" && resolve(status)),
    );
    peer.write(8, Buffer.concat([Uint8Array.of(4001 >> 8, 4001 & 255), Buffer.from("kicked")]));
    assert.deepEqual(await stopped, { name: "stopped", reason: "kicked" });
  }));

test("a listener that fails leaves its message unacked, and hurts nothing else", () =>
  play(async (client, listener) => {
    const errors: unknown[] = [];
    client.on("error", (error) => errors.push(error));
    let tries = 0;
    client.on("message", async () => {
      if (tries++ === 0) throw new Error("the disk is full");
    });
    const peer = await login(listener);
    peer.say(say.direct(5, 9, "a", "hello"));
    while (errors.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    peer.say(say.direct(5, 9, "a", "hello"));
    assert.deepEqual([await peer.hear(), tries], [["ack 5"], 2]);
  }));

test("a listener may call the client", () =>
  play(async (client, listener) => {
    client.on("message", ({ sender, text }) => {
      void client.send({ bizCode: 6001, target: sender, payload: `${text} yourself`, clientMsgId: "m1" });
    });
    const peer = await login(listener);
    peer.say(say.direct(5, 9, "a", "hello"));
    const heard = [...(await peer.hear()), ...(await peer.hear())];
    assert.deepEqual(heard.sort(), ["ack 5", "send 9 m1: hello yourself"]);
  }));

test("mistakes of the caller are thrown, and what the network does is not", async () => {
  const client = new Client({ url: "ws://127.0.0.1:1", token: () => "t", WebSocket: NodeWebSocket });
  assert.throws(() => client.join(2 ** 60), RangeError);
  assert.throws(() => client.join("x"), SyntaxError);
  assert.throws(() => client.send({ bizCode: 1, target: 2n ** 63n, payload: "" }), RangeError);
  await assert.rejects(client.send({ bizCode: 2 ** 40, target: 1, payload: "" }), RangeError);
  await assert.rejects(
    client.send({ bizCode: 1, target: 1, payload: "", clientMsgId: "x".repeat(65) }),
    RangeError,
  );
  client.start();
  const outcome = client.send({ bizCode: 1, target: 1, payload: "" });
  const joined = client.join(7);
  client.stop();
  assert.deepEqual(
    [await outcome, await joined],
    [
      { outcome: "failed", reason: "stopped", messageId: 0n },
      { outcome: "failed", reason: "stopped" },
    ],
  );
});

test("a client without any WebSocket says what to pass", () => {
  if ("WebSocket" in globalThis) return;
  assert.throws(() => new Client({ url: "ws://127.0.0.1:1", token: () => "t" }), /NodeWebSocket/);
});
