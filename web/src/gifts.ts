import type { Client, Message } from "../../clients/typescript/src/index.js";
import type { Api, Gift, Product } from "./api.js";
import type { ChatLog } from "./chat.js";
import { foreign, make, replace } from "./dom.js";
import type { Names } from "./names.js";
import { ofError, ofFailure, ofGift } from "./words.js";

/** Business codes of the backend (docs/BACKEND.md). */
export const SEND_GIFT = 5560;
export const GIFT_SHOWN = 5556;
export const GIFT_FAILED = 5557;
export const COINS_BOUGHT = 5561;

const EFFECTS_MAX = 6;
const EFFECT_MS = 3_200;
const PICTURES: Record<string, string> = {
  rose: "🌹",
  beer: "🍺",
  yacht: "🛥️",
  rocket: "🚀",
  heart: "❤️",
  cake: "🎂",
};
const POLL_MS = 2_000;

interface Shown {
  id: string;
  senderId: number;
  receiverId: number;
  giftId: number;
  count: number;
  total: number;
}

/** The bar of gifts: what there is, what one has, and what is seen when a gift is sent. */
export class GiftBar {
  readonly element = make("section", { class: "gifts", aria: { label: "Gifts" } });
  /** Pictures that fly over the chat; the log says the same in words. */
  readonly effects = make("div", { class: "effects", aria: { hidden: "true" } });
  private readonly balance = make(
    "button",
    { class: "balance", on: { click: () => void this.recharge() } },
    "…",
  );
  private readonly receiver = make("select", { id: "receiver" });
  private readonly shelf = make("div", { class: "shelf" });
  private readonly note = make("p", { class: "hint", role: "status" });
  private readonly problem = make("p", { class: "problem", role: "alert" });
  private catalogue = new Map<number, Gift>();
  private coins: number | undefined;
  private onBought: () => void = () => {};

  constructor(
    private readonly api: Api,
    private readonly names: Names,
    private readonly log: ChatLog,
    private readonly client: Client,
    private readonly room: number,
    private readonly ownId: number,
  ) {
    const to = make("label", { htmlFor: "receiver" }, "Gift to ");
    replace(
      this.element,
      make("div", { class: "row" }, to, this.receiver, this.balance),
      this.shelf,
      this.note,
      this.problem,
    );
    void this.load();
  }

  /** Who may get a gift; the first is chosen unless the viewer chose another. */
  offer(users: number[]): void {
    const chosen = this.receiver.value;
    this.receiver.replaceChildren(
      ...users.map((user) => {
        const option = make("option", { value: String(user) });
        this.names.write(user, option);
        return option;
      }),
    );
    if (users.includes(Number(chosen))) this.receiver.value = chosen;
  }

  /** Takes in a message of the backend; answers whether it was about gifts or coins. Old gifts do not fly. */
  take(message: Message, isLive: boolean): boolean {
    // A user cannot say these: the gateways let nobody but the backend.
    if (message.sender !== 0n) return false;
    switch (message.bizCode) {
      case GIFT_SHOWN:
        this.show(parse(message), isLive);
        return true;
      case GIFT_FAILED: {
        const failed = parse<{ reason: string }>(message);
        if (failed !== undefined) this.problem.textContent = ofGift(String(failed.reason));
        void this.refresh();
        return true;
      }
      case COINS_BOUGHT: {
        const bought = parse<{ coins: number }>(message);
        if (bought !== undefined) this.log.event(`${bought.coins} coins are in your wallet.`);
        this.onBought();
        void this.refresh();
        return true;
      }
      default:
        return false;
    }
  }

  async refresh(): Promise<void> {
    try {
      this.coins = await this.api.balance();
      const coins = this.coins.toLocaleString();
      this.balance.setAttribute("aria-label", `${coins} coins; get more`);
      this.balance.textContent = `🪙 ${coins} +`;
    } catch (error) {
      this.balance.removeAttribute("aria-label");
      this.balance.textContent = "Get coins";
      this.problem.textContent = ofError(error);
    }
    for (const button of this.shelf.querySelectorAll("button")) {
      button.classList.toggle("dear", this.coins !== undefined && Number(button.value) > this.coins);
    }
  }

  private async load(): Promise<void> {
    this.problem.textContent = "";
    try {
      const gifts = await this.api.gifts();
      this.catalogue = new Map(gifts.map((gift) => [gift.id, gift]));
      const buttons = gifts.map((gift) =>
        make(
          "button",
          { class: "gift", value: String(gift.price), on: { click: () => void this.send(gift) } },
          make("span", { class: "picture", aria: { hidden: "true" } }, picture(gift)),
          make("span", {}, foreign(gift.name, 20)),
          make("span", { class: "hint" }, gift.price.toLocaleString()),
        ),
      );
      replace(
        this.shelf,
        ...(buttons.length > 0
          ? buttons
          : [
              make(
                "p",
                { class: "hint" },
                "There are no gifts on sale. The command sailfish demo makes some.",
              ),
            ]),
      );
    } catch (error) {
      replace(
        this.shelf,
        make("p", { class: "problem" }, ofError(error)),
        make("button", { on: { click: () => void this.load() } }, "Try again"),
      );
    }
    await this.refresh();
  }

