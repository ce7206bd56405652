import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { TriggerView } from "../../src/core/api.ts";
import { call, deploy, eventually, manage, read } from "./api.ts";
import { type RunningPlatform, startPlatform } from "./platform.ts";

const CALLEE = "export default async (request) => Response.json({ got: await request.json() });";
const KEPT = `export const seen = [];
export default async (request) => {
  const type = request.headers.get("ce-type");
  if (type !== null) seen.push(type);
  return Response.json(seen);
};`;
const CALLER = `import { invoke, publish, schedule, secret, unschedule, KoineError } from "koine";
const tried = async (what) => { try { return await what(); } catch (error) { return error instanceof KoineError ? error.code : String(error); } };
export default async () => Response.json({
  invoked: await tried(() => invoke("callee", { a: 1 })),
  later: typeof (await tried(() => invoke("callee", {}, { async: true }))),
  missing: await tried(() => invoke("missing")),
  published: await tried(async () => (await publish("orders", { id: 17 }, { type: "order.made" })).subscriptions),
  scheduled: await tried(async () => (await schedule("mine", { function: "callee", rate: "1 day" })).kind),
  stolen: await tried(() => schedule("sub", { function: "callee", rate: "1 day" })),
  secret: await tried(() => secret("WORD")),
  other: await tried(() => secret("OTHER")),
  unscheduled: await tried(() => unschedule("mine")),
});`;
const RAW = `export default async (request) => {
  const { path, method, token } = await request.json();
  const { KOINE_API, KOINE_TOKEN } = process.env;
  if (path === undefined) return Response.json({ KOINE_API, KOINE_TOKEN });
  const answer = await fetch(KOINE_API + path, { method, headers: { authorization: "Bearer " + (token ?? KOINE_TOKEN) } });
  return new Response(String(answer.status));
};`;

let platform: RunningPlatform;

before(async () => {
  platform = await startPlatform();
  await deploy(platform, "callee", CALLEE);
  await deploy(platform, "kept", KEPT);
  for (const [name, value] of [
    ["WORD", "one"],
    ["OTHER", "two"],
  ] as const)
    await manage(platform, "PUT", `/v1/namespaces/default/secrets/${name}`, { value });
  await manage(platform, "PUT", "/v1/namespaces/default/topics/orders", {});
  const sub = { kind: "topic", function: "kept", settings: { topic: "orders" } };
  assert.equal((await manage(platform, "PUT", "/v1/namespaces/default/triggers/sub", sub)).status, 201);
});

after(async () => {
  await platform?.stop();
});

test("a function that is allowed to calls, publishes, schedules and reads its own secrets, in every network mode", async () => {
  for (const network of ["none", "egress"]) {
    await deploy(platform, "caller", CALLER, {
      spec: { allow: ["invoke", "publish", "schedule", "secrets"], secrets: ["WORD"], network },
    });
    const answer = await call(platform, "caller");
    assert.deepEqual(
      JSON.parse(answer.text),
      {
        invoked: { got: { a: 1 } },
        later: "string",
        missing: "function-not-found",
        published: 1,
        scheduled: "schedule",
        stolen: "forbidden",
        secret: "one",
        other: "secret-not-found",
      },
      network,
    );
  }
  await eventually("the published event", async () =>
    (await call(platform, "kept")).text.includes("order.made") ? true : null,
  );
  const { items } = await read<{ readonly items: readonly TriggerView[] }>(platform, "/v1/namespaces/default/triggers");
  assert.deepEqual(
    items.map(({ name, kind }) => `${name} ${kind}`),
    ["sub topic"],
  );
});

test("so does a function in Python", async () => {
  const source = `import koine

def handler(event, context):
    try:
        koine.schedule("sub", function="callee", rate="1 day")
        stolen = None
    except koine.KoineError as thrown:
        stolen = thrown.code
    return {
        "invoked": koine.invoke("callee", {"a": 1}),
        "published": koine.publish("orders", {"id": 18}, type="order.sent")["subscriptions"],
        "secret": koine.secret("WORD"),
        "stolen": stolen,
    }
`;
  await deploy(
    platform,
    "python",
    { "app.py": source },
    {
      spec: {
        runtime: "python3",
        handler: "app.handler",
        allow: ["invoke", "publish", "schedule", "secrets"],
        secrets: ["WORD"],
      },
    },
  );
  const answer = await manage(platform, "POST", "/v1/namespaces/default/functions/python/invoke", {});
  assert.deepEqual(JSON.parse(answer.text), {
    invoked: { got: { a: 1 } },
    published: 1,
    secret: "one",
    stolen: "forbidden",
  });
});

