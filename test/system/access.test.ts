import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { InvokeAccepted, Page } from "../../src/core/api.ts";
import {
  type Answer,
  deploy,
  errorOf,
  eventually,
  idOf,
  manage,
  send,
  type Target,
  tryDeploy,
  upload,
  zip,
} from "./api.ts";
import { type RunningPlatform, startPlatform } from "./platform.ts";

const OPERATOR = "operator-token-0123456789";
const TEAM = "team-token-0123456789";
const READER = "reader-token-0123456789";
const CALLER = "caller-token-0123456789";
/** Answers everything that code can see of its call and its surroundings. */
const TELLS_ALL = `export default async (request, context) => {
  const { readFileSync, readdirSync } = await import("node:fs");
  const environments = readdirSync("/proc").filter(Number).map((pid) => { try { return readFileSync("/proc/" + pid + "/environ", "utf8"); } catch { return ""; } });
  return Response.json({ headers: [...request.headers], environment: process.env, environments, context: String(JSON.stringify(context)), arguments: process.argv });
};`;

let platform: RunningPlatform;
let scratch: string;
const as = (token: string): Target => ({ url: platform.url, token });
let nobody: Target;

before(async () => {
  scratch = mkdtempSync(join(tmpdir(), "koine-access-"));
  const tokenFile = join(scratch, "tokens");
  writeFileSync(
    tokenFile,
    `# token subject namespace rights\n${TEAM} team-ci team\n\n${READER} local team read # may only look\n${CALLER} partner team invoke\n`,
  );
  platform = await startPlatform({ args: ["--token-file", tokenFile], env: { KOINE_TOKEN: OPERATOR } });
  nobody = { url: platform.url };
  await deploy(as(OPERATOR), "closed", `export default () => new Response("closed");`);
  await deploy(as(OPERATOR), "open", TELLS_ALL, { spec: { access: "public" } });
  await deploy(as(TEAM), "own", TELLS_ALL, { namespace: "team" });
  await manage(as(OPERATOR), "PUT", "/v1/namespaces/default/secrets/hidden", { value: "v" });
});

