import type { Message } from "./wire.js";

/** A message that came, under all the names by which it may come again. */
export interface Receipt {
  /** The application has it safe, so it may be acked. */
  isHandled: boolean;
  /** Message ids under which the server waits for an ack until the application has handled it. */
  toAck: bigint[];
}

/** A map of the latest `max` entries; the oldest go first. */
class Recent<Key, Value> {
  private readonly entries = new Map<Key, Value>();

  constructor(private readonly max: number) {}

  get(key: Key): Value | undefined {
    return this.entries.get(key);
  }

  set(key: Key, value: Value): void {
    this.entries.delete(key);
    this.entries.set(key, value);
    if (this.entries.size <= this.max) return;
    for (const oldest of this.entries.keys()) {
      this.entries.delete(oldest);
      return;
    }
  }

  delete(key: Key): void {
    this.entries.delete(key);
  }
}

/** Remembers messages, to tell repeats: by the server's id first, then by sender and client_msg_id. */
export class Received {
  private readonly byId: Recent<bigint, Receipt>;
  private readonly byName: Recent<string, Receipt>;

  constructor(max: number) {
    this.byId = new Recent(max);
    this.byName = new Recent(max);
  }

  /** The receipt of a message that came before, by this id or by its sender's name for it. */
  repeat(message: Message): Receipt | undefined {
    const byId = this.byId.get(message.messageId);
    if (byId !== undefined) return byId;
    const byName = message.clientMsgId === "" ? undefined : this.byName.get(name(message));
    if (byName !== undefined) this.byId.set(message.messageId, byName);
    return byName;
  }

  add(message: Message): Receipt {
    const receipt: Receipt = { isHandled: false, toAck: [] };
    this.byId.set(message.messageId, receipt);
    if (message.clientMsgId !== "") this.byName.set(name(message), receipt);
    return receipt;
  }

  /** Forgets a message that the application could not take, so that a repeat of it is shown again. */
  forget(message: Message): void {
    this.byId.delete(message.messageId);
    this.byName.delete(name(message));
  }
}

/** Digits, a blank, anything: no two pairs have one name. */
function name(message: Message): string {
  return `${message.sender} ${message.clientMsgId}`;
}
