/**
 * The client's state machine. It does no I/O and knows no clock: a driver hands it bytes, ends of
 * connections, tokens and the time, and does the effects that it makes. The same inputs give the same
 * effects, so tests run it with time that jumps.
 *
 * A driver calls one input at a time, then does all of `takeEffects()` in their order, then sets one timer
 * for `deadline()` and calls `wake` when it is due (or later, or earlier: nothing happens before its time).
 * Times are ms of any clock that only goes up.
 */

import { Backoff, nominalMs } from "./backoff.js";
import { Outbox, type Unsent } from "./outbox.js";
import { Received, type Receipt } from "./received.js";
import { Rooms } from "./rooms.js";
import {
  ACK_IDS_MAX,
  CLIENT_MSG_ID_BYTES_MAX,
  DecodeError,
  FrameReader,
  HEADER_BYTES,
  NOTICES,
  REASONS,
  TOKEN_BYTES_MAX,
  encode,
  utf8,
  type Message,
  type Notice,
  type NoticeName,
  type Reason,
  type Recovery,
  type ServerFrame,
} from "./wire.js";

export interface CoreOptions {
  /** Where servers are, as `ws://` or `wss://` addresses; they are tried in turns. */
  urls: readonly string[];
  /** The first wait before a reconnect; it doubles up to 20 times as much. */
  backoffMs: number;
  /** How long a connection may take to open, a login to be answered, a logout to be done. */
  connectTimeoutMs: number;
  /** How long a message waits for its outcome before it is sent again on the same connection. */
  repeatMs: number;
  /** The first wait of a message that the server refused as busy; it doubles up to 20 times as much. */
  busyMs: number;
  /** How many messages without an outcome are kept, and how many bytes of them. */
  storeMessagesMax: number;
  storeBytesMax: number;
  /** How many messages are remembered to tell repeats. */
  rememberMax: number;
  /** The server's limit of a frame's body. */
  frameBytesMax: number;
  /** How many frames a second go out at most; twice as many at once. */
  framesPerSecondMax: number;
  /** Whether the server has room history. */
  history: boolean;
}

export const DEFAULTS: Omit<CoreOptions, "urls"> = {
  backoffMs: 500,
  connectTimeoutMs: 10_000,
  repeatMs: 65_000,
  busyMs: 1_000,
  storeMessagesMax: 1_000,
  storeBytesMax: 4 * 1024 * 1024,
  rememberMax: 10_000,
  frameBytesMax: 64 * 1024,
  framesPerSecondMax: 500,
  history: true,
};

/** Why a client has no connection and wants none. */
export type StopReason = "logout" | "kicked" | "no_token" | "refused";

export type Status =
  | { name: "stopped"; reason: StopReason }
  | { name: "connecting" }
  | { name: "online" }
  | { name: "waiting"; reason: LossReason; retryInMs: number };

/** Why a connection ended, or did not come about. */
export type LossReason = NoticeName | "closed" | "silent" | "timeout" | "garbage" | "token_failed";

/** What became of a message. */
export type Outcome =
  | { outcome: "delivered" | "stored" | "answered"; messageId: bigint }
  | { outcome: "sequenced"; messageId: bigint; sequence: bigint }
  | { outcome: "failed"; reason: FailReason; messageId: bigint };

/** The server's reasons, and two of this client: its store is full, it was stopped. */
export type FailReason = Reason | "store_full" | "stopped";

/** Why a token is asked for. */
export type TokenReason = "login" | "renew" | "refused";

export type Effect =
  | { kind: "token"; request: number; reason: TokenReason }
  | { kind: "connect"; connection: number; url: string }
  | { kind: "write"; connection: number; bytes: Uint8Array }
  | { kind: "close"; connection: number }
  | { kind: "status"; status: Status }
  | { kind: "message"; message: Message }
  | { kind: "outcome"; clientMsgId: string; outcome: Outcome }
  | { kind: "joined"; room: bigint; sequence: bigint; recovery: Recovery | undefined }
  | { kind: "gap"; room: bigint; after: bigint; sequence: bigint }
  | { kind: "not_joined"; room: bigint; reason: "room_limit" | "stopped" }
  | { kind: "notice"; notice: Notice };

