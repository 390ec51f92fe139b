import { Client } from "./src/index.js";
import { NodeWebSocket } from "./src/node.js";

const client = new Client({
  url: "ws://127.0.0.1:5349",
  token: () => process.argv[2] ?? null,
  WebSocket: NodeWebSocket,
});
client.on("status", (status) => console.log(status));
client.on("message", ({ sender, text }) => console.log(`${sender}: ${text}`));
client.start();
await client.join(7, { last: 20 });
console.log(await client.send({ bizCode: 5555, target: 7, payload: "hello from Node" }));
