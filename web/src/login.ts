import type { Page } from "./main.js";
import { ApiError } from "./api.js";
import { make, replace } from "./dom.js";
import { ofError } from "./words.js";

/** Asks for a phone's number, then for the code that it was sent. */
export function showLogin({ api, root, refresh }: Page): void {
  document.title = "Log in · Sailfish";
  const problem = make("p", { class: "problem", role: "alert" });
  const phone = make("input", {
    id: "phone",
    type: "tel",
    required: true,
    autocomplete: "tel",
    placeholder: "+86 138 0000 0000",
    inputMode: "tel",
  });
  const code = make("input", {
    id: "code",
    required: true,
    autocomplete: "one-time-code",
    inputMode: "numeric",
    pattern: "[0-9]{6}",
    maxLength: 6,
  });
  const hint = make("p", { class: "hint" });

  const attempt = async (button: HTMLButtonElement, action: () => Promise<void>) => {
    problem.textContent = "";
    button.disabled = true;
    try {
      await action();
    } catch (error) {
      problem.textContent = ofError(error);
    }
    button.disabled = false;
  };

  const askPhone = () => {
    const button = make("button", { class: "primary" }, "Send me a code");
    const form = make("form", {}, make("label", { htmlFor: "phone" }, "Your phone"), phone, button);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void attempt(button, async () => {
        const number = phone.value.replaceAll(/[\s()-]/g, "");
        // A phone gets one code a minute; one that it has been sent is still good.
        const sent = await api.sendCode(number).catch((error: unknown) => error);
        const mock = await api.mockCode(number).catch(() => undefined);
        if (sent instanceof ApiError && !(sent.status === 429 && mock !== undefined)) throw sent;
        askCode(number, mock);
      });
    });
    replace(card, ...head, form, problem);
    phone.focus();
  };

  const askCode = (number: string, mock: string | undefined) => {
    const button = make("button", { class: "primary" }, "Log in");
    const back = make("button", { type: "button", on: { click: askPhone } }, "Another phone");
    code.value = mock ?? "";
    hint.textContent =
      mock === undefined
        ? `We sent six digits to ${number}. They are good for a minute.`
        : `This server only pretends to send messages. It sent ${mock} to ${number}.`;
    const form = make(
      "form",
      {},
      hint,
      make("label", { htmlFor: "code" }, "The code"),
      code,
      make("div", { class: "row" }, button, back),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void attempt(button, async () => {
        await api.logIn(number, code.value.trim());
        refresh();
      });
    });
    problem.textContent = "";
    replace(card, ...head, form, problem);
    code.focus();
  };

  const head = [
    make("h1", {}, "Sailfish"),
    make(
      "p",
      { class: "hint" },
      "Live rooms with chat and gifts. Log in with a phone; any number will do on a server for trying out.",
    ),
  ];
  const card = make("main", { class: "card" });
  replace(root, card);
  askPhone();
}
