import type { Api } from "./api.js";

const WAIT_MS = 150;
const BATCH_MAX = 100;
/** Names of users who did not tell theirs are asked for again after so long. */
const STALE_MS = 60_000;

/** Names of users, asked for a few at a time. */
export class Names {
  private readonly known = new Map<number, { name: string; askedMs: number }>();
  private readonly shown = new Map<number, Set<HTMLElement>>();
  private wanted = new Set<number>();

  constructor(private readonly api: Api) {}

  of(user: number): string {
    if (user === 0) return "Sailfish";
    return this.known.get(user)?.name || `User ${user}`;
  }

  set(user: number, name: string): void {
    this.known.set(user, { name, askedMs: Date.now() });
    for (const element of this.shown.get(user) ?? []) element.textContent = this.of(user);
  }

  /** An element that shows a name, and the right one as soon as it is known. */
  show(user: number): HTMLElement {
    const element = document.createElement("bdi");
    element.className = "name";
    this.write(user, element);
    return element;
  }

  /** Writes a name into an element, and the right one as soon as it is known. */
  write(user: number, element: HTMLElement): void {
    element.textContent = this.of(user);
    const elements = this.shown.get(user) ?? new Set();
    // Those of messages that are gone are not to be kept.
    for (const one of elements) if (!one.isConnected && elements.size > 20) elements.delete(one);
    elements.add(element);
    this.shown.set(user, elements);
    const known = this.known.get(user);
    if (user > 0 && (known === undefined || Date.now() - known.askedMs > STALE_MS)) this.want(user);
  }

  private want(user: number): void {
    if (this.wanted.size === 0) setTimeout(() => void this.askAll(), WAIT_MS);
    this.wanted.add(user);
  }

  private async askAll(): Promise<void> {
    const ids = [...this.wanted].slice(0, BATCH_MAX);
    this.wanted.clear();
    for (const id of ids) this.known.set(id, { name: this.known.get(id)?.name ?? "", askedMs: Date.now() });
    try {
      for (const { id, name } of await this.api.users(ids)) this.set(id, name);
    } catch {
      // Numbers will do for names.
    }
  }
}
