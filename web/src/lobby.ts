import type { Page } from "./main.js";
import { foreign, make, replace } from "./dom.js";
import { ofError } from "./words.js";

/** Lists the rooms that are open, and opens one. */
export function showLobby({ api, names, root, refresh }: Page): void {
  document.title = "Rooms · Sailfish";
  const list = make(
    "section",
    { aria: { label: "Open rooms", busy: "true" } },
    make("p", { class: "hint" }, "Looking for rooms…"),
  );
  const problem = make("p", { class: "problem", role: "alert" });

  const load = async () => {
    try {
      const rooms = await api.rooms();
      const items = rooms.map(({ id, title, owner_id }) =>
        make(
          "li",
          {},
          make(
            "a",
            { href: `#room/${id}`, class: "room" },
            make("strong", {}, foreign(title, 100)),
            make("span", { class: "hint" }, "by ", names.show(owner_id)),
          ),
        ),
      );
      replace(
        list,
        rooms.length === 0
          ? make("p", { class: "hint" }, "No room is open. Open the first one below.")
          : make("ul", { class: "rooms" }, ...items),
      );
    } catch (error) {
      replace(
        list,
        make("p", { class: "problem", role: "alert" }, ofError(error)),
        make("button", { on: { click: () => void load() } }, "Try again"),
      );
    }
    list.setAttribute("aria-busy", "false");
  };

  const title = make("input", {
    id: "title",
    required: true,
    maxLength: 60,
    placeholder: "What is it about?",
  });
  const open = make(
    "form",
    {},
    make("label", { htmlFor: "title" }, "Open a room of your own"),
    make("div", { class: "row" }, title, make("button", { class: "primary" }, "Open")),
  );
  open.addEventListener("submit", (event) => {
    event.preventDefault();
    problem.textContent = "";
    api.openRoom(title.value).then(
      ({ id }) => (location.hash = `#room/${id}`),
      (error: unknown) => (problem.textContent = ofError(error)),
    );
  });

  const name = make("input", {
    id: "name",
    maxLength: 20,
    autocomplete: "off",
    placeholder: "How others see you",
  });
  const saved = make("span", { class: "hint", role: "status" });
  const profile = make(
    "form",
    {},
    make("label", { htmlFor: "name" }, "Your name"),
    make("div", { class: "row" }, name, make("button", {}, "Save")),
    saved,
  );
  profile.addEventListener("submit", (event) => {
    event.preventDefault();
    saved.textContent = "";
    api.rename(name.value).then(
      (user) => {
        names.set(user.id, user.name);
        saved.textContent = "Saved.";
      },
      (error: unknown) => (saved.textContent = ofError(error)),
    );
  });
  api.me().then(
    (me) => {
      names.set(me.id, me.name);
      if (name.value === "") name.value = me.name;
    },
    () => {},
  );

  const out = make("button", { on: { click: () => void api.logOut().finally(refresh) } }, "Log out");
  replace(
    root,
    make(
      "header",
      { class: "bar" },
      make("h1", {}, "Rooms"),
      make("button", { on: { click: () => void load() } }, "Refresh"),
      out,
    ),
    make("main", { class: "lobby" }, list, open, problem, profile),
  );
  void load();
}
