/** A message that has no outcome yet. */
export interface Unsent {
  readonly clientMsgId: string;
  readonly target: bigint;
  readonly frame: Uint8Array;
  /** The connection it was last written to; 0 for none that lives. */
  sentOn: number;
  /** Not to be written before this; when it was written, when it is due again. */
  dueMs: number;
  /** How often the server refused it for now, as `busy` or `not_member`. */
  refusals: number;
}

/** The messages without an outcome, in the order in which they were first sent, up to a number and a size. */
export class Outbox {
  private readonly messages = new Map<string, Unsent>();
  private bytes = 0;

  constructor(
    private readonly messagesMax: number,
    private readonly bytesMax: number,
  ) {}

  get size(): number {
    return this.messages.size;
  }

  has(clientMsgId: string): boolean {
    return this.messages.has(clientMsgId);
  }

  get(clientMsgId: string): Unsent | undefined {
    return this.messages.get(clientMsgId);
  }

  /** Keeps a message; answers whether there was room for it. */
  add(clientMsgId: string, target: bigint, frame: Uint8Array): boolean {
    if (this.messages.size >= this.messagesMax || this.bytes + frame.length > this.bytesMax) return false;
    this.messages.set(clientMsgId, { clientMsgId, target, frame, sentOn: 0, dueMs: -Infinity, refusals: 0 });
    this.bytes += frame.length;
    return true;
  }

  remove(clientMsgId: string): Unsent | undefined {
    const message = this.messages.get(clientMsgId);
    if (message !== undefined) {
      this.messages.delete(clientMsgId);
      this.bytes -= message.frame.length;
    }
    return message;
  }

  /**
   * A connection is gone: what was written to it has to be written again, and the waits that were due to it
   * are over.
   */
  disconnected(): void {
    for (const message of this.messages.values()) {
      if (message.sentOn !== 0) {
        message.sentOn = 0;
        message.dueMs = -Infinity;
      }
    }
  }

  all(): IterableIterator<Unsent> {
    return this.messages.values();
  }
}
