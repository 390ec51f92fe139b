/**
 * The pages in Chromium, against a server of their own: SAILFISH=path/to/sailfish npm test. With SHOTS=1 it
 * leaves pictures in test/shots/.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Server, launchBrowser, program } from "../server.mjs";

const shots = process.env.SHOTS === undefined ? undefined : fileURLToPath(new URL("shots", import.meta.url));
const PHONE = { width: 390, height: 844 };
const DESKTOP = { width: 1280, height: 800 };
let server, browser;

const home = () => `http://127.0.0.1:${server.backend}`;
let people = 0;

/** A page of a browser of its own, on which nothing may go wrong unseen. */
async function open(options = {}) {
  const context = await browser.newContext({ viewport: PHONE, ...options });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(String(error)));
  page.on(
    "console",
    (message) => /Content.Security.Policy/i.test(message.text()) && page.problems.push(message.text()),
  );
  return page;
}

/** Logs a new user in by phone, as a viewer does. */
async function login(page) {
  await page.goto(home());
  people += 1;
  await page.getByLabel("Your phone").fill(`+86 137 0000 ${String(people).padStart(4, "0")}`);
  await page.getByRole("button", { name: "Send me a code" }).click();
  await page.getByText("only pretends to send").waitFor();
  await shot(page, `code-${people}`);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "Rooms" }).waitFor();
}

async function enter(page, title) {
  await page.getByRole("link", { name: title }).click();
  await page.getByPlaceholder("Say something").waitFor();
  await page.locator(".banner").waitFor({ state: "hidden" });
}

async function say(page, text) {
  await page.getByPlaceholder("Say something").fill(text);
  await page.keyboard.press("Enter");
}

const lines = (page) => page.locator(".line .text").allTextContents();

async function shot(page, name) {
  if (shots !== undefined) await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
}

before(async () => {
  if (shots !== undefined) mkdirSync(shots, { recursive: true });
  server = await Server.start();
  execFileSync(program, ["demo", "--backend", home()], { env: server.environment });
  browser = await launchBrowser();
});

after(async () => {
  await browser?.close();
  await server?.remove();
});

