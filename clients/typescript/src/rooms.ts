import type { Recovery, Want } from "./wire.js";
import { nominalMs } from "./backoff.js";

/** All members of a room see a gap at once, so each waits a random time up to this before it asks. */
const GAP_WAIT_MS_MAX = 1_000;
/** A client that reads too slowly misses messages again and again: it asks no more often than this. */
const GAP_INTERVAL_MS = 5_000;

interface Room {
  /** How many of the latest messages the first join asks for. */
  last: number | undefined;
  /**
   * The highest sequence of which everything below was seen, or was before this client's time; undefined
   * until there is one.
   */
  since: bigint | undefined;
  state: "wanted" | "asked" | "joined";
  /** Not to be joined before this. */
  dueMs: number;
  /** How often a join was refused for now. */
  refusals: number;
  /** What the last `joined` said, until it is known that no kept message is on its way any more. */
  joinedAt: bigint | undefined;
  /** A heartbeat was sent after `joinedAt` came. */
  isProbed: boolean;
  /** The server began anew: the next sequence is the one to go on from, also if it is lower than `since`. */
  isNew: boolean;
  /** The last gap that was told. */
  toldGap: bigint | undefined;
  /**
   * Messages after `since` are missing: when they are asked for, or Infinity once they are. Until the answer
   * comes, messages do not count as seen, as they come again.
   */
  gapMs: number | undefined;
  /** The next gap is not asked for before this. */
  nextGapMs: number;
}

/** The rooms that the application wants to be in, and where they stand on the connection. */
export class Rooms {
  private readonly rooms = new Map<bigint, Room>();

  constructor(
    private history: boolean,
    private readonly random: () => number,
  ) {}

  /**
   * The server takes no body of this client's: one without room history takes no join that asks for it. Then
   * joins are plain from now on. Answers whether that may help.
   */
  doWithoutHistory(): boolean {
    const isAsked = [...this.rooms.values()].some(
      (room) => room.gapMs === Infinity || (room.state === "asked" && this.want(room) !== undefined),
    );
    if (isAsked) this.history = false;
    return isAsked;
  }

  has(room: bigint): boolean {
    return this.rooms.has(room);
  }

  /** Whether messages to this room have to wait for its join. */
  isAwaited(room: bigint): boolean {
    const entry = this.rooms.get(room);
    return entry !== undefined && entry.state !== "joined";
  }

  add(room: bigint, last: number | undefined): void {
    if (this.rooms.has(room)) return;
    this.rooms.set(room, {
      last,
      since: undefined,
      state: "wanted",
      dueMs: -Infinity,
      refusals: 0,
      joinedAt: undefined,
      isProbed: false,
      isNew: false,
      toldGap: undefined,
      gapMs: undefined,
      nextGapMs: -Infinity,
    });
  }

  remove(room: bigint): void {
    this.rooms.delete(room);
  }

  /** The joins that are due; they count as asked. */
  *toJoin(now: number): Generator<{ room: bigint; want: Want }> {
    for (const [room, entry] of this.rooms) {
      if (entry.state === "wanted" && entry.dueMs <= now) {
        entry.state = "asked";
        yield { room, want: this.want(entry) };
      } else if (entry.gapMs !== undefined && entry.gapMs <= now) {
        entry.gapMs = Infinity;
        entry.nextGapMs = now + GAP_INTERVAL_MS;
        yield { room, want: this.want(entry) };
      }
    }
  }

  private want(entry: Room): Want {
    if (!this.history) return undefined;
    if (entry.since !== undefined) return { since: entry.since };
    return entry.last === undefined ? undefined : { last: BigInt(entry.last) };
  }

  /** When the next join is due. */
  deadline(): number {
    let at = Infinity;
    for (const entry of this.rooms.values()) {
      if (entry.state === "wanted") at = Math.min(at, entry.dueMs);
      if (entry.gapMs !== undefined) at = Math.min(at, entry.gapMs);
    }
    return at;
  }

