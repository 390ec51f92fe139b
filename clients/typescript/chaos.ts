/**
 * Clients chat while their server is killed (`kill`), or their connections are cut (`cut`), and nothing is
 * lost or doubled: node dist/chaos.js SAILFISH [SECONDS] [kill|cut]. SAILFISH is the program; it gets ports
 * and a folder of its own. With NO_HISTORY=1 in the environment, clients do without room history. Ends with
 * code 1 if a promise was broken.
 *
 * The same with servers that somebody else runs and kills: node dist/chaos.js URL SECONDS TOKEN,TOKEN,TOKEN,
 * with the tokens of the users 101, 102 and 103.
 */

import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Client, type Message, type Outcome } from "./src/index.js";
import { NodeWebSocket } from "./src/node.js";

const [program, seconds = "12", fault = "kill"] = process.argv.slice(2);
if (program === undefined) throw new Error("which program? node dist/chaos.js SAILFISH [SECONDS] [kill|cut]");

/** The servers of somebody else, if there are any. */
const given = program.includes("://") ? { url: program, tokens: fault.split(",") } : undefined;
const hasHistory = process.env["NO_HISTORY"] === undefined;
const ROOM = 7;
const USERS = [101, 102, 103];
const folder = mkdtempSync(join(tmpdir(), "sailfish-chaos-"));
const environment = { ...process.env, XDG_STATE_HOME: folder, HOME: folder };

/** Ports that were free a moment ago. They stay the same over restarts, as clients know them. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, "127.0.0.1");
      await once(server, "listening");
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  for (const server of servers) server.close();
  return ports;
}

const [tcp, ws, admin, backend, entry] = await freePorts(5);

/** Connections of clients, which come through here so that they can be cut in the middle of anything. */
const lines = new Set<Socket>();
const proxy = createServer((client) => {
  const server = connect(ws!, "127.0.0.1");
  for (const [from, to] of [
    [client, server],
    [server, client],
  ] as const) {
    from.on("error", () => {});
    from.on("close", () => to.destroy());
    from.pipe(to);
  }
  lines.add(client);
  client.on("close", () => lines.delete(client));
}).listen(entry, "127.0.0.1");

async function startServer(): Promise<ChildProcess> {
  const server = spawn(
    program!,
    [
      ...["up", "--shards", "2", "--engine", "epoll"],
      ...["--listen", `127.0.0.1:${tcp}`, "--listen-ws", `127.0.0.1:${ws}`, "--admin", `127.0.0.1:${admin}`],
      ...["--set", `backend.listen=127.0.0.1:${backend}`],
    ],
    { env: environment, stdio: ["ignore", "pipe", "pipe"] },
  );
  const errors: string[] = [];
  createInterface({ input: server.stderr! }).on("line", (line) => errors.push(line));
  const lines = createInterface({ input: server.stdout! });
  const ready = new Promise<void>((resolve, reject) => {
    lines.on("line", (line) => line.startsWith("ready") && resolve());
    server.on("exit", () => reject(new Error(`the server ended: ${errors.join("\n")}`)));
  });
  await ready;
  return server;
}

function tokenOf(user: number): string {
  return execFileSync(program!, ["token", "--user", String(user)], { env: environment })
    .toString()
    .trim();
}

/** What one user sent and saw. */
interface Ledger {
  user: number;
  client: Client;
  outcomes: Map<string, Outcome>;
  shown: Message[];
  gaps: number;
}

function open(user: number): Ledger {
  const token = given?.tokens[USERS.indexOf(user)] ?? tokenOf(user);
  const client = new Client({
    url: given?.url ?? `ws://127.0.0.1:${entry}`,
    token: () => token,
    WebSocket: NodeWebSocket,
    backoffMs: 100,
    repeatMs: 5_000,
    history: hasHistory,
  });
  const ledger: Ledger = { user, client, outcomes: new Map(), shown: [], gaps: 0 };
  client.on("message", (message) => void ledger.shown.push(message));
  client.on("joined", () => void (joins += 1));
  client.on("gap", () => void (ledger.gaps += 1));
  client.start();
  return ledger;
}

let sent = 0;
function send(ledger: Ledger, bizCode: number, target: number): void {
  const clientMsgId = `${ledger.user}-${++sent}`;
  void ledger.client
    .send({ bizCode, target, clientMsgId, payload: `${bizCode} ${target} ${clientMsgId}` })
    .then((outcome) => {
      ledger.outcomes.set(clientMsgId, outcome);
    });
}

