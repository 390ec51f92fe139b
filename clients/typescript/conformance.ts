/**
 * The program that the conformance suite runs (clients/README.md): events of a client as lines of JSON. Ends
 * when its stdin does.
 */

import { parseArgs } from "node:util";
import { Client, type ClientOptions } from "./src/index.js";
import { NodeWebSocket } from "./src/node.js";

const number = { type: "string" } as const;
const { values } = parseArgs({
  options: {
    tcp: { type: "string" },
    ws: { type: "string" },
    scenario: { type: "string" },
    token: { type: "string", multiple: true },
    room: { type: "string", multiple: true },
    to: { type: "string" },
    last: number,
    send: number,
    store: number,
    "repeat-ms": number,
    "busy-ms": number,
    "backoff-ms": number,
  },
});
if (values.ws === undefined) throw new Error("this client speaks WebSocket: --ws ADDRESS");

function print(event: string, fields: object = {}): void {
  process.stdout.write(
    JSON.stringify({ event, ...fields }, (_, value) => (typeof value === "bigint" ? Number(value) : value)) +
      "\n",
  );
}

const tokens = values.token ?? ["a.b.c"];
let asked = 0;
const options: ClientOptions = {
  url: values.ws,
  WebSocket: NodeWebSocket,
  token: () => tokens[Math.min(asked++, tokens.length - 1)] ?? null,
  backoffMs: Number(values["backoff-ms"] ?? 250),
};
if (values["busy-ms"] !== undefined) options.busyMs = Number(values["busy-ms"]);
if (values["repeat-ms"] !== undefined) options.repeatMs = Number(values["repeat-ms"]);
if (values.store !== undefined) options.storeMessagesMax = Number(values.store);
const client = new Client(options);

client.on("status", (status) => {
  if (status.name === "online") print("logged_in");
  if (status.name === "waiting") print("disconnected", { reason: status.reason });
  if (status.name === "stopped") {
    print("ended", { reason: status.reason });
    process.stdin.destroy();
  }
});
client.on("joined", (joined) => print("joined", joined));
client.on("gap", (gap) => print("gap", gap));
client.on("notice", ({ name }) => print("notice", { name }));
client.on("message", ({ messageId, bizCode, clientMsgId, text, ...message }) => {
  const { sender, room, sequence } = message;
  const names = { id: String(messageId), client_msg_id: clientMsgId === "" ? undefined : clientMsgId };
  print("message", { ...names, sender, biz_code: bizCode, room, sequence, data: text });
});

const rooms = values.room ?? [];
const last = values.last === undefined ? {} : { last: Number(values.last) };
for (const room of rooms) void client.join(room, last);
for (let number = 1; number <= Number(values.send ?? 0); number += 1) {
  const clientMsgId = `m${number}`;
  const [bizCode, target] = values.to === undefined ? [5555, rooms[0] ?? "0"] : [6001, values.to];
  void client.send({ bizCode, target, clientMsgId, payload: `hello ${number}` }).then((outcome) => {
    if (outcome.outcome !== "failed")
      print("outcome", { client_msg_id: clientMsgId, ...outcome, messageId: undefined });
    else if (outcome.reason === "store_full") print("refused", { client_msg_id: clientMsgId });
    else if (outcome.reason !== "stopped") {
      print("outcome", { client_msg_id: clientMsgId, outcome: "failed", reason: outcome.reason });
    }
  });
}
client.start();

process.stdin.on("end", () => client.stop());
process.stdin.resume();