after(async () => {
  await platform?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

test("without a token, or with a wrong one, nothing answers but public functions and health", async () => {
  const wrong = [nobody, as("wrong-token-0123456789"), as(OPERATOR.slice(0, -1)), as(`${OPERATOR}x`)];
  const closed = [
    "/v1/status",
    "/v1/runtimes",
    "/v1/namespaces/default/functions",
    "/v1/namespaces/default/secrets",
    "/v1/namespaces/default/activations",
    "/metrics",
    "/openapi.json",
    "/fn/closed",
    "/fn/closed:1",
    "/ns/team/fn/own",
  ];
  for (const caller of wrong) {
    for (const path of closed) {
      const answer = await send(caller, path);
      assert.deepEqual([answer.status, answer.headers["www-authenticate"]], [401, 'Bearer realm="koine"'], path);
      errorOf(answer, "unauthorized");
    }
    for (const path of ["/fn/open", "/healthz", "/readyz"]) assert.equal((await send(caller, path)).status, 200, path);
  }
  const unauthorized = await Promise.all([
    upload(nobody, zip([{ path: "index.mjs", content: "" }])),
    manage(nobody, "PUT", "/v1/namespaces/default/functions/open", {}),
    manage(nobody, "POST", "/v1/namespaces/default/functions/closed/invoke", {}),
    send(nobody, "/fn/closed", { headers: { prefer: "respond-async" } }),
    send(nobody, "/fn/closed", { headers: { authorization: `Basic ${btoa(`x:${OPERATOR}`)}` } }),
  ]);
  for (const answer of unauthorized) assert.equal(answer.status, 401, answer.text);
});

test("who may not invoke a function does not learn whether it is there, or what it is called", async () => {
  for (const name of ["closed", "closer", "nothing", "closed:9"]) {
    const { code, message } = errorOf(await send(nobody, `/fn/${name}`));
    assert.equal(code, "unauthorized");
    assert.doesNotMatch(message, /closed/);
    assert.equal(errorOf(await send(as(TEAM), `/fn/${name}`)).code, "forbidden");
  }
});

test("the operator's token opens everything", async () => {
  for (const path of [
    "/v1/status",
    "/metrics",
    "/openapi.json",
    "/fn/closed",
    "/ns/team/fn/own",
    "/v1/namespaces/team/functions",
  ]) {
    assert.equal((await send(as(OPERATOR), path)).status, 200, path);
  }
  const lower = await send(nobody, "/fn/closed", { headers: { authorization: `bearer  ${OPERATOR}` } });
  assert.equal(lower.status, 200);
});

test("a token that is bound to a namespace sees and touches that one only, on every route", async () => {
  const code = await digestOf(
    upload(as(OPERATOR), zip([{ path: "index.mjs", content: "export default () => new Response('')" }])),
  );
  const activationId = idOf(await send(as(OPERATOR), "/fn/closed"));
  const ns = "/v1/namespaces/default";
  const elsewhere: readonly [string, string, unknown?][] = [
    ["GET", `${ns}/functions`],
    ["GET", `${ns}/functions/closed`],
    ["PUT", `${ns}/functions/closed`, { code }],
    ["PUT", `${ns}/functions/fresh`, { code }],
    ["DELETE", `${ns}/functions/closed`],
    ["GET", `${ns}/functions/closed/versions`],
    ["POST", `${ns}/functions/closed/publish`, { version: 1 }],
    ["POST", `${ns}/functions/closed/rollback`, {}],
    ["GET", `${ns}/functions/closed/aliases`],
    ["PUT", `${ns}/functions/closed/aliases/a`, { version: 1 }],
    ["DELETE", `${ns}/functions/closed/aliases/a`],
    ["POST", `${ns}/functions/closed/invoke`, {}],
    ["POST", `${ns}/functions/closed/invoke?mode=async`, {}],
    ["GET", `${ns}/functions/closed/logs`],
    ["GET", `${ns}/functions/closed/logs?follow=true`],
    ["GET", `${ns}/activations`],
    ["GET", `${ns}/activations/${activationId}`],
    ["GET", `${ns}/activations/${activationId}/logs`],
    ["GET", `${ns}/activations/${activationId}/result`],
    ["GET", `${ns}/secrets`],
    ["PUT", `${ns}/secrets/hidden`, { value: "changed" }],
    ["DELETE", `${ns}/secrets/hidden`],
    ["GET", "/fn/closed"],
    ["GET", "/ns/default/fn/closed"],
    ["GET", "/v1/status"],
    ["GET", "/v1/doctor"],
    ["GET", "/metrics"],
  ];
  for (const [method, path, body] of elsewhere) {
    const answer = await manage(as(TEAM), method, path, body);
    assert.equal(answer.status, 403, `${method} ${path} → ${answer.status} ${answer.text}`);
    errorOf(answer, "forbidden");
  }
  // The whole address of another namespace's function in the place of a name.
  for (const name of ["default%2F%2Fclosed", "default%2Fx%2Fclosed", "..%2F..%2Fdefault%2Ffunctions%2Fclosed"]) {
    for (const [method, body] of [
      ["GET", undefined],
      ["PUT", { code }],
      ["DELETE", undefined],
    ] as const) {
      const answer = await manage(as(TEAM), method, `/v1/namespaces/team/functions/${name}`, body);
      assert.equal(answer.status, 400, `${method} ${name}`);
      errorOf(answer, "invalid-name");
    }
    assert.equal((await send(as(TEAM), `/ns/team/fn/${name}`)).status, 400);
  }
  // Ids of another namespace in one's own.
  for (const path of ["", "/result"]) {
    errorOf(await send(as(TEAM), `/v1/namespaces/team/activations/${activationId}${path}`), "activation-not-found");
  }
  assert.deepEqual(await itemsOf(as(TEAM), `/v1/namespaces/team/activations/${activationId}/logs`), []);
  assert.deepEqual(await itemsOf(as(TEAM), "/v1/namespaces/team/activations?function=closed"), []);
  errorOf(
    await tryDeploy(as(TEAM), "thief", "export default () => new Response('')", {
      namespace: "team",
      spec: { secrets: ["hidden"] },
    }),
    "secret-not-found",
  );

  assert.deepEqual(
    (await itemsOf(as(TEAM), "/v1/namespaces/team/functions")).map(({ name }) => name),
    ["own"],
  );
  assert.equal((await send(as(TEAM), "/ns/team/fn/own")).status, 200);
  assert.equal((await send(as(TEAM), "/fn/open")).status, 200);
  const names = (await itemsOf(as(OPERATOR), `${ns}/functions`)).map(({ name }) => name);
  assert.deepEqual(names, ["closed", "open"]);
});

test("a token has the rights that its line says", async () => {
  const own = "/v1/namespaces/team/functions/own";
  assert.equal((await send(as(READER), own)).status, 200);
  assert.equal((await send(as(CALLER), "/ns/team/fn/own")).status, 200);
  const refused = await Promise.all([
    send(as(READER), "/ns/team/fn/own"),
    manage(as(READER), "POST", `${own}/invoke`, {}),
    manage(as(READER), "POST", `${own}/publish`, { version: 1 }),
    send(as(READER), own, { method: "DELETE" }),
    upload(as(READER), zip([{ path: "index.mjs", content: "" }])),
    send(as(CALLER), own),
    send(as(CALLER), `${own}/logs`),
    send(as(CALLER), own, { method: "DELETE" }),
    send(as(CALLER), "/openapi.json"),
  ]);
  for (const answer of refused.slice(0, -1)) errorOf(answer, "forbidden");
  assert.ok([401, 403].includes(refused.at(-1)?.status ?? 0));
});

test("a token of the platform is never shown to a function, another one is", async () => {
  const shown: Answer[] = [
    await send(as(OPERATOR), "/fn/open"),
    await send(as(TEAM), "/ns/team/fn/own"),
    await manage(as(TEAM), "POST", "/v1/namespaces/team/functions/own/invoke", {}),
    await send(as(READER), "/fn/open"),
    await resultOf(as(TEAM), "/ns/team/fn/own"),
  ];
  for (const answer of shown) {
    assert.equal(answer.status, 200, answer.text);
    for (const token of [OPERATOR, TEAM, READER]) assert.ok(!answer.text.includes(token), answer.text);
    assert.doesNotMatch(answer.text, /authorization/i);
  }
  const foreign = await send(as("a-token-of-the-function-itself"), "/fn/open");
  assert.match(foreign.text, /Bearer a-token-of-the-function-itself/);
});

test("the command line says what is not allowed, with exit code 3, and takes its token from the environment", async () => {
  const list = (token?: string, ...args: string[]) =>
    platform.koine(["list", ...args], token === undefined ? {} : { env: { KOINE_TOKEN: token } });
  const [none, wrong, elsewhere, own] = await Promise.all([
    list(),
    list("wrong-token-0123456789"),
    list(TEAM),
    list(TEAM, "--namespace", "team"),
  ]);
  for (const result of [none, wrong, elsewhere]) {
    assert.equal(result.code, 3, result.stderr);
    assert.doesNotMatch(result.stderr, /token-0123456789/);
  }
  assert.equal(own.code, 0, own.stderr);
  assert.match(own.stdout, /own/);
  assert.ok(!platform.output.includes(OPERATOR));
});

async function digestOf(uploaded: Promise<Answer>): Promise<string> {
  return (JSON.parse((await uploaded).text) as { digest: string }).digest;
}

async function itemsOf(target: Target, path: string): Promise<readonly { readonly name: string }[]> {
  const answer = await send(target, path);
  assert.equal(answer.status, 200, answer.text);
  return (JSON.parse(answer.text) as Page<{ name: string }>).items;
}

/** Calls asynchronously and answers what was kept. */
async function resultOf(target: Target, path: string): Promise<Answer> {
  const accepted = await send(target, path, { headers: { prefer: "respond-async" } });
  const { activationId } = JSON.parse(accepted.text) as InvokeAccepted;
  return await eventually("the result", async () => {
    const answer = await send(target, `/v1/namespaces/team/activations/${activationId}/result`);
    return answer.status === 200 ? answer : null;
  });
}
