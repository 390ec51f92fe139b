/** Frames as a server writes them, and a driver with a simulated clock. */

import assert from "node:assert/strict";
import { Core, type CoreOptions, type Effect, type TokenReason } from "../src/core.js";
import { Code, HEADER_BYTES, MAGIC, utf8 } from "../src/wire.js";

type Field = [bits: 8 | 16 | 32 | 64, value: number | bigint] | string | Uint8Array;

/** A frame of fields; a text is its bytes. */
export function frame(code: number, ...fields: Field[]): Uint8Array {
  const parts = fields.map((field) => {
    if (typeof field === "string") return utf8(field);
    if (field instanceof Uint8Array) return field;
    const [bits, value] = field;
    const view = new DataView(new ArrayBuffer(bits / 8));
    if (bits === 64) view.setBigInt64(0, BigInt(value));
    else if (bits === 32) view.setInt32(0, Number(value));
    else if (bits === 16) view.setUint16(0, Number(value));
    else view.setUint8(0, Number(value));
    return new Uint8Array(view.buffer);
  });
  const body = Buffer.concat(parts);
  const header = new DataView(new ArrayBuffer(HEADER_BYTES));
  header.setUint16(0, MAGIC);
  header.setInt32(2, code);
  header.setInt32(6, body.length);
  return new Uint8Array(Buffer.concat([new Uint8Array(header.buffer), body]));
}

export const say = {
  loggedIn: (heartbeatMs = 30_000) => frame(Code.login, [32, heartbeatMs]),
  loggedOut: () => frame(Code.logout),
  heartbeat: () => frame(Code.heartbeat),
  joined: (room: number, sequence: number, recovery?: 1 | 2) =>
    frame(Code.join, [64, room], [64, sequence], ...(recovery === undefined ? [] : [[8, recovery] as Field])),
  sequenced: (clientMsgId: string, sequence: number) => sendAck(3, sequence, clientMsgId),
  delivered: (clientMsgId: string) => sendAck(1, 0, clientMsgId),
  failed: (clientMsgId: string, reason: number) => sendAck(5, reason, clientMsgId),
  notice: (code: number, retryMs = 0, text = "") => frame(Code.notice, [16, code], [32, retryMs], text),
  /** A message to this user that wants an ack. */
  direct: (id: number, sender: number, clientMsgId: string, text: string) =>
    frame(
      Code.business,
      [8, 1],
      [32, 6001],
      [64, id],
      [64, sender],
      [8, utf8(clientMsgId).length],
      clientMsgId,
      text,
    ),
  inRoom: (id: number, room: number, sequence: number, text = "", clientMsgId = "") =>
    frame(
      Code.business,
      ...([
        [8, 2],
        [32, 5555],
        [64, id],
        [64, 10_002],
        [64, room],
        [64, sequence],
      ] as Field[]),
      [8, utf8(clientMsgId).length],
      clientMsgId,
      text,
    ),
};

function sendAck(outcome: number, detail: number, clientMsgId: string): Uint8Array {
  return frame(
    Code.sendAck,
    [8, outcome],
    [64, detail],
    [64, 42],
    [8, utf8(clientMsgId).length],
    clientMsgId,
  );
}

/** What a client wrote, one line a frame. */
export function read(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const body = bytes.subarray(HEADER_BYTES);
  const at = (offset: number) => view.getBigInt64(HEADER_BYTES + offset);
  switch (view.getInt32(2)) {
    case Code.login:
      return `login ${Buffer.from(body).toString()}`;
    case Code.logout:
      return "logout";
    case Code.heartbeat:
      return "heartbeat";
    case Code.ack:
      return `ack ${Array.from({ length: body.length / 8 }, (_, index) => at(index * 8)).join(" ")}`;
    case Code.join: {
      if (body.length === 8) return `join ${at(0)}`;
      return `join ${at(0)} ${body[8] === 1 ? "since" : "last"} ${at(9)}`;
    }
    case Code.leave:
      return `leave ${at(0)}`;
    default: {
      const idBytes = body[12] ?? 0;
      const id = Buffer.from(body.subarray(13, 13 + idBytes)).toString();
      return `send ${at(4)} ${id}: ${Buffer.from(body.subarray(13 + idBytes)).toString()}`;
    }
  }
}

