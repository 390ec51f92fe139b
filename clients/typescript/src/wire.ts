/**
 * Frames in their binary form, as docs/PROTOCOL.md has them in sections 1, 2 and 8. Every number is big-
 * endian; what has 64 bits is a bigint, since a number of JavaScript is exact below 2^53 only, and a text of
 * digits would sort "9" above "10".
 */

export const MAGIC = 0x5346;
export const HEADER_BYTES = 10;
/** The most that a frame's body may say to have; a longer one is garbage. */
export const BODY_BYTES_MAX = 4 * 1024 * 1024;
export const CLIENT_MSG_ID_BYTES_MAX = 64;
export const TOKEN_BYTES_MAX = 4096;
export const ACK_IDS_MAX = 128;

export const Code = {
  login: 1001,
  logout: 1002,
  business: 1003,
  heartbeat: 1004,
  ack: 1005,
  sendAck: 1006,
  notice: 1007,
  join: 1010,
  leave: 1011,
} as const;

/** What a server has to say at the end of a connection (below 100) or on it. */
export const NOTICES = {
  1: "kicked",
  2: "draining",
  3: "rate_limited",
  4: "idle_timeout",
  5: "slow_reader",
  10: "bad_magic",
  11: "bad_code",
  12: "bad_length",
  13: "bad_body",
  20: "login_required",
  21: "login_timeout",
  22: "token_invalid",
  23: "token_expired",
  24: "already_logged_in",
  30: "address_limit",
  31: "server_full",
  100: "not_member",
  101: "no_route",
  102: "room_limit",
  103: "busy",
  104: "too_long",
  105: "bad_content",
} as const;

export type NoticeName = (typeof NOTICES)[keyof typeof NOTICES] | "unknown";

/** Why a message failed, by the server's word. */
export const REASONS = {
  1: "offline",
  2: "unacked",
  3: "disconnected",
  4: "overflow",
  5: "not_member",
  6: "no_route",
  7: "busy",
  8: "too_long",
  9: "bad_content",
} as const;

export type Reason = (typeof REASONS)[keyof typeof REASONS] | "unknown";

export const OUTCOMES = { 1: "delivered", 2: "stored", 3: "sequenced", 4: "answered", 5: "failed" } as const;

export interface Message {
  readonly bizCode: number;
  /** The server's name for the message, the same on every repeat. */
  readonly messageId: bigint;
  /** The user who sent it; 0 is the backend. */
  readonly sender: bigint;
  /** The sender's name for it; empty if it gave none. */
  readonly clientMsgId: string;
  /** The room it was sent to; undefined if it was sent to this user. */
  readonly room: bigint | undefined;
  /** Its place in the room's order. */
  readonly sequence: bigint | undefined;
  readonly payload: Uint8Array;
  /** The payload as text; what is no UTF-8 becomes U+FFFD. */
  readonly text: string;
}

export interface Notice {
  readonly code: number;
  readonly name: NoticeName;
  readonly retryAfterMs: number;
  /** A line for people. */
  readonly text: string;
  /** Other nodes that take this client, as `host:port`. */
  readonly alternatives: readonly string[];
}

export type Recovery = "complete" | "too_old";

export type ServerFrame =
  | { kind: "logged_in"; heartbeatMs: number }
  | { kind: "logged_out" }
  | { kind: "message"; message: Message; wantsAck: boolean }
  | { kind: "heartbeat" }
  | {
      kind: "send_ack";
      outcome: (typeof OUTCOMES)[keyof typeof OUTCOMES];
      detail: bigint;
      messageId: bigint;
      clientMsgId: string;
    }
  | { kind: "notice"; notice: Notice }
  | { kind: "joined"; room: bigint; sequence: bigint; recovery: Recovery | undefined }
  | { kind: "left"; room: bigint };

/** Bytes that are no frame of the protocol. */
export class DecodeError extends Error {
  override name = "DecodeError";
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const strictDecoder = new TextDecoder("utf-8", { fatal: true });

export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

/** Which messages a join asks for besides those to come. */
export type Want = { since: bigint } | { last: bigint } | undefined;

function frame(code: number, bodyBytes: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(HEADER_BYTES + bodyBytes);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, MAGIC);
  view.setInt32(2, code);
  view.setInt32(6, bodyBytes);
  return { bytes, view };
}