test("two viewers chat, a gift is seen, and a server that is killed loses nothing", async () => {
  const alice = await open();
  const bob = await open({ viewport: DESKTOP, colorScheme: "dark" });
  await alice.goto(home());
  await alice.getByLabel("Your phone").waitFor();
  await shot(alice, "login-phone-light");
  for (const page of [alice, bob]) await login(page);
  await alice.getByLabel("Your name").fill("Alice");
  await alice.getByRole("button", { name: "Save" }).click();
  await alice.getByText("Saved.").waitFor();
  await shot(alice, "lobby-phone-light");
  await shot(bob, "lobby-desktop-dark");
  for (const page of [alice, bob]) await enter(page, "the demonstration");
  await shot(bob, "empty-desktop-dark");

  await say(alice, "hello from a phone");
  await bob.getByText("hello from a phone").waitFor();
  await say(bob, "welcome! what do you sing today?");
  await alice.getByText("welcome!").waitFor();
  await say(alice, "you choose 🎤");
  await bob.getByText("you choose").waitFor();
  await bob.getByText("Alice").first().waitFor();

  // A gift that costs more than there is offers coins; those are bought, then it is sent.
  await alice.getByRole("button", { name: /^0 coins/ }).waitFor();
  await alice.getByRole("button", { name: /rose/ }).click();
  await alice.getByRole("button", { name: /^300 coins/ }).click();
  await alice.locator(".qr").waitFor();
  await alice.waitForFunction(() => document.querySelector(".qr").naturalWidth > 0);
  await shot(alice, "qr-phone-light");
  const pay = await alice.getByRole("link", { name: "Open the payment" }).getAttribute("href");
  const paid = await fetch(pay, { method: "POST", headers: { "Content-Type": "application/json" } });
  assert.equal(paid.status, 200);
  await alice.getByText("300 coins are yours").waitFor();
  await alice.getByRole("button", { name: "Close" }).click();
  await alice.getByRole("button", { name: /rose/ }).click();
  await bob.locator(".gifted").getByText("rose").waitFor();
  await bob.locator(".effect").waitFor();
  await bob.waitForTimeout(600);
  await shot(bob, "gift-desktop-dark");
  await shot(alice, "gift-phone-light");
  await alice.getByRole("button", { name: /^290 coins/ }).waitFor();
  await alice.getByText("2 here").waitFor();
  // The text of a script is a text.
  await say(bob, "<img src=x onerror=alert(1)> & <script>alert(2)</script> \u202eabc\u0007");
  await alice.getByText("<script>alert(2)</script>").waitFor();
  assert.equal(await alice.locator(".log img, .log script").count(), 0);

  // While the server is dead, what is written waits, and says so.
  await say(alice, "before the kill");
  await bob.getByText("before the kill").waitFor();
  await server.kill();
  for (const page of [alice, bob])
    await page
      .locator(".banner")
      .getByText(/lost|Connecting/)
      .waitFor();
  for (let number = 1; number <= 5; number += 1) await say(alice, `written in the dark ${number}`);
  await alice.getByText("5 messages wait").waitFor();
  await shot(alice, "lost-phone-light");
  await server.startAgain();
  for (const page of [alice, bob])
    await page.locator(".banner").waitFor({ state: "hidden", timeout: 30_000 });
  await alice.locator(".pending").first().waitFor({ state: "detached" });
  await say(bob, "good to see you");
  await alice.getByText("good to see you").waitFor();
  const dark = [1, 2, 3, 4, 5].map((number) => `written in the dark ${number}`);
  const wanted = ["before the kill", ...dark, "good to see you"];
  assert.deepEqual((await lines(alice)).slice(-wanted.length), wanted);
  // Bob may have come back after some of them: the room has kept them for him.
  const heard = (await lines(bob)).slice((await lines(bob)).indexOf("before the kill"));
  assert.deepEqual(heard, wanted);
  // So it does for who comes later, or again.
  await alice.reload();
  await alice.getByText("good to see you").waitFor();
  assert.deepEqual((await lines(alice)).slice(-6), wanted.slice(-6));
  await shot(bob, "room-desktop-dark");
  await shot(alice, "room-phone-light");
  await alice.getByRole("button", { name: / here$/ }).click();
  await shot(alice, "people-phone-light");
  await alice.getByRole("button", { name: / here$/ }).click();

  // The other colours.
  await alice.emulateMedia({ colorScheme: "dark" });
  await shot(alice, "room-phone-dark");
  await bob.emulateMedia({ colorScheme: "light" });
  await shot(bob, "room-desktop-light");
  for (const page of [alice, bob]) assert.deepEqual(page.problems, []);
});

test("what ends for a viewer is told in words: elsewhere, closed, missing, logged out, no server", async () => {
  const page = await open({ viewport: DESKTOP });
  await login(page);
  await page.getByLabel("Open a room of your own").fill("<b>my</b> room");
  await page.getByRole("button", { name: "Open", exact: true }).click();
  await page.getByPlaceholder("Say something").waitFor();
  await page.locator(".banner").waitFor({ state: "hidden" });
  assert.equal(await page.locator("h1 b").count(), 0);

  const stored = await page.evaluate(() => sessionStorage.getItem("sailfish.login"));
  const second = await open();
  await second.addInitScript((login) => sessionStorage.setItem("sailfish.login", login), stored);
  await second.goto(`${home()}/${new URL(page.url()).hash}`);
  await page.getByText("You are in this room elsewhere").waitFor();
  await shot(page, "kicked-desktop-light");
  await page.getByRole("button", { name: "Come back here" }).click();
  await second.getByText("You are in this room elsewhere").waitFor();
  await page.locator(".banner").waitFor({ state: "hidden" });

  const { token } = JSON.parse(stored);
  const id = new URL(page.url()).hash.split("/")[1];
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const post = async (path) =>
    (await fetch(`${home()}${path}`, { method: "POST", headers, body: "{}" })).status;
  assert.equal(await post(`/rooms/${id}/close`), 200);
  await page.getByText("This room is closed").waitFor();
  await shot(page, "closed-desktop-light");
  await page.goto(`${home()}/#room/999999`);
  await page.getByText("There is no such room").waitFor();
  await shot(page, "no-room-desktop-light");
  assert.equal(await post("/logout"), 200);
  await page.getByRole("button", { name: "Try again" }).click();
  await page.getByLabel("Your phone").waitFor();

  await server.kill();
  await page.getByLabel("Your phone").fill("+8613700009999");
  await page.getByRole("button", { name: "Send me a code" }).click();
  await page.getByText("cannot be reached").waitFor();
  await shot(page, "offline-desktop-light");
  await server.startAgain();
  assert.deepEqual(page.problems, []);
});

