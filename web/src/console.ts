/** The page for operators, on the admin port: what a node does, who is where, and orders to it. */

import { foreign, make, put, replace } from "./dom.js";
import { parse, quantile, total, type Sample } from "./metrics.js";

const LOOK_MS = 2_000;
const POINTS_MAX = 90;
const TIMEOUT_MS = 10_000;
const KEY = "sailfish.control";

interface Nodes {
  node: { id: number; role: string; shards: number; connections: number; draining: boolean };
  routers: Linked[];
  bridges: Linked[];
  gateways: { node: number; sessions: number; shards: unknown[] }[];
  gone: { node: number; role: string; seen_ms: number }[];
  missing?: string;
}

interface Linked {
  node: number;
  shard: number;
  up: boolean;
  queued_bytes: number;
}

interface User {
  user: number;
  online: boolean;
  sessions: { device: string; login_ms: number; node: number }[];
}

class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Of this tab, and gone with it. */
let secret = sessionStorage.getItem(KEY) ?? "";

async function ask(method: string, path: string, body?: object): Promise<Response> {
  const headers: Record<string, string> = {};
  if (secret !== "") headers["Authorization"] = `Bearer ${secret}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const request: RequestInit = {
    method,
    headers,
    cache: "no-store",
    signal: AbortSignal.timeout(TIMEOUT_MS),
  };
  if (body !== undefined) request.body = JSON.stringify(body);
  const response = await fetch(path, request).catch(() => {
    throw new Refused(0, "The node cannot be reached.");
  });
  if (response.ok) return response;
  const { message } = (await response.json().catch(() => ({}))) as { message?: string };
  throw new Refused(response.status, message ?? `The node answered ${response.status}.`);
}

const askJson = async <Answer>(method: string, path: string, body?: object) =>
  (await (await ask(method, path, body)).json()) as Answer;

function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A number over the last minutes, as a line; its last value in digits. */
class Chart {
  private readonly points: number[] = [];
  private readonly value = make("strong", {}, "–");
  private readonly line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  private readonly most = make("span", { class: "hint" });
  readonly element: HTMLElement;

  constructor(
    private readonly title: string,
    private readonly show: (value: number) => string,
  ) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${POINTS_MAX - 1} 40`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    svg.append(this.line);
    this.element = make("section", { class: "chart" }, make("h2", {}, title), this.value, svg, this.most);
  }

  add(value: number | undefined): void {
    this.points.push(value ?? 0);
    if (this.points.length > POINTS_MAX) this.points.shift();
    const most = Math.max(...this.points);
    const from = POINTS_MAX - this.points.length;
    const at = (point: number, index: number) =>
      `${from + index},${(38 - (point / (most || 1)) * 36).toFixed(1)}`;
    this.line.setAttribute("points", this.points.map(at).join(" "));
    this.value.textContent = value === undefined ? "–" : this.show(value);
    this.most.textContent = `at most ${this.show(most)} in ${Math.round((this.points.length * LOOK_MS) / 1_000)} s`;
    this.element.setAttribute("aria-label", `${this.title}: ${this.value.textContent}`);
  }
}

const whole = (value: number) => Math.round(value).toLocaleString();
const perSecond = (value: number) => `${value < 10 && value > 0 ? value.toFixed(1) : whole(value)}/s`;
const milliseconds = (value: number) =>
  value === Infinity
    ? "over the last bucket"
    : `${(value * 1_000).toLocaleString(undefined, { maximumFractionDigits: 3 })} ms`;

/** What is drawn, and how it is had from two looks that are `seconds` apart. */
const CHARTS: [
  string,
  (value: number) => string,
  (before: Sample, after: Sample, seconds: number) => number | undefined,
][] = [
  ["Connections", whole, (_, after) => total(after, "sailfish_connections")],
  ["Sessions", whole, (_, after) => total(after, "sailfish_sessions")],
  ["Rooms", whole, (_, after) => total(after, "sailfish_rooms")],
  ["Messages from clients", perSecond, rate("sailfish_frames_in_total", 'code="business"')],
  ["Messages to clients", perSecond, rate("sailfish_frames_out_total", 'code="business"')],
  ["Logins", perSecond, rate("sailfish_logins_total")],
  ["To a user's ack, 50 %", milliseconds, delivery("outcome", "user_reliable", 0.5)],
  ["To a user's ack, 99 %", milliseconds, delivery("outcome", "user_reliable", 0.99)],
  ["To a room's write, 50 %", milliseconds, delivery("write", "room", 0.5)],
  ["To a room's write, 99 %", milliseconds, delivery("write", "room", 0.99)],
  [
    "Turn of a shard, 99 %",
    milliseconds,
    (before, after) => quantile(before, after, "sailfish_turn_seconds", 0.99),
  ],
  ["CPU", (value) => `${Math.round(value * 100)} %`, rate("process_cpu_seconds_total")],
  [
    "Memory",
    (value) => `${whole(value / 1e6)} MB`,
    (_, after) => total(after, "process_resident_memory_bytes"),
  ],
];

