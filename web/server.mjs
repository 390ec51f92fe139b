/** For tests: a `sailfish up` of their own, in a temporary folder, and a browser. SAILFISH is the program. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

export const program = process.env.SAILFISH;
if (program === undefined) throw new Error("which server? SAILFISH=path/to/sailfish npm test");

/** CHROMIUM is the browser, if it is not /usr/bin/chromium. */
export const launchBrowser = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
  });

async function freePorts(count) {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, "127.0.0.1");
      await once(server, "listening");
      return server;
    }),
  );
  const free = servers.map((server) => server.address().port);
  for (const server of servers) server.close();
  return free;
}

/** A server that can be killed and started again, on the same ports and with the same files. */
export class Server {
  static async start(environment = {}) {
    const folder = mkdtempSync(join(tmpdir(), "sailfish-web-"));
    const server = new Server();
    server.folder = folder;
    server.environment = { ...process.env, XDG_STATE_HOME: folder, HOME: folder, ...environment };
    [server.tcp, server.ws, server.admin, server.backend] = await freePorts(4);
    await server.startAgain();
    return server;
  }

  async startAgain() {
    const [tcp, ws, admin, backend] = [this.tcp, this.ws, this.admin, this.backend].map(
      (port) => `127.0.0.1:${port}`,
    );
    const addresses = ["--listen", tcp, "--listen-ws", ws, "--admin", admin];
    const settings = ["--set", `backend.listen=${backend}`, "--set", "backend.mock=true"];
    this.process = spawn(program, ["up", "--shards", "1", "--engine", "epoll", ...addresses, ...settings], {
      env: this.environment,
      stdio: ["ignore", "pipe", "pipe"],
    });
    const errors = [];
    createInterface({ input: this.process.stderr }).on("line", (line) => errors.push(line));
    const lines = createInterface({ input: this.process.stdout });
    await new Promise((resolve, reject) => {
      lines.on("line", (line) => line.startsWith("ready") && resolve());
      this.process.once("exit", () => reject(new Error(`the server ended: ${errors.join("\n")}`)));
    });
  }

  async kill() {
    this.process.removeAllListeners("exit");
    this.process.kill("SIGKILL");
    await once(this.process, "exit");
  }

  async remove() {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
