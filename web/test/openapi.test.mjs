/**
 * The OpenAPI documents of backend and control API: they are valid, programs can be generated from them, and
 * the page that shows them can call what needs a secret. SAILFISH=path/to/sailfish npm test.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createConfig, lintFromString } from "@redocly/openapi-core";
import openapiTS, { astToString } from "openapi-typescript";
import { Server, launchBrowser } from "../server.mjs";

const SECRET = "an internal secret of this test, 32 bytes";
const RULES = [
  "struct",
  "spec-strict-refs",
  "component-name-unique",
  "no-ambiguous-paths",
  "no-enum-type-mismatch",
  "no-identical-paths",
  "no-invalid-media-type-examples",
  "no-invalid-parameter-examples",
  "no-invalid-schema-examples",
  "no-required-schema-properties-undefined",
  "no-schema-type-mismatch",
  "no-unresolved-refs",
  "no-unused-components",
  "operation-2xx-response",
  "operation-operationId",
  "operation-operationId-unique",
  "operation-operationId-url-safe",
  "operation-parameters-unique",
  "operation-summary",
  "operation-singular-tag",
  "path-params-defined",
  "security-defined",
];
/** The control API is small: its operations are told apart by their paths alone. */
const RULES_OF_BACKEND = ["operation-tag-defined", "parameter-description", "tag-description"];
/** Calls that a client of the generated types makes. The compiler refuses them if the document lacks something. */
const USE = `
import type { components, operations, paths } from "./backend.js";
import type { operations as control } from "./control.js";

type Body<T extends keyof operations> = operations[T] extends
  { requestBody: { content: { "application/json": infer B } } } ? B : never;
type Answer<T extends keyof operations> = operations[T] extends
  { responses: { 200: { content: { "application/json": infer B } } } } ? B : never;

const gift: Body<"gifts_send"> = { id: "g1", gift_id: 1, room_id: 7, receiver_id: 2, count: 1 };
// @ts-expect-error: a number is no text
const wrong: Body<"gifts_send"> = { ...gift, id: 1 };
export const total = (answer: Answer<"gifts_send">): number => answer.total;
export const where = (answer: Answer<"im_token_make">): string => answer.websocket;
export const code = (error: components["schemas"]["ErrorBody"]): string => error.code;
export type Refused = operations["wallet_grant"]["responses"][401 | 403 | 503];
export type Path = paths["/rooms/{id}/members"]["get"]["parameters"]["path"]["id"];
export const id: Path = 7;
export type Pushed = control["push_many"]["responses"][200];
export { wrong };
`;

let server, browser;
before(async () => {
  // In this order: a server whose test has no browser would run on, and the test with it.
  browser = await launchBrowser();
  server = await Server.start({ SAILFISH_BACKEND__INTERNAL_SECRET: SECRET });
});
after(async () => {
  await browser?.close();
  await server?.remove();
});

const document = async (port) => (await fetch(`http://127.0.0.1:${port}/openapi.json`)).text();

test("both documents are valid, and generated types compile", async () => {
  for (const [name, port, names] of [
    ["backend", server.backend, [...RULES, ...RULES_OF_BACKEND]],
    ["control", server.admin, RULES],
  ]) {
    const config = await createConfig({ rules: Object.fromEntries(names.map((rule) => [rule, "error"])) });
    const source = await document(port);
    const problems = await lintFromString({ source, config, absoluteRef: `${name}.json` });
    const told = problems.map(({ message, location }) => `${location[0]?.pointer}: ${message}`);
    assert.deepEqual(told, [], name);
    writeFileSync(join(server.folder, `${name}.d.ts`), astToString(await openapiTS(source)));
  }
  writeFileSync(join(server.folder, "use.ts"), USE);
  const tsc = fileURLToPath(new URL("../node_modules/typescript/bin/tsc", import.meta.url));
  const options = ["--strict", "--noEmit", "--module", "nodenext"];
  try {
    execFileSync(process.execPath, [tsc, ...options, "use.ts"], { cwd: server.folder, encoding: "utf8" });
  } catch (error) {
    assert.fail(error.stdout);
  }
});

test("the page of the API calls /internal once the secret is given", async () => {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(15_000);
  await page.goto(`http://127.0.0.1:${server.backend}/docs/`);
  const audit = page.locator("#operations-wallet-wallet_audit");
  const execute = async () => {
    const answer = page.waitForResponse((response) => response.url().endsWith("/internal/audit"));
    await audit.getByRole("button", { name: "Execute" }).click();
    return (await answer).status();
  };
  await audit.locator(".opblock-summary-control").click();
  await audit.getByRole("button", { name: "Try it out" }).click();
  assert.equal(await execute(), 401);
  await page.getByRole("button", { name: "Authorize", exact: true }).click();
  const form = page.locator(".auth-container").filter({ hasText: "backend.internal_secret" });
  await form.locator("input").fill(SECRET);
  await form.getByRole("button", { name: "Apply credentials" }).click();
  await page.locator(".close-modal").click();
  assert.equal(await execute(), 200);
});