type Phase =
  | { name: "stopped"; reason: StopReason }
  /** `isBound`: the server said when to come back, so it is not to be sooner. */
  | { name: "waiting"; untilMs: number; isBound: boolean }
  /** The application's provider is asked for a token. */
  | { name: "token"; untilMs: number }
  /** A connection is dialled, then logged in on. */
  | { name: "connecting"; untilMs: number }
  | { name: "login"; untilMs: number }
  | { name: "online" }
  /** Logged out; the server closes. */
  | { name: "leaving"; untilMs: number };

/** A timer that is so late was not late because of the server: the device slept, or the page was frozen. */
const LATE_MS = 2_000;
/** How long a server has to answer after such a sleep. */
const PROBE_MS_MAX = 5_000;
/** How long a provider has for a token. */
const TOKEN_TIMEOUT_MS = 30_000;
const HEARTBEAT_MS_MIN = 50;
/** A renewal comes when this part of a token's life is left, or this much of it if that is less. */
const RENEW_PART = 0.25;
const RENEW_MS_MAX = 60_000;
/** Renewals are so far apart at least, however short tokens live. */
const RENEW_MS_MIN = 1_000;
/** How often a message that is not welcome in its room is tried again before it fails. */
const NOT_MEMBER_TRIES = 5;

/** Frames that a client who did something wrong gets; the same again would be wrong again. */
const FATAL: ReadonlySet<NoticeName> = new Set([
  "bad_magic",
  "bad_code",
  "bad_length",
  "bad_body",
  "login_required",
  "already_logged_in",
]);

export class Core {
  private readonly options: CoreOptions;
  private effects: Effect[] = [];
  private phase: Phase = { name: "stopped", reason: "logout" };
  private now = 0;

  /** Each connection has a number, so that what comes late of an old one is known. */
  private connection = 0;
  private reader = new FrameReader();
  private readonly backoff: Backoff;
  /** Where to try next, in this order; when it is empty, `homeAddresses`. */
  private addresses: string[] = [];
  private address = "";
  /** Where the last login was answered. */
  private goodAddress = "";
  private status: Status["name"] = "stopped";

  private token: { text: string; renewMs: number } | undefined;
  private tokenRequest = 0;
  private tokenReason: TokenReason = "login";
  private readonly renewBackoff: Backoff;
  private isRenewing = false;
  private renewMs = Infinity;

  private heartbeatMs = 30_000;
  private sentMs = 0;
  private heardMs = 0;
  /** Until when the server has to say something, while a heartbeat is not answered. */
  private probeMs = Infinity;

  private readonly outbox: Outbox;
  private readonly received: Received;
  private readonly rooms: Rooms;
  private acks: bigint[] = [];
  /** When `flush` has something to do that waits for its time. */
  private flushMs = Infinity;

  /** How many frames may go out at once, as of `allowanceMs`. */
  private allowance: number;
  private allowanceMs = 0;
  private framesPerSecond: number;

  /** `random` gives numbers from 0 to below 1. */
  constructor(options: Partial<CoreOptions> & Pick<CoreOptions, "urls">, random: () => number) {
    this.options = { ...DEFAULTS, ...options };
    const { backoffMs, storeMessagesMax, storeBytesMax, rememberMax, framesPerSecondMax } = this.options;
    if (this.options.urls.length === 0) throw new TypeError("a client needs an address");
    this.backoff = new Backoff(backoffMs, random);
    this.renewBackoff = new Backoff(1_000, random);
    this.outbox = new Outbox(storeMessagesMax, storeBytesMax);
    this.received = new Received(rememberMax);
    this.rooms = new Rooms(this.options.history, random);
    this.framesPerSecond = framesPerSecondMax;
    this.allowance = framesPerSecondMax * 2;
  }