  private async send(gift: Gift): Promise<void> {
    this.problem.textContent = "";
    const receiverId = Number(this.receiver.value);
    if (receiverId === 0) return void (this.problem.textContent = "Nobody is here to give it to.");
    if (this.coins !== undefined && gift.price > this.coins) return this.recharge();
    const payload = JSON.stringify({ giftId: gift.id, receiverId, count: 1, price: gift.price });
    this.note.textContent = `Sending ${gift.name}…`;
    const outcome = await this.client.send({ bizCode: SEND_GIFT, target: this.room, payload });
    this.note.textContent = "";
    if (outcome.outcome === "failed") {
      this.problem.textContent = `The gift was not sent: ${ofFailure(outcome.reason)}. Nothing was paid.`;
    }
    await this.refresh();
  }

  private show(shown: Shown | undefined, isLive: boolean): void {
    if (shown === undefined) return;
    const gift = this.catalogue.get(shown.giftId);
    const name = gift?.name ?? `gift ${shown.giftId}`;
    const many = shown.count === 1 ? "" : ` × ${shown.count}`;
    const words = [
      this.names.show(shown.senderId),
      " sent ",
      foreign(name, 20),
      `${many} ${picture(gift)} to `,
      this.names.show(shown.receiverId),
    ];
    this.log.event(...words).classList.add("gifted");
    if (shown.senderId === this.ownId || shown.receiverId === this.ownId) void this.refresh();
    if (!isLive || this.effects.childElementCount >= EFFECTS_MAX) return;
    const effect = make(
      "div",
      { class: shown.total >= 1_000 ? "effect big" : "effect" },
      make("span", { class: "picture" }, picture(gift)),
      make("span", { class: "caption" }, this.names.show(shown.senderId), many),
    );
    effect.style.setProperty("--x", `${10 + Math.random() * 60}%`);
    this.effects.append(effect);
    setTimeout(() => effect.remove(), EFFECT_MS);
  }

  /** Sells coins: products, then a code to scan, then waits until it is paid. */
  private async recharge(): Promise<void> {
    const body = make("div", {}, make("p", { class: "hint" }, "Looking for what there is…"));
    const dialog = make(
      "dialog",
      { aria: { label: "Get coins" } },
      make("h2", {}, "Get coins"),
      body,
      make("form", { method: "dialog" }, make("button", {}, "Close")),
    );
    let timer = 0;
    dialog.addEventListener("close", () => {
      clearInterval(timer);
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();

    const buy = async (product: Product) => {
      replace(body, make("p", { class: "hint" }, "Making an order…"));
      try {
        const id = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16)).join(
          "-",
        );
        const order = await this.api.order(id, product.id);
        const paid = () => {
          clearInterval(timer);
          replace(
            body,
            make("p", { role: "status" }, `Paid: ${product.coins.toLocaleString()} coins are yours.`),
          );
          void this.refresh();
        };
        this.onBought = paid;
        replace(
          body,
          make("p", {}, `Scan it to pay ${money(product)}, or open the page of the payment.`),
          make("img", {
            class: "qr",
            src: new URL(order.qr_url, location.origin).pathname,
            alt: "A QR code of the payment's page",
          }),
          make(
            "p",
            {},
            make(
              "a",
              { href: safeUrl(order.pay_url), target: "_blank", rel: "noopener noreferrer" },
              "Open the payment's page",
            ),
          ),
          make("p", { class: "hint", role: "status" }, "Waiting for the payment…"),
        );
        timer = setInterval(() => {
          this.api.orderStatus(order.order_id).then(
            (status) => status === "paid" && paid(),
            () => {},
          );
        }, POLL_MS);
      } catch (error) {
        replace(body, make("p", { class: "problem", role: "alert" }, ofError(error)));
      }
    };

    try {
      const products = await this.api.products();
      const items = products.map((product) =>
        make(
          "button",
          { class: "product", on: { click: () => void buy(product) } },
          make("strong", {}, `${product.coins.toLocaleString()} coins`),
          make("span", { class: "hint" }, foreign(product.name, 40)),
          make("span", {}, money(product)),
        ),
      );
      replace(
        body,
        ...(items.length > 0
          ? items
          : [
              make(
                "p",
                { class: "hint" },
                "There is nothing on sale. The command sailfish demo makes products.",
              ),
            ]),
      );
    } catch (error) {
      replace(body, make("p", { class: "problem", role: "alert" }, ofError(error)));
    }
  }
}

function parse<Value = Shown>(message: Message): Value | undefined {
  try {
    return JSON.parse(message.text) as Value;
  } catch {
    return undefined;
  }
}

/** The icon, if it is a picture and not an address: pages of others are not asked for any. */
function picture(gift: Gift | undefined): string {
  const icon = gift?.icon ?? "";
  return PICTURES[gift?.name.toLowerCase() ?? ""] ?? (icon !== "" && icon.length <= 8 ? icon : "🎁");
}

function money(product: Product): string {
  return `¥${(product.price_cents / 100).toFixed(2)}`;
}

/** An address of the web, so that a link cannot be a script. */
function safeUrl(url: string): string {
  return /^https?:\/\//i.test(url) ? url : "about:blank";
}
