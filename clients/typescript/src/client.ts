/**
 * The driver: does what the state machine says, over a WebSocket, with the clock and the chance of this
 * machine.
 */

import {
  Core,
  DEFAULTS,
  type CoreOptions,
  type Effect,
  type Outcome,
  type Status,
  type TokenReason,
} from "./core.js";
import { lifeOfToken } from "./token.js";
import { utf8, type Message, type Notice, type Recovery } from "./wire.js";

/** A user, a room, a number of 64 bits: a number only if it is exact, or its digits. */
export type Id = bigint | number | string;

/**
 * A token; with how long it is good if it is no JSON Web Token; or null: there is none, and the client is to
 * stop.
 */
export type TokenAnswer = string | { token: string; lifeMs: number } | null;

export interface ClientOptions extends Partial<Omit<CoreOptions, "urls">> {
  /** Where servers are, like `wss://im.example.com`. */
  url: string | readonly string[];
  /** Gives a token for a login, for a renewal while connected, or in place of one that was refused. */
  token: (reason: TokenReason) => TokenAnswer | Promise<TokenAnswer>;
  /** For Node: `NodeWebSocket` of `sailfish-client/node`. Default: that of the browser. */
  WebSocket?: WebSocketConstructor;
}

/** What is used of a WebSocket. */
export interface WebSocketLike {
  binaryType: string;
  readonly bufferedAmount: number;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: Uint8Array): void;
  close(code?: number): void;
}

export type WebSocketConstructor = new (url: string, protocol: string) => WebSocketLike;

export interface Outgoing {
  /** What it is; the server's table of routes says where it goes. */
  bizCode: number;
  /** The user or the room; 0 for none. */
  target: Id;
  payload: string | Uint8Array;
  /** Its name, if the application has one; else it gets one of its own. */
  clientMsgId?: string;
}

export interface Joined {
  room: bigint;
  /** The room's last message so far. */
  sequence: bigint;
  /** Whether all that was asked for is kept by the server; undefined if nothing was. */
  recovery: Recovery | undefined;
}

export type JoinResult =
  ({ outcome: "joined" } & Joined) | { outcome: "failed"; reason: "room_limit" | "stopped" | "left" };

/** A room has messages past `after`, up to `sequence`, that the server cannot give any more. */
export interface Gap {
  room: bigint;
  after: bigint;
  sequence: bigint;
}

/** What an application can listen to. */
export interface Events {
  /**
   * A message, once. It is acked when the listener has returned, and its promise, if it gives one, is
   * fulfilled.
   */
  message: (message: Message) => void | Promise<void>;
  status: (status: Status) => void;
  /** A room was joined: the first time, and after each reconnect. */
  joined: (joined: Joined) => void;
  gap: (gap: Gap) => void;
  notice: (notice: Notice) => void;
  /** A listener or the token provider failed. */
  error: (error: unknown) => void;
}

const SUBPROTOCOL = "sailfish.v1.binary";
/** Frames that are ready together leave in messages of about this size; the server takes 4 MiB. */
const WRITE_BYTES_MAX = 256 * 1024;
/** What waits in the socket before messages that may be lost are. */
const BUFFERED_BYTES_MAX = 1024 * 1024;
/** Timers of JavaScript have 31 bits. */
const TIMER_MS_MAX = 2 ** 31 - 1;

export class Client {
  private readonly core: Core;
  private readonly WebSocket: WebSocketConstructor;
  private readonly provider: ClientOptions["token"];
  private readonly listeners: { [Name in keyof Events]: Set<Events[Name]> } = {
    message: new Set(),
    status: new Set(),
    joined: new Set(),
    gap: new Set(),
    notice: new Set(),
    error: new Set(),
  };
  private readonly outcomes = new Map<string, (outcome: Outcome) => void>();
  private readonly joins = new Map<
    bigint,
    { result: Promise<JoinResult>; settle: (result: JoinResult) => void }
  >();
  private socket: WebSocketLike | undefined;
  private connection = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private isSettling = false;
  private currentStatus: Status = { name: "stopped", reason: "logout" };
  private readonly idPrefix = randomHex();
  private ids = 0;
  private readonly onOnline = () => this.run((now) => this.core.hurry(now));

  constructor(options: ClientOptions) {
    const { url, token, WebSocket, ...rest } = options;
    const own = WebSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
    if (own === undefined)
      throw new TypeError("no WebSocket here: pass one, such as NodeWebSocket of sailfish-client/node");
    this.WebSocket = own;
    this.provider = token;
    this.core = new Core({ ...DEFAULTS, ...rest, urls: typeof url === "string" ? [url] : url }, Math.random);
  }

  /** Connects, and stays connected until `stop`, or until the server says to stay away. */
  start(): void {
    listenToNetwork("addEventListener", this.onOnline);
    this.run((now) => this.core.start(now));
  }

  /** Logs out. Messages without an outcome fail as `stopped`. */
  stop(): void {
    this.run((now) => this.core.stop(now));
  }