  // What the driver asks.

  /** What is to be done, in this order; each is handed out once. */
  takeEffects(): Effect[] {
    const effects = this.effects;
    this.effects = [];
    return effects;
  }

  /** When `wake` is to be called at the latest; undefined for never. */
  deadline(): number | undefined {
    const at =
      this.phase.name === "online"
        ? this.onlineDeadline()
        : "untilMs" in this.phase
          ? this.phase.untilMs
          : Infinity;
    return at === Infinity ? undefined : at;
  }

  /** How many messages have no outcome yet. */
  get unsent(): number {
    return this.outbox.size;
  }

  // What the application wants.

  /** Connects, and stays connected. Does nothing while it does so already. */
  start(now: number): void {
    this.now = now;
    if (this.phase.name !== "stopped") return;
    this.backoff.reset();
    this.addresses = [];
    this.tokenReason = "login";
    this.askOrConnect();
  }

  /** Logs out and stops. Messages without an outcome fail as `stopped`. */
  stop(now: number): void {
    this.now = now;
    switch (this.phase.name) {
      case "stopped":
      case "leaving":
        return;
      case "online":
        this.flushAcks();
        this.write(encode.logout());
        this.phase = { name: "leaving", untilMs: now + Math.min(this.options.connectTimeoutMs, 2_000) };
        return;
      default:
        this.end("logout");
    }
  }

  /**
   * Sends a message, and again until it has an outcome. One that is too long for any server, or for which the
   * store has no room, has the outcome `failed` at once. Throws if the id is in use or too long, which is a
   * mistake of the caller.
   */
  send(bizCode: number, target: bigint, clientMsgId: string, payload: Uint8Array, now: number): void {
    this.now = now;
    const idBytes = utf8(clientMsgId).length;
    if (idBytes === 0 || idBytes > CLIENT_MSG_ID_BYTES_MAX) {
      throw new RangeError(`a clientMsgId has 1 to ${CLIENT_MSG_ID_BYTES_MAX} bytes, not ${idBytes}`);
    }
    if (this.outbox.has(clientMsgId)) throw new RangeError(`the clientMsgId ${clientMsgId} is in use`);
    const frame = encode.business(bizCode, target, clientMsgId, payload);
    if (frame.length - HEADER_BYTES > this.options.frameBytesMax) return this.refuse(clientMsgId, "too_long");
    if (!this.outbox.add(clientMsgId, target, frame)) return this.refuse(clientMsgId, "store_full");
    this.flush();
  }

  /** Sends a message once, without a name, if that can be done right away; answers whether it was. */
  sendLossy(bizCode: number, target: bigint, payload: Uint8Array, now: number): boolean {
    this.now = now;
    const frame = encode.business(bizCode, target, "", payload);
    if (frame.length - HEADER_BYTES > this.options.frameBytesMax) return false;
    if (this.phase.name !== "online" || this.rooms.isAwaited(target) || !this.mayWrite()) return false;
    this.write(frame);
    return true;
  }

  /** Joins a room, and again after each reconnect. `last` asks for so many of its latest messages. */
  join(room: bigint, last: number | undefined, now: number): void {
    this.now = now;
    this.rooms.add(room, last);
    this.flush();
  }

  leave(room: bigint, now: number): void {
    this.now = now;
    this.rooms.remove(room);
    if (this.phase.name === "online") this.write(encode.leave(room));
    this.flush();
  }

  /** The application has a message safe, or could not take it: then a repeat of it is shown again. */
  handled(message: Message, isSafe: boolean, now: number): void {
    this.now = now;
    const receipt = this.received.repeat(message);
    if (receipt === undefined || receipt.isHandled) return;
    if (!isSafe) return this.received.forget(message);
    receipt.isHandled = true;
    this.acks.push(...receipt.toAck);
    receipt.toAck = [];
    if (this.acks.length >= ACK_IDS_MAX) this.flushAcks();
  }

