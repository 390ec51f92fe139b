import { foreign, make, put } from "./dom.js";
import type { Names } from "./names.js";

/** Lines that stay on the page. */
const LINES_MAX = 200;
/** So near to its end, a log follows what is new. */
const NEAR_PX = 80;

export interface Line {
  element: HTMLElement;
  /** Says under the line how it stands with it; nothing if all is well. */
  state: (text: string, retry?: () => void) => void;
}

/**
 * The log of a room. However many messages come, a frame of the screen adds as many as there are places, and
 * says how many it left out.
 */
export class ChatLog {
  readonly element = make("div", {
    class: "log",
    role: "log",
    tabIndex: 0,
    aria: { live: "polite", label: "Messages" },
  });
  private waiting: HTMLElement[] = [];
  private left = 0;
  private frame = 0;
  private readonly empty = make("p", { class: "hint empty" }, "Nobody has said anything yet. Say hello.");

  constructor(
    private readonly names: Names,
    private readonly ownId: number,
  ) {
    this.element.append(this.empty);
  }

  say(user: number, text: string): Line {
    const isOwn = user === this.ownId;
    const state = make("span", { class: "state" });
    const element = make(
      "div",
      { class: isOwn ? "line own" : "line" },
      make("span", { class: "who" }, this.names.show(user)),
      make("span", { class: "text" }, foreign(text)),
      state,
    );
    element.style.setProperty("--hue", String(hue(user)));
    this.add(element);
    return {
      element,
      state: (text, retry) => {
        state.replaceChildren(text);
        if (retry !== undefined)
          put(state, " ", make("button", { type: "button", on: { click: retry } }, "Send again"));
      },
    };
  }

  /** Something that happened, in words. */
  event(...words: (Node | string)[]): HTMLElement {
    const element = make("p", { class: "event" }, ...words);
    this.add(element);
    return element;
  }

  private add(element: HTMLElement): void {
    this.waiting.push(element);
    if (this.waiting.length > LINES_MAX) {
      this.waiting.shift();
      this.left += 1;
    }
    this.frame ||= requestAnimationFrame(() => this.flush());
    // A page in the background gets no frames.
    if (document.hidden) this.flush();
  }

  private flush(): void {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.empty.remove();
    const { element } = this;
    const isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_PX;
    if (this.left > 0)
      element.append(make("p", { class: "event" }, `${this.left} messages came too fast to show.`));
    this.left = 0;
    element.append(...this.waiting);
    this.waiting = [];
    while (element.childElementCount > LINES_MAX) element.firstElementChild?.remove();
    if (isAtEnd) element.scrollTop = element.scrollHeight;
  }
}

/** A colour for a user, the same on every page. */
export function hue(user: number): number {
  return (Math.imul(user, 0x9e3779b1) >>> 0) % 360;
}
