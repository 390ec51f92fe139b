/**
 * A WebSocket (RFC 6455) of Node's own modules, for Nodes that have none (before 22), or one that says
 * nothing of a connection that was closed before it was open (20). It does what the client of this package
 * needs: binary messages, no extensions.
 */

import { createHash, randomBytes } from "node:crypto";
import { request as httpRequest, type ClientRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Socket } from "node:net";
import type { WebSocketLike } from "./client.js";

const Opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;
/** The most that a message from the server may have. */
const MESSAGE_BYTES_MAX = 8 * 1024 * 1024;
/** How long a server has to answer a Close. */
const CLOSE_TIMEOUT_MS = 2_000;
const ABNORMAL = 1006;
const PROTOCOL_ERROR = 1002;
const TOO_LONG = 1009;

export class NodeWebSocket implements WebSocketLike {
  binaryType = "arraybuffer";
  onopen: ((event: object) => void) | null = null;
  onmessage: ((event: { data: ArrayBuffer | string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: { message: string }) => void) | null = null;

  private readonly request: ClientRequest;
  private socket: Socket | undefined;
  private input: Buffer = Buffer.alloc(0);
  private fragments: Buffer[] = [];
  private fragmentBytes = 0;
  private isText = false;
  private isClosing = false;
  private isClosed = false;
  /** What the server's Close said. */
  private closing = { code: ABNORMAL, reason: "" };

  constructor(url: string, protocol: string) {
    const key = randomBytes(16).toString("base64");
    const { protocol: scheme } = new URL(url);
    if (scheme !== "ws:" && scheme !== "wss:") throw new SyntaxError(`${url} is no address of a WebSocket`);
    const open = scheme === "ws:" ? httpRequest : httpsRequest;
    this.request = open(url.replace(/^ws/i, "http"), {
      // A connection of its own, which no pool keeps.
      agent: false,
      headers: {
        Connection: "Upgrade",
        Upgrade: "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": protocol,
      },
    });
    this.request.on("upgrade", (response, socket, head) =>
      this.upgraded(response, socket as Socket, head, key, protocol),
    );
    this.request.on("response", (response) => this.fail(`the server answered ${response.statusCode}`));
    this.request.on("error", (error) => this.fail(error.message));
    this.request.end();
  }

  get bufferedAmount(): number {
    return this.socket?.writableLength ?? 0;
  }

  send(data: Uint8Array): void {
    if (this.socket === undefined) throw new Error("the WebSocket is not open");
    this.write(Opcode.binary, data);
  }

  close(code = 1000): void {
    if (this.socket === undefined) return this.fail("closed before it was open");
    if (this.isClosing) return;
    this.write(Opcode.close, Uint8Array.of(code >> 8, code & 255));
    this.isClosing = true;
    setTimeout(() => this.socket?.destroy(), CLOSE_TIMEOUT_MS).unref();
  }

  private upgraded(
    response: IncomingMessage,
    socket: Socket,
    head: Buffer,
    key: string,
    protocol: string,
  ): void {
    const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
    const { headers } = response;
    if (
      this.isClosed ||
      headers["sec-websocket-accept"] !== accept ||
      headers["sec-websocket-protocol"] !== protocol
    ) {
      socket.destroy();
      return this.fail("the server speaks no such WebSocket");
    }
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on("data", (bytes) => this.read(bytes));
    socket.on("error", () => {});
    socket.on("end", () => socket.end());
    socket.on("close", () => this.closed());
    this.onopen?.({});
    if (head.length > 0) this.read(head);
  }

  private fail(message: string): void {
    if (this.isClosed) return;
    this.request.destroy();
    this.socket?.destroy();
    // As a browser does it, after the call that made the socket has returned.
    queueMicrotask(() => this.onerror?.({ message }));
    if (this.socket === undefined) queueMicrotask(() => this.closed());
  }

  private closed(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.onclose?.(this.closing);
  }

  private write(opcode: number, payload: Uint8Array): void {
    if (this.socket === undefined || this.isClosing) return;
    const long = payload.length < 126 ? 0 : payload.length < 65_536 ? 2 : 8;
    const frame = Buffer.alloc(6 + long + payload.length);
    frame[0] = 0x80 | opcode;
    frame[1] = 0x80 | (long === 0 ? payload.length : long === 2 ? 126 : 127);
    if (long === 2) frame.writeUInt16BE(payload.length, 2);
    if (long === 8) frame.writeBigUInt64BE(BigInt(payload.length), 2);
    const mask = randomBytes(4);
    frame.set(mask, 2 + long);
    const body = frame.subarray(6 + long);
    for (let index = 0; index < payload.length; index += 1) body[index] = payload[index]! ^ mask[index & 3]!;
    this.socket.write(frame);
  }

  private read(bytes: Buffer): void {
    this.input = this.input.length === 0 ? bytes : Buffer.concat([this.input, bytes]);
    while (!this.isClosed) {
      const frame = this.nextFrame();
      if (frame === undefined) return;
      this.take(frame.opcode, frame.isLast, frame.payload);
    }
  }

  /** Cuts a frame off the input, if there is a whole one. */
  private nextFrame(): { opcode: number; isLast: boolean; payload: Buffer } | undefined {
    const { input } = this;
    if (input.length < 2) return undefined;
    const [first, second] = [input[0]!, input[1]!];
    // Reserved bits and masks are for what was not agreed on, and for clients.
    if ((first & 0x70) !== 0 || (second & 0x80) !== 0) return this.refuse(PROTOCOL_ERROR);
    const long = second < 126 ? 0 : second === 126 ? 2 : 8;
    if (input.length < 2 + long) return undefined;
    const length =
      long === 0 ? second : long === 2 ? input.readUInt16BE(2) : Number(input.readBigUInt64BE(2));
    if (length > MESSAGE_BYTES_MAX) return this.refuse(TOO_LONG);
    const end = 2 + long + length;
    if (input.length < end) return undefined;
    this.input = input.subarray(end);
    return { opcode: first & 15, isLast: (first & 0x80) !== 0, payload: input.subarray(2 + long, end) };
  }

  private take(opcode: number, isLast: boolean, payload: Buffer): void {
    switch (opcode) {
      case Opcode.ping:
        return this.write(Opcode.pong, payload);
      case Opcode.pong:
        return;
      case Opcode.close: {
        const code = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
        this.closing = { code, reason: payload.subarray(2).toString() };
        this.close(code === 1005 ? 1000 : code);
        this.socket?.end();
        return;
      }
      case Opcode.text:
      case Opcode.binary:
        if (this.fragments.length > 0) return void this.refuse(PROTOCOL_ERROR);
        this.isText = opcode === Opcode.text;
        break;
      case Opcode.continuation:
        if (this.fragments.length === 0) return void this.refuse(PROTOCOL_ERROR);
        break;
      default:
        return void this.refuse(PROTOCOL_ERROR);
    }
    this.fragments.push(payload);
    this.fragmentBytes += payload.length;
    if (this.fragmentBytes > MESSAGE_BYTES_MAX) return void this.refuse(TOO_LONG);
    if (!isLast) return;
    const whole = new Uint8Array(Buffer.concat(this.fragments));
    this.fragments = [];
    this.fragmentBytes = 0;
    this.onmessage?.({ data: this.isText ? Buffer.from(whole).toString() : whole.buffer });
  }

  private refuse(code: number): undefined {
    this.closing = { code, reason: "" };
    this.input = Buffer.alloc(0);
    this.close(code);
    this.socket?.end();
    this.socket?.destroySoon();
    return undefined;
  }
}