  /**
   * The network is said to be back, or to have changed: what is waited for is tried at once, and a live
   * connection is tested.
   */
  hurry(now: number): void {
    this.now = now;
    if (this.phase.name === "waiting" && !this.phase.isBound) this.askOrConnect();
    else if (this.phase.name === "online" && this.probeMs === Infinity) {
      this.probe(Math.min(this.heartbeatMs, PROBE_MS_MAX));
    }
  }

  // What happens.

  /**
   * A provider's answer to a request; `lifeMs` is how long the token is good, if that is known. Null: there
   * is none, and will be none.
   */
  tokenGiven(request: number, token: string | null, lifeMs: number | undefined, now: number): void {
    this.now = now;
    if (request !== this.tokenRequest) return;
    this.tokenRequest += 1;
    if (token === null) {
      if (this.isRenewing) this.renewMs = Infinity;
      this.isRenewing = false;
      if (this.phase.name === "token") this.end("no_token");
      return;
    }
    if (utf8(token).length > TOKEN_BYTES_MAX) return this.tokenHasFailed();
    // A token that seems to be over already shows that the clock here is wrong: the server will say when it
    // is.
    const life = lifeMs === undefined || lifeMs <= 0 ? Infinity : lifeMs;
    const left = Math.min(life * RENEW_PART, RENEW_MS_MAX);
    this.token = { text: token, renewMs: now + Math.max(life - left, RENEW_MS_MIN) };
    this.tokenReason = "login";
    if (this.phase.name === "token") this.connect();
    else if (this.phase.name === "online" && this.isRenewing) {
      this.write(encode.login(token));
      this.isRenewing = false;
      this.renewBackoff.reset();
      this.renewMs = this.token.renewMs;
    }
  }

  /** A provider failed. */
  tokenFailed(request: number, now: number): void {
    this.now = now;
    if (request !== this.tokenRequest) return;
    this.tokenRequest += 1;
    this.tokenHasFailed();
  }

  /** A connection is open. */
  opened(connection: number, now: number): void {
    this.now = now;
    if (connection !== this.connection || this.phase.name !== "connecting" || this.token === undefined)
      return;
    this.phase = { name: "login", untilMs: now + this.options.connectTimeoutMs };
    this.write(encode.login(this.token.text));
  }

  /** Bytes came. */
  bytes(connection: number, bytes: Uint8Array, now: number): void {
    this.now = now;
    if (!this.isLive(connection)) return;
    this.heardMs = now;
    this.probeMs = Infinity;
    try {
      for (const frame of this.reader.push(bytes)) {
        this.frame(frame);
        // The end of a connection is the end of what it says.
        if (!this.isLive(connection)) return;
      }
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      return this.lose("garbage", 0);
    }
    this.flush();
  }

  /**
   * A connection has ended, or could not be opened. A server's code of 4000 and more stands for the notice of
   * that number.
   */
  closed(connection: number, code: number, now: number): void {
    this.now = now;
    if (!this.isLive(connection)) return;
    if (this.phase.name === "leaving") return this.end("logout");
    const name = (NOTICES as Record<number, NoticeName>)[code - 4000];
    if (name === undefined) return this.lose("closed", 0);
    this.endOfConnection({ code: code - 4000, name, retryAfterMs: 0, text: "", alternatives: [] });
  }

  /** Time has passed. */
  wake(now: number): void {
    this.now = now;
    if (this.phase.name === "online") return this.wakeOnline();
    if (!("untilMs" in this.phase) || now < this.phase.untilMs) return;
    switch (this.phase.name) {
      case "waiting":
        return this.askOrConnect();
      case "token":
        this.tokenRequest += 1;
        return this.tokenHasFailed();
      case "connecting":
      case "login":
        return this.lose("timeout", 0);
      case "leaving":
        return this.end("logout");
    }
  }

  // Connections.

  private isLive(connection: number): boolean {
    if (connection !== this.connection) return false;
    return ["connecting", "login", "online", "leaving"].includes(this.phase.name);
  }

