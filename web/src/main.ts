/**
 * The page: a login, then a list of rooms, then a room. What is shown follows from the login and the
 * address's #.
 */

import { Api } from "./api.js";
import { make, replace } from "./dom.js";
import { showLogin } from "./login.js";
import { showLobby } from "./lobby.js";
import { showRoom } from "./room.js";
import { Names } from "./names.js";

export interface Page {
  api: Api;
  names: Names;
  root: HTMLElement;
  /** Shows what there is to show now. */
  refresh: () => void;
}

const root = document.getElementById("app");
if (root !== null) start(root);

function start(root: HTMLElement): void {
  const api = new Api();
  /** Ends what is shown. */
  let end = () => {};
  const page: Page = { api, names: new Names(api), root, refresh };

  function refresh(): void {
    end();
    end = () => {};
    const room = /^#room\/(\d{1,15})$/.exec(location.hash)?.[1];
    if (api.userId === undefined) showLogin(page);
    else if (room === undefined) showLobby(page);
    else end = showRoom(page, Number(room));
  }

  api.onLoggedOut = refresh;
  addEventListener("hashchange", refresh);
  // A page that fails says so, and is not blank.
  addEventListener("error", ({ message }) => {
    replace(
      root,
      make(
        "main",
        { class: "card" },
        make("h1", {}, "Something went wrong"),
        make("p", {}, message),
        make("button", { on: { click: () => location.reload() } }, "Reload"),
      ),
    );
  });
  refresh();
}