/** From a message's arrival to its outcome, or from the router's word to the write: docs/OPERATIONS.md. */
function delivery(end: string, route: string, part: number) {
  return (before: Sample, after: Sample) =>
    quantile(before, after, `sailfish_delivery_${end}_seconds`, part, `route="${route}`);
}

function rate(name: string, label = "") {
  return (before: Sample, after: Sample, seconds: number) =>
    // A node that began anew counts from 0.
    Math.max(total(after, name, label) - total(before, name, label), 0) / seconds;
}

function table(caption: string, head: string[], rows: (Node | string)[][]): HTMLElement {
  return make(
    "table",
    {},
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))))),
  );
}

/** A form that does one thing and says how it went. */
function order(
  title: string,
  button: string,
  fields: HTMLElement[],
  act: () => Promise<string | HTMLElement>,
): HTMLElement {
  const answer = make("div", { class: "answer", role: "status" });
  const submit = make("button", { class: "primary" }, button);
  const form = make("form", { class: "order" }, make("h2", {}, title), ...fields, submit, answer);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit.disabled = true;
    replace(answer, "…");
    act()
      .then(
        (done) => replace(answer, done),
        (error: unknown) => replace(answer, make("span", { class: "problem" }, words(error))),
      )
      .finally(() => (submit.disabled = false));
  });
  return form;
}

function field(name: string, input: HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement): HTMLElement {
  return make("label", {}, name, input);
}

const numberInput = (value = "") =>
  make("input", { inputMode: "numeric", pattern: "-?[0-9]{1,19}", required: true, value });

function orders(): HTMLElement[] {
  const app = () => numberInput("1");
  const look = { app: app(), user: numberInput() };
  const kick = {
    app: app(),
    user: numberInput(),
    ban: make("input", { inputMode: "numeric", pattern: "[0-9]{0,7}", placeholder: "0" }),
  };
  const to = make(
    "select",
    {},
    make("option", { value: "user" }, "User"),
    make("option", { value: "room" }, "Room"),
  );
  const push = {
    app: app(),
    id: numberInput(),
    code: numberInput("6001"),
    text: make("input", { required: true, maxLength: 2_000 }),
  };
  const node = make("input", { inputMode: "numeric", pattern: "[0-9]{0,4}", placeholder: "this node" });
  const sure = make("input", { type: "checkbox", required: true });
  return [
    order("Look up a user", "Look up", [field("App", look.app), field("User", look.user)], async () => {
      const user = await askJson<User>("GET", `/v1/users/${look.app.value}/${look.user.value}`);
      if (!user.online) return `User ${user.user} is offline.`;
      return table(
        `User ${user.user} is online`,
        ["Device", "Node", "Since"],
        user.sessions.map(({ device, node, login_ms }) => [
          device,
          String(node),
          new Date(login_ms).toLocaleString(),
        ]),
      );
    }),
    order(
      "Push a message",
      "Push",
      [
        field("To", to),
        field("App", push.app),
        field("Number", push.id),
        field("Business code", push.code),
        field("Text", push.text),
      ],
      async () => {
        const body = {
          app: Number(push.app.value),
          [to.value]: Number(push.id.value),
          biz_code: Number(push.code.value),
          data: push.text.value,
          wait_ms: 5_000,
        };
        const answer = await askJson<{ outcome: string; reason?: string; sequence?: number }>(
          "POST",
          `/v1/push/${to.value}`,
          body,
        );
        const more = answer.reason ?? answer.sequence;
        return more === undefined || more === null
          ? `It is ${answer.outcome}.`
          : `It is ${answer.outcome}: ${more}.`;
      },
    ),
    order(
      "Kick a user",
      "Kick",
      [field("App", kick.app), field("User", kick.user), field("Keep out for (s)", kick.ban)],
      async () => {
        const body = {
          app: Number(kick.app.value),
          user: Number(kick.user.value),
          ban_ms: Number(kick.ban.value) * 1_000,
        };
        const { kicked } = await askJson<{ kicked: number }>("POST", "/v1/kick", body);
        return kicked === 1 ? "1 session ended." : `${kicked} sessions ended.`;
      },
    ),
    order(
      "Drain a node",
      "Drain",
      [
        field("Node", node),
        make("label", { class: "check" }, sure, "Send its clients away, then end its process"),
      ],
      async () => {
        const body = node.value === "" ? {} : { node: Number(node.value) };
        const answer = await askJson<{ node: number }>("POST", "/v1/drain", body);
        return `Node ${answer.node} goes.`;
      },
    ),
  ];
}