test("a flood of messages does not stop the page", async () => {
  const page = await open();
  await login(page);
  await enter(page, "the demonstration");
  const token = execFileSync(program, ["token", "--user", "999"], { env: server.environment }).toString().trim();
  const room = Number(new URL(page.url()).hash.split("/")[1]);
  const sender = await open();
  await sender.goto(home());
  const sent = await sender.evaluate(
    async ({ token, room, url }) => {
      const socket = new WebSocket(url, "sailfish.v1.json");
      const send = (frame) => socket.send(JSON.stringify(frame));
      const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
      await new Promise((resolve) => (socket.onopen = resolve));
      send({ code: 1001, token });
      send({ code: 1010, target: room });
      await wait(500);
      let sent = 0;
      const say = () => send({ code: 1003, bizCode: 5555, target: room, data: `flood ${(sent += 1)}` });
      for (let second = 0; second < 3; second += 1) {
        for (let number = 0; number < 900; number += 1) say();
        await wait(1_000);
      }
      return sent;
    },
    { token, room, url: `ws://127.0.0.1:${server.ws}` },
  );
  await page.getByText(`flood ${sent}`, { exact: true }).waitFor();
  assert((await page.locator(".log > *").count()) <= 200);
  await shot(page, "flood-phone-light");
  await say(page, "still here");
  await page.locator(".own:not(.pending)").getByText("still here").waitFor();
  assert.deepEqual(page.problems, []);
});

test("an operator sees what happens, speaks to a room, and sends a viewer away", async () => {
  const viewer = await open();
  await login(viewer);
  await enter(viewer, "the demonstration");
  const { userId } = JSON.parse(await viewer.evaluate(() => sessionStorage.getItem("sailfish.login")));
  const room = new URL(viewer.url()).hash.split("/")[1];
  const console_ = await open({ viewport: DESKTOP });
  await console_.goto(`http://127.0.0.1:${server.admin}/console`);
  await console_.getByRole("cell", { name: "0 (this one)" }).waitFor();
  const order = (title) => console_.locator("form.order").filter({ hasText: title });
  await order("Look up a user").getByLabel("User").fill(String(userId));
  await order("Look up a user").getByRole("button").click();
  await console_.getByText(`User ${userId} is online`).waitFor();
  const push = order("Push a message");
  await push.getByLabel("To").selectOption("room");
  await push.getByLabel("Number").fill(room);
  await push.getByLabel("Business code").fill("5555");
  await push.getByLabel("Text").fill("the show begins");
  await push.getByRole("button").click();
  await console_.getByText("It is sequenced").waitFor();
  await console_.getByLabel(/^To a room's write, 50 %: .* ms$/).waitFor();
  await viewer.getByText("the show begins").waitFor();
  await console_
    .getByLabel("Sessions")
    .getByText(/^[1-9]/)
    .first()
    .waitFor();
  await console_.waitForTimeout(shots === undefined ? 0 : 8_000);
  await shot(console_, "console-desktop-light");
  const kick = order("Kick a user");
  await kick.getByLabel("User").fill(String(userId));
  await kick.getByRole("button").click();
  await viewer.getByText("were sent away").waitFor();
  await console_.setViewportSize(PHONE);
  await console_.emulateMedia({ colorScheme: "dark" });
  await shot(console_, "console-phone-dark");
  for (const page of [viewer, console_]) assert.deepEqual(page.problems, []);
});

test("the policy lets nothing of others run, and the admin port sends browsers to the page", async () => {
  const response = await fetch(home());
  const policy = response.headers.get("content-security-policy");
  assert.match(policy, /default-src 'none'; script-src 'self';/);
  assert.doesNotMatch(policy, /unsafe|data:/);
  assert.doesNotMatch(await response.text(), /<script(?![^>]* src=)|style=| on[a-z]+=/);
  const admin = await fetch(`http://127.0.0.1:${server.admin}/`, {
    headers: { Accept: "text/html" },
    redirect: "manual",
  });
  assert.deepEqual([admin.status, admin.headers.get("location")], [307, `${home()}/`]);
  assert.match(await (await fetch(`http://127.0.0.1:${server.admin}/`)).text(), /^sailfish: /);
  const console_ = await fetch(`http://127.0.0.1:${server.admin}/console`);
  assert.match(console_.headers.get("content-security-policy"), /connect-src 'self';/);
});