let server = given ? undefined : await startServer();
let joins = 0;
try {
  const ledgers = USERS.map(open);
  // What was said before a first join is nobody's loss.
  for (const { client } of ledgers) assert.equal((await client.join(ROOM)).outcome, "joined");
  const end = performance.now() + Number(seconds) * 1_000;
  let faults = 0;
  let killAt = performance.now() + 2_000;
  while (performance.now() < end) {
    for (const ledger of ledgers) {
      send(ledger, 5555, ROOM);
      for (const user of USERS) if (user !== ledger.user) send(ledger, 6001, user);
    }
    await sleep(20);
    if (performance.now() < killAt || server === undefined) continue;
    if (fault === "cut") {
      const [line] = [...lines].sort(() => Math.random() - 0.5);
      line?.destroy();
      faults += 1;
      killAt = performance.now() + 300;
      continue;
    }
    server.removeAllListeners("exit");
    server.kill("SIGKILL");
    await once(server, "exit");
    faults += 1;
    server = await startServer();
    killAt = performance.now() + 3_000;
  }
  // As long as something comes, the machine is only slow.
  const longest = performance.now() + 240_000;
  let patience = performance.now() + 60_000;
  const due = () => ledgers.reduce((sum, { client }) => sum + client.unsent, 0);
  const texts = (ledger: Ledger, bizCode: number) =>
    ledger.shown.filter((message) => message.bizCode === bizCode);
  while (due() > 0 && performance.now() < patience) await sleep(50);
  assert.equal(due(), 0, "every message has its outcome");
  // What comes from an inbox, or from a room's history, comes after the outcomes: it is waited for. Of what
  // was said in the room, a server that is killed takes with it what it kept; whoever misses that is told of
  // a gap.
  const idsShown = () => ledgers.map(({ shown }) => new Set(shown.map(({ clientMsgId }) => clientMsgId)));
  const outcomes = () => ledgers.flatMap((ledger) => [...ledger.outcomes]);
  const lost = (places = idsShown()) =>
    outcomes().filter(([id, { outcome }]) => outcome !== "sequenced" && !places.some((ids) => ids.has(id)));
  const missed = (places = idsShown()) =>
    outcomes()
      .filter(([, { outcome }]) => outcome === "sequenced")
      .reduce((sum, [id]) => sum + places.filter((ids) => !ids.has(id)).length, 0);
  const gaps = () => ledgers.reduce((sum, ledger) => sum + ledger.gaps, 0);
  const count = () => ledgers.reduce((sum, ledger) => sum + ledger.shown.length, 0);
  for (let quiet = 0, before = -1; quiet < 10 && performance.now() < patience; quiet += 1) {
    const isDue = lost().length > 0 || (missed() > 0 && gaps() === 0);
    if (isDue || count() !== before) quiet = 0;
    if (count() !== before) patience = Math.min(performance.now() + 60_000, longest);
    before = count();
    await sleep(200);
  }

  let shown = 0;
  for (const ledger of ledgers) {
    const failed = [...ledger.outcomes].filter(([, { outcome }]) => outcome === "failed");
    assert.deepEqual(failed, [], `messages of ${ledger.user} failed`);
    // Once each, although the server lost its memory of them.
    const names = ledger.shown.map(({ sender, clientMsgId }) => `${sender} ${clientMsgId}`);
    assert.equal(new Set(names).size, names.length, `${ledger.user} was shown a message twice`);
    const sequences = texts(ledger, 5555).map(({ sequence }) => sequence!);
    assert(
      sequences.every((sequence, index) => index === 0 || sequence > sequences[index - 1]!),
      "a room has one order",
    );
    shown += names.length;
  }
  assert.deepEqual(lost(), [], "one to a user is with that user");
  const missing = missed();
  assert(missing === 0 || gaps() > 0, "what is missing in a room is told");
  // A server that lives on keeps what was said, so nothing is missing.
  if (given) assert(joins > 2 * USERS.length, `only ${joins} joins`);
  if (fault === "cut" && hasHistory) assert.deepEqual([missing, gaps()], [0, 0], "history covers a cut");
  console.log(
    `${given ? `${joins} joins` : `${faults} times ${fault}`}: ${sent} messages sent, ${shown} shown, ${missing} of the room missed by who was away, ${gaps()} gaps told`,
  );
  for (const { client } of ledgers) client.stop();
} finally {
  server?.removeAllListeners("exit");
  server?.kill("SIGKILL");
  proxy.close();
  rmSync(folder, { recursive: true, force: true });
}