test("a secret that changes is read anew", async () => {
  await deploy(
    platform,
    "reader",
    'import { secret } from "koine"; export default async () => new Response(await secret("WORD"));',
    {
      spec: { allow: ["secrets"], secrets: ["WORD"] },
    },
  );
  assert.equal((await call(platform, "reader")).text, "one");
  await manage(platform, "PUT", "/v1/namespaces/default/secrets/WORD", { value: "changed" });
  await eventually("the new value", async () => ((await call(platform, "reader")).text === "changed" ? true : null));
});

test("what a function is not allowed it cannot do, whatever it asks", async () => {
  await deploy(platform, "raw", RAW, { spec: { allow: ["publish"] } });
  const ask = async (body: unknown): Promise<string> =>
    (await call(platform, "raw", { method: "POST", body: JSON.stringify(body) })).text;
  const refused = [
    ["GET", "/v1/status"],
    ["GET", "/metrics"],
    ["GET", "/v1/namespaces/default/secrets"],
    ["PUT", "/v1/namespaces/default/functions/callee"],
    ["DELETE", "/v1/namespaces/default/functions/callee"],
    ["POST", "/v1/namespaces/default/functions/callee/invoke"],
    ["GET", "/fn/callee"],
    ["GET", "/v1/namespaces/default/triggers"],
    ["POST", "/v1/namespaces/other/topics/orders"],
    ["GET", "/secrets/WORD"],
    ["POST", "/v1/namespaces/default/topics/orders/../../functions/callee/invoke"],
  ];
  for (const [method, path] of refused) assert.equal(await ask({ method, path }), "403", `${method} ${path}`);
  assert.equal(await ask({ method: "POST", path: "/v1/namespaces/default/topics/orders", token: "wrong" }), "401");
  assert.equal(await ask({ method: "POST", path: "/v1/namespaces/default/topics/orders" }), "202");
});

test("a function that is allowed nothing has neither address nor token, and no module to import", async () => {
  await deploy(platform, "raw", RAW);
  assert.equal((await call(platform, "raw", { method: "POST", body: "{}" })).text, "{}");
  await assert.rejects(deploy(platform, "importer", CALLER), /koine/);
});

test("a token is good for nothing at the platform's own port, nor anywhere after its instance has ended", async () => {
  await using open = await startPlatform({ sandbox: "none" });
  await deploy(open, "raw", RAW, { spec: { allow: ["publish"] } });
  await manage(open, "PUT", "/v1/namespaces/default/topics/orders", {});
  const { KOINE_API: api, KOINE_TOKEN: token } = JSON.parse(
    (await call(open, "raw", { method: "POST", body: "{}" })).text,
  ) as Record<string, string>;
  const ask = (): Promise<Response> =>
    fetch(`${api}/v1/namespaces/default/topics/orders`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}` },
    });
  assert.equal((await ask()).status, 202);
  await manage(open, "DELETE", "/v1/namespaces/default/functions/raw");
  await eventually(
    "the end of the port",
    async () =>
      await ask().then(
        (answer) => (answer.status === 401 ? true : null),
        () => true,
      ),
  );
});

test("with several engines what may ask the platform runs where the platform is, now and later", async () => {
  await using several = await startPlatform({ args: ["--engines", "2"] });
  await deploy(several, "callee", CALLEE);
  await deploy(
    several,
    "asking",
    'import { invoke } from "koine"; export default async () => Response.json(await invoke("callee", { a: 1 }));',
    {
      spec: { allow: ["invoke"] },
    },
  );
  for (let index = 0; index < 8; index++) assert.equal((await call(several, "asking")).status, 200);
  const later = await Promise.all(
    Array.from(
      { length: 8 },
      async () => (await call(several, "asking", { headers: { prefer: "respond-async" } })).headers.location,
    ),
  );
  for (const path of later)
    await eventually("its success", async () => {
      const { state } = await read<{ readonly state: string }>(several, String(path));
      assert.notEqual(state, "failed");
      return state === "succeeded" ? true : null;
    });
});