/** A core with a clock that jumps, and what it did. Tokens come at once unless `holdsTokens`. */
export class Sim {
  now = 1_000;
  readonly core: Core;
  /** Frames written, lines of `read`, since they were last taken. */
  written: string[] = [];
  events: Exclude<Effect, { kind: "write" | "connect" | "close" | "token" }>[] = [];
  dials: { connection: number; url: string; ms: number }[] = [];
  closes: number[] = [];
  tokenRequests: { request: number; reason: TokenReason }[] = [];
  holdsTokens = false;
  handles = true;
  tokenLifeMs: number | undefined = undefined;
  connection = 0;

  constructor(options: Partial<CoreOptions> = {}, random = () => 0.5) {
    this.core = new Core({ urls: ["ws://home:1/path"], ...options }, random);
  }

  /** Does an input and all that follows from it at this moment. */
  do(input: (now: number) => void): this {
    input(this.now);
    for (;;) {
      const effects = this.core.takeEffects();
      for (const effect of effects) this.perform(effect);
      if (effects.length > 0) continue;
      if ((this.core.deadline() ?? Infinity) > this.now) return this;
      this.core.wake(this.now);
    }
  }

  private perform(effect: Effect): void {
    switch (effect.kind) {
      case "write":
        assert.equal(effect.connection, this.connection, "writes go to the live connection");
        return void this.written.push(read(effect.bytes));
      case "connect":
        this.connection = effect.connection;
        return void this.dials.push({ connection: effect.connection, url: effect.url, ms: this.now });
      case "close":
        return void this.closes.push(effect.connection);
      case "token":
        this.tokenRequests.push({ request: effect.request, reason: effect.reason });
        if (!this.holdsTokens)
          this.core.tokenGiven(effect.request, `t${this.tokenRequests.length}`, this.tokenLifeMs, this.now);
        return;
      case "message":
        this.events.push(effect);
        if (this.handles) this.core.handled(effect.message, true, this.now);
        return;
      default:
        this.events.push(effect);
    }
  }

  /** Lets time pass, waking the core when it asks for it. */
  pass(ms: number): this {
    const end = this.now + ms;
    for (;;) {
      const at = this.core.deadline() ?? Infinity;
      if (at > end) break;
      this.now = Math.max(this.now, at);
      this.do((now) => this.core.wake(now));
    }
    this.now = end;
    return this;
  }

  hear(...frames: Uint8Array[]): this {
    return this.do((now) => this.core.bytes(this.connection, new Uint8Array(Buffer.concat(frames)), now));
  }

  cut(code = 1006): this {
    return this.do((now) => this.core.closed(this.connection, code, now));
  }

  open(): this {
    return this.do((now) => this.core.opened(this.connection, now));
  }

  /** Opens the connection that is dialled, and logs in. */
  login(heartbeatMs?: number): this {
    return this.open().hear(say.loggedIn(heartbeatMs));
  }

  start(): this {
    return this.do((now) => this.core.start(now));
  }

  online(): this {
    this.start().login();
    this.take();
    return this;
  }

  /** After a loss: waits for the next dial, and logs in. */
  again(): this {
    const before = this.dials.length;
    const end = this.now + 20_000;
    while (this.dials.length === before && this.now < end) this.pass(1);
    assert.equal(this.dials.length, before + 1, "a dial within the longest wait");
    return this.login();
  }

  send(clientMsgId: string, target = 7n, text = "hi"): this {
    return this.do((now) => this.core.send(5555, target, clientMsgId, utf8(text), now));
  }

  join(room: number, last?: number): this {
    return this.do((now) => this.core.join(BigInt(room), last, now));
  }

  /** The frames written since the last time. */
  take(): string[] {
    const written = this.written;
    this.written = [];
    return written;
  }

  /** Events of one kind, shortened to what tests compare. */
  outcomes(): string[] {
    return this.events.flatMap((event) => {
      if (event.kind !== "outcome") return [];
      const { outcome, clientMsgId } = event;
      return [`${clientMsgId} ${outcome.outcome === "failed" ? outcome.reason : outcome.outcome}`];
    });
  }

  texts(): string[] {
    return this.events.flatMap((event) => (event.kind === "message" ? [event.message.text] : []));
  }

  /** The last status. */
  status(): string {
    return this.statuses().at(-1) ?? "none";
  }

  statuses(): string[] {
    return this.events.flatMap((event) => {
      if (event.kind !== "status") return [];
      return ["reason" in event.status ? `${event.status.name} ${event.status.reason}` : event.status.name];
    });
  }
}