  /**
   * A join was answered. Undefined if the room is not wanted any more; else whether it was joined before, and
   * after which sequence messages are missing, if any are.
   */
  joined(
    room: bigint,
    sequence: bigint,
    recovery: Recovery | undefined,
  ): { isAgain: boolean; gapAfter: bigint | undefined } | undefined {
    const entry = this.rooms.get(room);
    if (entry === undefined) return undefined;
    const isAgain = entry.state === "joined";
    entry.state = "joined";
    entry.gapMs = undefined;
    entry.refusals = 0;
    const since = entry.since;
    // Without history nothing older comes, so what is to be seen begins here. With it, kept messages up to
    // `sequence` are on their way: until they are there, a connection that ends has to begin where it began
    // before.
    if (recovery === undefined) {
      entry.since = sequence;
      const isGap = since !== undefined && sequence > since;
      return { isAgain, gapAfter: isGap ? since : undefined };
    }
    entry.joinedAt = sequence;
    entry.isProbed = false;
    entry.isNew = recovery === "too_old";
    if (recovery === "complete" || since === undefined || entry.toldGap === sequence)
      return { isAgain, gapAfter: undefined };
    entry.toldGap = sequence;
    return { isAgain, gapAfter: since };
  }

  /** A message of a room came. If it shows a gap, what is missing is asked for after a while. */
  saw(room: bigint, sequence: bigint, now: number): void {
    const entry = this.rooms.get(room);
    if (entry === undefined || entry.state !== "joined" || entry.gapMs !== undefined) return;
    if (entry.joinedAt !== undefined) {
      if (sequence < entry.joinedAt) return this.raise(entry, sequence);
      this.raise(entry, entry.joinedAt);
      entry.joinedAt = undefined;
    }
    if (this.history && entry.since !== undefined && sequence > entry.since + 1n) {
      entry.gapMs = Math.max(now + this.random() * GAP_WAIT_MS_MAX, entry.nextGapMs);
    } else {
      this.raise(entry, sequence);
    }
  }

  private raise(entry: Room, sequence: bigint): void {
    if (entry.isNew || entry.since === undefined || sequence > entry.since) entry.since = sequence;
    entry.isNew = false;
  }

  /** A heartbeat goes out. */
  probed(): void {
    for (const entry of this.rooms.values()) {
      if (entry.joinedAt !== undefined) entry.isProbed = true;
    }
  }

  /** A heartbeat was answered: a room of which no kept message came by then had none. */
  settled(): void {
    for (const entry of this.rooms.values()) {
      if (!entry.isProbed || entry.joinedAt === undefined) continue;
      this.raise(entry, entry.joinedAt);
      entry.joinedAt = undefined;
    }
  }

  /** The server has no place for joins right now; it does not say for which. */
  refusedForNow(now: number, firstMs: number): void {
    for (const entry of this.rooms.values()) {
      if (entry.state !== "asked" && entry.gapMs !== Infinity) continue;
      const dueMs = now + nominalMs(firstMs, entry.refusals);
      entry.refusals += 1;
      if (entry.gapMs === Infinity) {
        entry.gapMs = dueMs;
      } else {
        entry.state = "wanted";
        entry.dueMs = dueMs;
      }
    }
  }

  /**
   * The session is in as many rooms as it may be: the latest join is the one that was refused, and is given
   * up.
   */
  refused(): bigint | undefined {
    const asked = [...this.rooms].filter(([, entry]) => entry.state === "asked");
    const room = asked.at(-1)?.[0];
    if (room !== undefined) this.rooms.delete(room);
    return room;
  }

  /** The server says that this client is not in a room that it was in. */
  joinAgain(room: bigint): void {
    const entry = this.rooms.get(room);
    if (entry?.state !== "joined") return;
    entry.state = "wanted";
    entry.gapMs = undefined;
  }

  /** A connection is gone, and with it all that was joined on it. */
  disconnected(): void {
    for (const entry of this.rooms.values()) {
      entry.state = "wanted";
      entry.dueMs = -Infinity;
      entry.joinedAt = undefined;
      entry.gapMs = undefined;
    }
  }

  /** Forgets all rooms; answers those that were not joined. */
  clear(): bigint[] {
    const waiting = [...this.rooms].filter(([, entry]) => entry.state !== "joined").map(([room]) => room);
    this.rooms.clear();
    return waiting;
  }
}