export const encode = {
  login(token: string): Uint8Array {
    const text = utf8(token);
    const { bytes } = frame(Code.login, text.length);
    bytes.set(text, HEADER_BYTES);
    return bytes;
  },

  logout(): Uint8Array {
    return frame(Code.logout, 0).bytes;
  },

  business(bizCode: number, target: bigint, clientMsgId: string, payload: Uint8Array): Uint8Array {
    const id = utf8(clientMsgId);
    const { bytes, view } = frame(Code.business, 13 + id.length + payload.length);
    view.setInt32(HEADER_BYTES, bizCode);
    view.setBigInt64(HEADER_BYTES + 4, target);
    view.setUint8(HEADER_BYTES + 12, id.length);
    bytes.set(id, HEADER_BYTES + 13);
    bytes.set(payload, HEADER_BYTES + 13 + id.length);
    return bytes;
  },

  heartbeat(): Uint8Array {
    return frame(Code.heartbeat, 0).bytes;
  },

  /** Up to `ACK_IDS_MAX` ids. */
  ack(messageIds: readonly bigint[]): Uint8Array {
    const { bytes, view } = frame(Code.ack, messageIds.length * 8);
    messageIds.forEach((id, index) => view.setBigUint64(HEADER_BYTES + index * 8, id));
    return bytes;
  },

  join(room: bigint, want: Want): Uint8Array {
    const { bytes, view } = frame(Code.join, want === undefined ? 8 : 17);
    view.setBigInt64(HEADER_BYTES, room);
    if (want !== undefined) {
      view.setUint8(HEADER_BYTES + 8, "since" in want ? 1 : 2);
      view.setBigUint64(HEADER_BYTES + 9, "since" in want ? want.since : want.last);
    }
    return bytes;
  },

  leave(room: bigint): Uint8Array {
    const { bytes, view } = frame(Code.leave, 8);
    view.setBigInt64(HEADER_BYTES, room);
    return bytes;
  },
};

/** Reads fields off a body, and knows when it is too short or too long. */
class Body {
  private offset = 0;
  private readonly view: DataView;

  constructor(private readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  private advance(bytes: number): number {
    const offset = this.offset;
    if (offset + bytes > this.bytes.length) throw new DecodeError("a body ends too early");
    this.offset += bytes;
    return offset;
  }

  u8(): number {
    return this.view.getUint8(this.advance(1));
  }

  u16(): number {
    return this.view.getUint16(this.advance(2));
  }

  u32(): number {
    return this.view.getUint32(this.advance(4));
  }

  i32(): number {
    return this.view.getInt32(this.advance(4));
  }

  i64(): bigint {
    return this.view.getBigInt64(this.advance(8));
  }

  u64(): bigint {
    return this.view.getBigUint64(this.advance(8));
  }

  /** Text that is led by its length in one byte. */
  shortText(): string {
    const length = this.u8();
    const from = this.advance(length);
    return strictText(this.bytes.subarray(from, from + length));
  }

  /** A copy of all that is left, so that it keeps no buffer of the network alive. */
  rest(): Uint8Array {
    // Not `slice`: that of a Buffer of Node copies nothing.
    return new Uint8Array(this.bytes.subarray(this.advance(this.left())));
  }

  left(): number {
    return this.bytes.length - this.offset;
  }

  end(): void {
    if (this.left() > 0) throw new DecodeError("a body goes on after its end");
  }
}

function strictText(bytes: Uint8Array): string {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    throw new DecodeError("a text is no UTF-8");
  }
}

function decodeMessage(body: Body): ServerFrame {
  const flags = body.u8();
  const bizCode = body.i32();
  const messageId = body.u64();
  const sender = body.i64();
  const isOfRoom = (flags & 2) !== 0;
  const room = isOfRoom ? body.i64() : undefined;
  const sequence = isOfRoom ? body.u64() : undefined;
  const clientMsgId = body.shortText();
  const payload = body.rest();
  const message: Message = {
    bizCode,
    messageId,
    sender,
    clientMsgId,
    room,
    sequence,
    payload,
    get text() {
      return decoder.decode(payload);
    },
  };
  return { kind: "message", message, wantsAck: (flags & 1) !== 0 };
}

