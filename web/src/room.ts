import { Client, type Message } from "../../clients/typescript/src/index.js";
import { ApiError, type ImToken } from "./api.js";
import { ChatLog, hue } from "./chat.js";
import { foreign, make, replace } from "./dom.js";
import { GiftBar } from "./gifts.js";
import type { Page } from "./main.js";
import { ofError, ofFailure, ofStatus } from "./words.js";

const CHAT = 5555;
const HISTORY = 50;
/** How often it is asked who is here, and whether the room is open. */
const POLL_MS = 4_000;
const TEXT_CHARS_MAX = 500;

/** Shows a room until the answer is called. */
export function showRoom({ api, names, root }: Page, id: number): () => void {
  const ownId = api.userId ?? 0;
  const log = new ChatLog(names, ownId);
  const title = make("h1", {}, `Room ${id}`);
  const status = make("p", { class: "banner", role: "status" });
  const people = make("ul", { class: "people" });
  const count = make(
    "button",
    { class: "count", aria: { expanded: "false", controls: "who" } },
    "Who is here",
  );
  const aside = make(
    "aside",
    { id: "who", aria: { label: "Who is here" } },
    make("h2", {}, "Who is here"),
    people,
  );
  count.addEventListener("click", () => {
    const isOpen = aside.classList.toggle("open");
    count.setAttribute("aria-expanded", String(isOpen));
  });
  const text = make("textarea", {
    id: "say",
    rows: 1,
    maxLength: TEXT_CHARS_MAX,
    placeholder: "Say something",
    enterKeyHint: "send",
  });
  const composer = make(
    "form",
    { class: "composer" },
    make("label", { htmlFor: "say", class: "hidden" }, "Your message"),
    text,
    make("button", { class: "primary" }, "Send"),
  );

  let endOfPage: (() => void) | undefined;
  let isClosed = false;
  /**
   * Own messages of this page: each stands there since it was sent. After a reload they come like all others.
   */
  const own = new Set<string>();

  const page = make("div", { class: "page" });
  replace(root, page);
  document.title = "Sailfish";
  replace(
    page,
    make("header", { class: "bar" }, back(), title),
    make("p", { class: "hint center" }, "Entering the room…"),
  );

  const enter = async () => {
    try {
      const [room, token] = await Promise.all([api.room(id), api.imToken()]);
      if (endOfPage === undefined) open(room.title, room.owner_id, room.is_open, token);
    } catch (error) {
      if (endOfPage !== undefined) return;
      const words =
        error instanceof ApiError && error.status === 404 ? "There is no such room." : ofError(error);
      replace(
        page,
        make("header", { class: "bar" }, back(), title),
        make(
          "main",
          { class: "card" },
          make("p", { class: "problem", role: "alert" }, words),
          make("p", {}, make("a", { href: "#" }, "See the rooms that are open")),
          make("button", { on: { click: () => void enter() } }, "Try again"),
        ),
      );
    }
  };

  const open = (name: string, owner: number, isOpen: boolean, first: ImToken) => {
    title.replaceChildren(foreign(name, 60));
    document.title = `${name} · Sailfish`;
    if (first.websocket === "") {
      replace(
        page,
        make("header", { class: "bar" }, back(), title),
        make(
          "main",
          { class: "card" },
          make(
            "p",
            { class: "problem", role: "alert" },
            "This server takes no browsers: it has no port for WebSocket, or the backend was not told of it (backend.im_websocket).",
          ),
        ),
      );
      return;
    }
    let next: ImToken | undefined = first;
    const client = new Client({
      url: gatewayUrl(first.websocket),
      token: async () => {
        const token = next ?? (await api.imToken());
        next = undefined;
        return token.token;
      },
    });
    const gifts = new GiftBar(api, names, log, client, id, ownId);
    const again = make("button", { on: { click: () => enterAgain() } }, "Come back here");

    const showStatus = () => {
      if (isClosed) return;
      const words = ofStatus(client.status, client.unsent);
      status.hidden = words === undefined;
      replace(
        status,
        words,
        client.status.name === "stopped" && " ",
        client.status.name === "stopped" && again,
      );
    };
    const enterAgain = () => {
      void client.join(id, { last: HISTORY });
      client.start();
    };

    const say = (words: string) => {
      const line = log.say(ownId, words);
      const clientMsgId = crypto.getRandomValues(new Uint32Array(3)).join("-");
      own.add(clientMsgId);
      line.element.classList.add("pending");
      line.state("sending…");
      void client.send({ bizCode: CHAT, target: id, payload: words, clientMsgId }).then((outcome) => {
        line.element.classList.remove("pending");
        if (outcome.outcome !== "failed") return line.state("");
        line.element.classList.add("failed");
        line.state(`Not sent: ${ofFailure(outcome.reason)}.`, () => {
          line.element.remove();
          say(words);
        });
      });
      showStatus();
    };

    /** What the room has up to here was said before this page was in it. */
    let keptUpTo = 0n;
    client.on("joined", ({ sequence }) => void (keptUpTo = sequence));
    const hear = (message: Message) => {
      if (message.room !== BigInt(id) && message.room !== undefined) return;
      const isLive = message.sequence === undefined || message.sequence > keptUpTo;
      if (gifts.take(message, isLive) || message.bizCode !== CHAT) return;
      if (own.has(message.clientMsgId)) return;
      log.say(Number(message.sender), message.text);
    };
    client.on("message", hear);
    client.on("status", showStatus);
    client.on("gap", () => void log.event("Some messages may have been missed while you were away."));
    client.on(
      "notice",
      (notice) => notice.name === "room_limit" && void log.event("You are in too many rooms."),
    );

    composer.addEventListener("submit", (event) => {
      event.preventDefault();
      const words = text.value.trim();
      if (words === "" || isClosed) return;
      say(words);
      text.value = "";
      text.focus();
    });
    text.addEventListener("keydown", (event) => {
      // Not while a method of input composes a character.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      composer.requestSubmit();
    });

    const close = () => {
      isClosed = true;
      status.hidden = false;
      replace(status, "This room is closed. ", make("a", { href: "#" }, "See the others"));
      gifts.element.hidden = true;
      composer.hidden = true;
      client.stop();
    };
    const poll = async () => {
      if (document.hidden || isClosed) return;
      const [users, room] = await Promise.all([api.members(id), api.room(id)]);
      if (!room.is_open) return close();
      // The backend hears of who comes a moment later than this page, whose viewer is surely here.
      const present = new Set(users);
      if (client.status.name === "online") present.add(ownId);
      const here = [...new Set([owner, ...present])].sort(
        (a, b) => Number(b === owner) - Number(a === owner) || a - b,
      );
      gifts.offer(here);
      count.textContent = `${present.size} here`;
      const item = (user: number) => {
        const face = make("span", { class: "face", aria: { hidden: "true" } });
        face.style.setProperty("--hue", String(hue(user)));
        return make(
          "li",
          {},
          face,
          names.show(user),
          user === owner && make("span", { class: "hint" }, " host"),
          user === ownId && make("span", { class: "hint" }, " you"),
        );
      };
      replace(
        people,
        ...(present.size > 0
          ? here.filter((user) => present.has(user)).map(item)
          : [make("li", { class: "hint" }, "Nobody yet.")]),
      );
    };
    // A backend that is away for a moment is told by what the viewer does, not by this.
    const timer = setInterval(() => void poll().catch(() => {}), POLL_MS);
    endOfPage = () => {
      clearInterval(timer);
      client.stop();
    };

    replace(
      page,
      make("header", { class: "bar" }, back(), title, count),
      status,
      make(
        "div",
        { class: "columns" },
        make("main", { class: "stage" }, log.element, gifts.effects, gifts.element, composer),
        aside,
      ),
    );
    if (!isOpen) return close();
    gifts.offer([owner]);
    void poll().catch(() => {});
    setTimeout(() => void poll().catch(() => {}), 1_500);
    enterAgain();
    showStatus();
  };

  void enter();
  return () => {
    if (endOfPage !== undefined) endOfPage();
    endOfPage ??= () => {};
  };
}

function back(): HTMLElement {
  return make("a", { href: "#", class: "back", aria: { label: "Back to the rooms" } }, "‹");
}

/**
 * The gateway's address; a server that listens on all addresses, or on this machine's own, is where this page
 * came from.
 */
function gatewayUrl(given: string): string {
  const url = new URL(given);
  const isHere = ["0.0.0.0", "127.0.0.1", "[::]", "[::1]", "localhost"].includes(url.hostname);
  if (isHere) url.hostname = location.hostname;
  return url.href;
}