  private askOrConnect(): void {
    if (this.token !== undefined && this.now < this.token.renewMs) return this.connect();
    this.phase = { name: "token", untilMs: this.now + TOKEN_TIMEOUT_MS };
    this.tell({ name: "connecting" });
    this.askToken(this.tokenReason);
  }

  private askToken(reason: TokenReason): void {
    this.tokenRequest += 1;
    this.effects.push({ kind: "token", request: this.tokenRequest, reason });
  }

  private connect(): void {
    if (this.addresses.length === 0) this.addresses = this.homeAddresses();
    this.address = this.addresses.shift() ?? "";
    this.connection += 1;
    this.reader = new FrameReader();
    this.phase = { name: "connecting", untilMs: this.now + this.options.connectTimeoutMs };
    this.tell({ name: "connecting" });
    this.effects.push({ kind: "connect", connection: this.connection, url: this.address });
  }

  /** Where it was logged in last, which may be an alternative, then what it was given. */
  private homeAddresses(): string[] {
    const good = this.goodAddress === "" ? [] : [this.goodAddress];
    return [...new Set([...good, ...this.options.urls])];
  }

  private loggedIn(heartbeatMs: number): void {
    if (this.phase.name !== "login") return;
    this.phase = { name: "online" };
    this.heartbeatMs = Math.max(heartbeatMs, HEARTBEAT_MS_MIN);
    this.backoff.reset();
    this.addresses = [];
    this.goodAddress = this.address;
    this.probeMs = Infinity;
    this.isRenewing = false;
    this.renewMs = this.token?.renewMs ?? Infinity;
    this.tell({ name: "online" });
  }

  /** The connection is gone, or no use; there will be another after a wait of `retryAfterMs` at least. */
  private lose(reason: LossReason, retryAfterMs: number): void {
    this.drop();
    const waitMs = Math.max(this.backoff.next(), retryAfterMs);
    this.phase = { name: "waiting", untilMs: this.now + waitMs, isBound: retryAfterMs > 0 };
    this.tell({ name: "waiting", reason, retryInMs: waitMs });
  }

  /** Ends for good, or until the application starts it again. */
  private end(reason: StopReason): void {
    this.drop();
    this.phase = { name: "stopped", reason };
    for (const { clientMsgId } of [...this.outbox.all()]) {
      this.outbox.remove(clientMsgId);
      this.refuse(clientMsgId, "stopped");
    }
    for (const room of this.rooms.clear()) this.effects.push({ kind: "not_joined", room, reason: "stopped" });
    this.token = undefined;
    this.tell({ name: "stopped", reason });
  }

  private drop(): void {
    if (this.isLive(this.connection)) this.effects.push({ kind: "close", connection: this.connection });
    this.connection += 1;
    this.tokenRequest += 1;
    this.isRenewing = false;
    this.acks = [];
    this.outbox.disconnected();
    this.rooms.disconnected();
    this.flushMs = Infinity;
  }

  private tokenHasFailed(): void {
    if (this.phase.name === "token") return this.lose("token_failed", 0);
    if (!this.isRenewing) return;
    this.isRenewing = false;
    this.renewMs = this.now + this.renewBackoff.next();
  }

  // Frames.

  private frame(frame: ServerFrame): void {
    switch (frame.kind) {
      case "logged_in":
        return this.loggedIn(frame.heartbeatMs);
      case "logged_out":
        return this.phase.name === "leaving" ? this.end("logout") : this.lose("closed", 0);
      case "message":
        return this.message(frame.message, frame.wantsAck);
      case "heartbeat":
        this.framesPerSecond = Math.min(this.framesPerSecond * 1.1, this.options.framesPerSecondMax);
        return this.rooms.settled();
      case "send_ack":
        return this.sendAck(frame);
      case "notice":
        return this.notice(frame.notice);
      case "joined":
        return this.joined(frame.room, frame.sequence, frame.recovery);
      case "left":
        return;
    }
  }