function decodeNotice(body: Body): ServerFrame {
  const code = body.u16();
  const retryAfterMs = body.u32();
  const [text = "", ...alternatives] = strictText(body.rest()).split("\n");
  const name = (NOTICES as Record<number, NoticeName>)[code] ?? "unknown";
  return {
    kind: "notice",
    notice: { code, name, retryAfterMs, text, alternatives: alternatives.slice(0, 16) },
  };
}

function decodeJoined(body: Body): ServerFrame {
  const room = body.i64();
  const sequence = body.u64();
  if (body.left() === 0) return { kind: "joined", room, sequence, recovery: undefined };
  const recovery = body.u8();
  if (recovery !== 1 && recovery !== 2) throw new DecodeError(`a recovery of ${recovery}`);
  return { kind: "joined", room, sequence, recovery: recovery === 1 ? "complete" : "too_old" };
}

function decodeBody(code: number, body: Body): ServerFrame {
  switch (code) {
    case Code.login:
      return { kind: "logged_in", heartbeatMs: body.u32() };
    case Code.logout:
      return { kind: "logged_out" };
    case Code.business:
      return decodeMessage(body);
    case Code.heartbeat:
      body.rest();
      return { kind: "heartbeat" };
    case Code.sendAck: {
      const number = body.u8();
      const outcome = (OUTCOMES as Record<number, (typeof OUTCOMES)[keyof typeof OUTCOMES]>)[number];
      if (outcome === undefined) throw new DecodeError(`an outcome of ${number}`);
      const [detail, messageId, clientMsgId] = [body.u64(), body.u64(), body.shortText()];
      return { kind: "send_ack", outcome, detail, messageId, clientMsgId };
    }
    case Code.notice:
      return decodeNotice(body);
    case Code.join:
      return decodeJoined(body);
    case Code.leave:
      return { kind: "left", room: body.i64() };
    default:
      throw new DecodeError(`a frame of code ${code}`);
  }
}

/** The body of one frame from the server. */
export function decode(code: number, bytes: Uint8Array): ServerFrame {
  const body = new Body(bytes);
  const frame = decodeBody(code, body);
  body.end();
  return frame;
}

/** Cuts what comes from the server into frames, wherever it was split. */
export class FrameReader {
  /**
   * What has come of the next frame. Its first `length` bytes count; it grows twofold, so that a frame in
   * many pieces is not copied each time.
   */
  private buffer = new Uint8Array(0);
  private length = 0;

  /**
   * The frames that are complete with `bytes`. Throws at the first wrong one; then the boundary of frames is
   * lost.
   */
  *push(bytes: Uint8Array): Generator<ServerFrame> {
    let rest = this.length === 0 ? bytes : this.joined(bytes);
    for (;;) {
      const frameBytes = bytesOfFrame(rest);
      if (frameBytes === undefined || rest.length < frameBytes) break;
      const code = new DataView(rest.buffer, rest.byteOffset).getInt32(2);
      yield decode(code, rest.subarray(HEADER_BYTES, frameBytes));
      rest = rest.subarray(frameBytes);
    }
    this.keep(rest);
  }

  private joined(bytes: Uint8Array): Uint8Array {
    const length = this.length + bytes.length;
    if (length > this.buffer.length) {
      const buffer = new Uint8Array(Math.max(length, this.buffer.length * 2));
      buffer.set(this.buffer.subarray(0, this.length));
      this.buffer = buffer;
    }
    this.buffer.set(bytes, this.length);
    this.length = length;
    return this.buffer.subarray(0, length);
  }

  private keep(rest: Uint8Array): void {
    if (rest.length === this.length && rest.buffer === this.buffer.buffer) return;
    // Frames that were handed out are copies, so what is left may move to the front of a buffer of its own.
    this.buffer = new Uint8Array(rest);
    this.length = rest.length;
  }
}

/** How long the frame at the front is, as far as that can be told. */
function bytesOfFrame(bytes: Uint8Array): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length >= 2 && view.getUint16(0) !== MAGIC) throw new DecodeError("a frame without its magic");
  if (bytes.length < HEADER_BYTES) return undefined;
  const length = view.getInt32(6);
  if (length < 0 || length > BODY_BYTES_MAX) throw new DecodeError(`a body of ${length} bytes`);
  return HEADER_BYTES + length;
}