  get status(): Status {
    return this.currentStatus;
  }

  /** How many messages wait for their outcome. */
  get unsent(): number {
    return this.core.unsent;
  }

  /** Calls `listener` from now on; the answer takes it off again. */
  on<Name extends keyof Events>(name: Name, listener: Events[Name]): () => void {
    this.listeners[name].add(listener);
    return () => this.listeners[name].delete(listener);
  }

  /**
   * Sends a message, over as many connections as it takes, and says what became of it. The promise is never
   * rejected: what fails has the outcome `failed`. It stays open for a message that has no send-ack by the
   * server's routes; use `sendLossy` for those.
   */
  send(message: Outgoing): Promise<Outcome> {
    const clientMsgId = message.clientMsgId ?? this.nextId();
    const target = toId(message.target);
    const payload = toBytes(message.payload);
    return new Promise((resolve, reject) => {
      this.run((now) => {
        try {
          this.core.send(checkBizCode(message.bizCode), target, clientMsgId, payload, now);
          this.outcomes.set(clientMsgId, resolve);
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  /** Sends a message that may be lost, such as a hint that somebody types. Answers false if it surely was. */
  sendLossy(message: Omit<Outgoing, "clientMsgId">): boolean {
    const { bizCode, target, payload } = message;
    if ((this.socket?.bufferedAmount ?? 0) > BUFFERED_BYTES_MAX) return false;
    return this.run((now) => this.core.sendLossy(checkBizCode(bizCode), toId(target), toBytes(payload), now));
  }

  /**
   * Joins a room and stays in it, over reconnects too; `last` asks for so many of its latest messages at
   * first.
   */
  join(room: Id, options: { last?: number } = {}): Promise<JoinResult> {
    const id = toId(room);
    const before = this.joins.get(id);
    if (before !== undefined) return before.result;
    let settle: (result: JoinResult) => void = () => {};
    const result = new Promise<JoinResult>((resolve) => (settle = resolve));
    this.joins.set(id, { result, settle });
    this.run((now) => this.core.join(id, options.last, now));
    return result;
  }

  leave(room: Id): void {
    const id = toId(room);
    this.joins.get(id)?.settle({ outcome: "failed", reason: "left" });
    this.joins.delete(id);
    this.run((now) => this.core.leave(id, now));
  }

  /** Gives the core an input, then does what it says. */
  private run<Answer>(input: (now: number) => Answer): Answer {
    const answer = input(performance.now());
    this.settle();
    return answer;
  }

  /**
   * Does all effects. An effect may call back into this client: what that adds is done by the loop that runs
   * already.
   */
  private settle(): void {
    if (this.isSettling) return;
    this.isSettling = true;
    try {
      for (;;) {
        const effects = this.core.takeEffects();
        if (effects.length > 0) this.perform(effects);
        else if ((this.core.deadline() ?? Infinity) > performance.now()) break;
        else this.core.wake(performance.now());
      }
    } finally {
      this.isSettling = false;
    }
    clearTimeout(this.timer);
    const deadline = this.core.deadline();
    if (deadline === undefined) return;
    const inMs = Math.min(Math.max(deadline - performance.now(), 0), TIMER_MS_MAX);
    this.timer = setTimeout(() => this.run((now) => this.core.wake(now)), Math.ceil(inMs));
  }

  private perform(effects: Effect[]): void {
    let writes: Uint8Array[] = [];
    const flush = () => {
      if (writes.length > 0) this.socket?.send(concat(writes));
      writes = [];
    };
    let bytes = 0;
    for (const effect of effects) {
      if (effect.kind === "write") {
        if (effect.connection !== this.connection) continue;
        if (bytes > 0 && bytes + effect.bytes.length > WRITE_BYTES_MAX) {
          flush();
          bytes = 0;
        }
        writes.push(effect.bytes);
        bytes += effect.bytes.length;
        continue;
      }
      // A close comes after what was written before it.
      if (effect.kind === "close") flush();
      this.performOne(effect);
    }
    flush();
  }

  private performOne(effect: Exclude<Effect, { kind: "write" }>): void {
    switch (effect.kind) {
      case "token":
        return void this.getToken(effect.request, effect.reason);
      case "connect":
        return this.connect(effect.connection, effect.url);
      case "close":
        if (effect.connection === this.connection) this.closeSocket();
        return;
      case "message":
        return void this.showMessage(effect.message);
      case "outcome":
        this.outcomes.get(effect.clientMsgId)?.(effect.outcome);
        this.outcomes.delete(effect.clientMsgId);
        return;
      case "joined": {
        const { room, sequence, recovery } = effect;
        this.joins.get(room)?.settle({ outcome: "joined", room, sequence, recovery });
        return this.emit("joined", { room, sequence, recovery });
      }
      case "not_joined":
        this.joins.get(effect.room)?.settle({ outcome: "failed", reason: effect.reason });
        this.joins.delete(effect.room);
        return;
      case "gap":
        return this.emit("gap", { room: effect.room, after: effect.after, sequence: effect.sequence });
      case "notice":
        return this.emit("notice", effect.notice);
      case "status":
        this.currentStatus = effect.status;
        if (effect.status.name === "stopped") {
          listenToNetwork("removeEventListener", this.onOnline);
          this.joins.clear();
        }
        return this.emit("status", effect.status);
    }
  }

  private connect(connection: number, url: string): void {
    this.closeSocket();
    this.connection = connection;
    let socket: WebSocketLike;
    try {
      socket = new this.WebSocket(url, SUBPROTOCOL);
    } catch (error) {
      // An address that is none, or one that this page may not use.
      this.emit("error", error);
      this.core.closed(connection, 0, performance.now());
      return;
    }
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.run((now) => this.core.opened(connection, now));
    socket.onmessage = ({ data }: { data: unknown }) => {
      // A text is no frame, and is taken for one that is wrong.
      const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(16);
      this.run((now) => this.core.bytes(connection, bytes, now));
    };
    const onClosed = (code: number) => this.run((now) => this.core.closed(connection, code, now));
    socket.onclose = ({ code }: { code: number }) => onClosed(code);
    // A close with its code follows at once, but in some Nodes not after a connection that was refused.
    socket.onerror = () => setTimeout(() => onClosed(0), 0);
  }

  private closeSocket(): void {
    const socket = this.socket;
    if (socket === undefined) return;
    this.socket = undefined;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // The onerror stays: closing a socket that is not open yet is an error to some.
    socket.close(1000);
  }

  private async getToken(request: number, reason: TokenReason): Promise<void> {
    try {
      const answer = await this.provider(reason);
      const token = answer === null || typeof answer === "string" ? answer : answer.token;
      const lifeMs =
        answer !== null && typeof answer !== "string" ? answer.lifeMs : lifeOfToken(token, Date.now());
      this.run((now) => this.core.tokenGiven(request, token, lifeMs, now));
    } catch (error) {
      this.run((now) => this.core.tokenFailed(request, now));
      this.emit("error", error);
    }
  }

  private showMessage(message: Message): void {
    const promises: Promise<void>[] = [];
    try {
      for (const listener of this.listeners.message) {
        const promise = listener(message);
        if (promise !== undefined) promises.push(promise);
      }
    } catch (error) {
      this.core.handled(message, false, performance.now());
      this.emit("error", error);
      return;
    }
    if (promises.length === 0) return this.core.handled(message, true, performance.now());
    Promise.all(promises).then(
      () => this.run((now) => this.core.handled(message, true, now)),
      (error: unknown) => {
        this.run((now) => this.core.handled(message, false, now));
        this.emit("error", error);
      },
    );
  }

  private emit<Name extends Exclude<keyof Events, "message">>(
    name: Name,
    value: Parameters<Events[Name]>[0],
  ): void {
    if (name === "error" && this.listeners.error.size === 0) console.error("sailfish:", value);
    for (const listener of this.listeners[name]) {
      try {
        (listener as (value: unknown) => void)(value);
      } catch (error) {
        if (name === "error") console.error("sailfish:", error);
        else this.emit("error", error);
      }
    }
  }

  private nextId(): string {
    this.ids += 1;
    return `${this.idPrefix}-${this.ids}`;
  }
}

function toId(id: Id): bigint {
  if (typeof id === "number" && !Number.isSafeInteger(id))
    throw new RangeError(`${id} is no exact whole number`);
  const value = BigInt(id);
  if (BigInt.asIntN(64, value) !== value) throw new RangeError(`${id} has more than 64 bits`);
  return value;
}

function toBytes(payload: string | Uint8Array): Uint8Array {
  return typeof payload === "string" ? utf8(payload) : payload;
}

function checkBizCode(bizCode: number): number {
  if ((bizCode | 0) !== bizCode) throw new RangeError(`a bizCode has 32 bits, unlike ${bizCode}`);
  return bizCode;
}

function concat(parts: Uint8Array[]): Uint8Array {
  const [first] = parts;
  if (first !== undefined && parts.length === 1) return first;
  const whole = new Uint8Array(parts.reduce((bytes, part) => bytes + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/**
 * 80 bits, so that no two clients give their messages the same names. Not all pages and Nodes have
 * `randomUUID`.
 */
function randomHex(): string {
  const bytes = new Uint8Array(10);
  const crypto = (globalThis as { crypto?: { getRandomValues(bytes: Uint8Array): void } }).crypto;
  if (crypto !== undefined) crypto.getRandomValues(bytes);
  else bytes.forEach((_, index) => (bytes[index] = Math.floor(Math.random() * 256)));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A browser says when its network is back. */
function listenToNetwork(method: "addEventListener" | "removeEventListener", listener: () => void): void {
  const page = globalThis as { [key in typeof method]?: (name: string, listener: () => void) => void };
  page[method]?.("online", listener);
}