  private message(message: Message, wantsAck: boolean): void {
    if (message.room !== undefined && message.sequence !== undefined) {
      this.rooms.saw(message.room, message.sequence, this.now);
      this.flushMs = Math.min(this.flushMs, this.rooms.deadline());
    }
    const before = this.received.repeat(message);
    const receipt: Receipt = before ?? this.received.add(message);
    if (wantsAck) {
      if (receipt.isHandled) this.acks.push(message.messageId);
      else receipt.toAck.push(message.messageId);
    }
    if (before === undefined) this.effects.push({ kind: "message", message });
  }

  private joined(room: bigint, sequence: bigint, recovery: Recovery | undefined): void {
    const answer = this.rooms.joined(room, sequence, recovery);
    if (answer === undefined) return;
    if (!answer.isAgain || recovery === "too_old")
      this.effects.push({ kind: "joined", room, sequence, recovery });
    if (answer.gapAfter !== undefined)
      this.effects.push({ kind: "gap", room, after: answer.gapAfter, sequence });
  }

  private sendAck(ack: ServerFrame & { kind: "send_ack" }): void {
    const message = this.outbox.get(ack.clientMsgId);
    if (message === undefined) return;
    const { messageId } = ack;
    if (ack.outcome !== "failed") {
      const outcome: Outcome =
        ack.outcome === "sequenced"
          ? { outcome: "sequenced", messageId, sequence: ack.detail }
          : { outcome: ack.outcome, messageId };
      this.outbox.remove(ack.clientMsgId);
      this.effects.push({ kind: "outcome", clientMsgId: ack.clientMsgId, outcome });
      return;
    }
    const reason = (REASONS as Record<string, Reason>)[String(ack.detail)] ?? "unknown";
    if (reason === "busy") return this.sendLater(message);
    const isToOwnRoom = reason === "not_member" && this.rooms.has(message.target);
    if (isToOwnRoom && message.refusals < NOT_MEMBER_TRIES) {
      this.rooms.joinAgain(message.target);
      return this.sendLater(message);
    }
    this.outbox.remove(ack.clientMsgId);
    this.effects.push({
      kind: "outcome",
      clientMsgId: ack.clientMsgId,
      outcome: { outcome: "failed", reason, messageId },
    });
  }

  private sendLater(message: Unsent): void {
    message.sentOn = 0;
    message.dueMs = this.now + nominalMs(this.options.busyMs, message.refusals);
    message.refusals += 1;
  }

  private refuse(clientMsgId: string, reason: FailReason): void {
    this.effects.push({
      kind: "outcome",
      clientMsgId,
      outcome: { outcome: "failed", reason, messageId: 0n },
    });
  }

  private notice(notice: Notice): void {
    this.effects.push({ kind: "notice", notice });
    if (notice.code < 100) return this.endOfConnection(notice);
    if (notice.name === "busy") this.rooms.refusedForNow(this.now, this.options.busyMs);
    if (notice.name === "room_limit") {
      const room = this.rooms.refused();
      if (room !== undefined) this.effects.push({ kind: "not_joined", room, reason: "room_limit" });
    }
  }

  /** A notice below 100: the server closes. */
  private endOfConnection(notice: Notice): void {
    if (this.phase.name === "leaving") return this.end("logout");
    if (notice.name === "kicked") return this.end("kicked");
    const isOfOldServer = notice.name === "bad_body" && this.rooms.doWithoutHistory();
    if (FATAL.has(notice.name) && !isOfOldServer) return this.end("refused");
    if (notice.name === "token_expired" || notice.name === "token_invalid") {
      this.token = undefined;
      this.tokenReason = "refused";
    }
    if (notice.name === "rate_limited") this.framesPerSecond = Math.max(this.framesPerSecond / 2, 10);
    if (notice.alternatives.length > 0) {
      const alternatives = notice.alternatives
        .map((host) => atHost(this.address, host))
        .filter((url) => url !== undefined);
      this.addresses = [...new Set([...alternatives, this.address, ...this.homeAddresses()])];
    }
    this.lose(notice.name, notice.retryAfterMs);
  }