function nodesTable(nodes: Nodes): HTMLElement {
  const rows: (Node | string)[][] = [];
  const state = (text: string, isWell: boolean) => make("span", { class: isWell ? "well" : "ill" }, text);
  const own = nodes.node;
  rows.push([
    `${own.id} (this one)`,
    own.role,
    state(own.draining ? "draining" : "up", !own.draining),
    `${whole(own.connections)} connections on ${own.shards} ${own.shards === 1 ? "shard" : "shards"}`,
  ]);
  for (const { node, sessions } of nodes.gateways) {
    if (node !== own.id)
      rows.push([String(node), "gateway", state("up", true), `${whole(sessions)} sessions`]);
  }
  for (const [role, links] of [
    ["router", nodes.routers],
    ["bridge", nodes.bridges],
  ] as const) {
    for (const link of links) {
      rows.push([
        `${link.node}.${link.shard}`,
        role,
        state(link.up ? "linked" : "not linked", link.up),
        `${whole(link.queued_bytes / 1_000)} kB queued`,
      ]);
    }
  }
  for (const { node, role, seen_ms } of nodes.gone) {
    rows.push([String(node), role, state("gone", false), `seen ${new Date(seen_ms).toLocaleTimeString()}`]);
  }
  return table("Nodes", ["Node", "Role", "State", "Load"], rows);
}

function start(root: HTMLElement): void {
  const status = make("p", { class: "banner", role: "status", hidden: true });
  const nodesBox = make("section", { class: "wide" });
  const charts = CHARTS.map(([title, show]) => new Chart(title, show));
  const input = make("input", { type: "password", autocomplete: "off", required: true });
  const login = make(
    "form",
    { class: "order", hidden: true },
    make("h2", {}, "The control secret"),
    field("control.secret", input),
    make("button", { class: "primary" }, "Use it"),
  );
  login.addEventListener("submit", (event) => {
    event.preventDefault();
    secret = input.value;
    sessionStorage.setItem(KEY, secret);
    void look();
  });
  replace(
    root,
    make(
      "header",
      { class: "bar" },
      make("h1", {}, "Sailfish console"),
      make("a", { href: "/openapi.json" }, "API"),
    ),
    status,
    login,
    make(
      "main",
      { class: "console" },
      make("div", { class: "charts" }, ...charts.map(({ element }) => element)),
      nodesBox,
      make("div", { class: "orders" }, ...orders()),
    ),
  );

  let last: { sample: Sample; ms: number } | undefined;
  const look = async () => {
    try {
      const sample = parse(await (await ask("GET", "/metrics")).text());
      const before = last;
      last = { sample, ms: performance.now() };
      if (before !== undefined) {
        const seconds = (last.ms - before.ms) / 1_000;
        CHARTS.forEach(([, , value], index) => charts[index]?.add(value(before.sample, sample, seconds)));
      }
      const nodes = await askJson<Nodes>("GET", "/v1/nodes");
      replace(nodesBox, nodesTable(nodes));
      if (nodes.missing) put(nodesBox, make("p", { class: "problem" }, foreign(nodes.missing)));
      status.hidden = true;
      login.hidden = true;
    } catch (error) {
      status.hidden = false;
      login.hidden = !(error instanceof Refused && error.status === 401);
      status.textContent = login.hidden
        ? `${words(error)} What is shown may be old.`
        : "This node wants its control secret.";
    }
  };
  void look();
  // A tab that nobody looks at asks for nothing.
  setInterval(() => void (document.hidden || look()), LOOK_MS);
}

const root = document.getElementById("app");
if (root !== null) start(root);