  // What goes out while it is online.

  private onlineDeadline(): number {
    if (this.acks.length > 0) return this.now;
    const beatMs = this.probeMs === Infinity ? this.quietMs() : this.probeMs;
    return Math.min(beatMs, this.renewMs, this.flushMs);
  }

  /**
   * When a heartbeat is due: a period after the last frame either way, as a client that only sends would not
   * notice a silent server.
   */
  private quietMs(): number {
    return Math.min(this.sentMs, this.heardMs) + this.heartbeatMs;
  }

  private wakeOnline(): void {
    if (this.now >= this.probeMs) {
      if (this.now - this.probeMs <= LATE_MS) return this.lose("silent", 0);
      this.probe(Math.min(this.heartbeatMs, PROBE_MS_MAX));
    }
    if (this.probeMs === Infinity && this.now >= this.quietMs()) this.probe(this.heartbeatMs);
    if (this.now >= this.renewMs && !this.isRenewing) {
      this.isRenewing = true;
      this.renewMs = this.now + TOKEN_TIMEOUT_MS;
      this.askToken("renew");
    } else if (this.now >= this.renewMs) {
      this.tokenRequest += 1;
      this.tokenHasFailed();
    }
    this.flushAcks();
    this.flush();
  }

  /** Asks the server for a sign of life. */
  private probe(withinMs: number): void {
    this.write(encode.heartbeat());
    this.rooms.probed();
    this.probeMs = this.now + withinMs;
  }

  /** Writes what may go out: joins, then messages in the order in which they were first sent. */
  private flush(): void {
    if (this.phase.name !== "online") return;
    for (const { room, want } of this.rooms.toJoin(this.now)) this.write(encode.join(room, want));
    this.flushMs = this.rooms.deadline();
    /** Targets of messages that wait for their turn: what was sent after them does not overtake them. */
    const held = new Set<bigint>();
    for (const message of this.outbox.all()) {
      if (message.dueMs > this.now) {
        this.flushMs = Math.min(this.flushMs, message.dueMs);
        if (message.sentOn === 0) held.add(message.target);
        continue;
      }
      if (held.has(message.target) || this.rooms.isAwaited(message.target)) continue;
      if (!this.mayWrite()) {
        this.flushMs = Math.min(this.flushMs, this.now + 1_000 / this.framesPerSecond);
        return;
      }
      message.sentOn = this.connection;
      message.dueMs = this.now + this.options.repeatMs;
      this.flushMs = Math.min(this.flushMs, message.dueMs);
      this.write(message.frame);
    }
  }

  private flushAcks(): void {
    if (this.phase.name !== "online") return;
    for (let from = 0; from < this.acks.length; from += ACK_IDS_MAX) {
      this.write(encode.ack(this.acks.slice(from, from + ACK_IDS_MAX)));
    }
    this.acks = [];
  }

  private mayWrite(): boolean {
    const perSecond = this.framesPerSecond;
    const earned = ((this.now - this.allowanceMs) / 1_000) * perSecond;
    this.allowance = Math.min(this.allowance + earned, perSecond * 2);
    this.allowanceMs = this.now;
    if (this.allowance < 1) return false;
    this.allowance -= 1;
    return true;
  }

  private write(bytes: Uint8Array): void {
    this.sentMs = this.now;
    this.effects.push({ kind: "write", connection: this.connection, bytes });
  }

  private tell(status: Status): void {
    if (status.name === this.status) return;
    this.status = status.name;
    this.effects.push({ kind: "status", status });
  }
}

/** The same address at another `host:port`; undefined if that is none. */
function atHost(url: string, host: string): string | undefined {
  const parts = /^(wss?:\/\/)[^/?#]*(.*)$/i.exec(url);
  if (parts === null || !/^[^\s/?#@]+:\d{1,5}$/.test(host)) return undefined;
  return `${parts[1]}${host}${parts[2]}`;
}
