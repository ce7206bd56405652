import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { Agent, type IncomingMessage, request } from "node:http";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import type { ActivationView, LogView, Page, PlatformStatus } from "../../src/core/api.ts";
import { type Answer, eventually, type RequestOptions, type Source, zip } from "./api.ts";
import { type RunningPlatform, startPlatform } from "./platform.ts";

/** One connection that stays open, and so stays with the engine that accepted it. */
class Line implements Disposable {
  readonly #url: URL;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });

  constructor(url: string) {
    this.#url = new URL(url);
  }

  /** Resolves with the head of the answer. */
  begin(path: string, options: RequestOptions = {}): Promise<IncomingMessage> {
    const { hostname, port } = this.#url;
    const { method = "GET", headers = {}, body } = options;
    return new Promise((resolve, reject) => {
      request({ hostname, port, path, method, headers, agent: this.#agent }, resolve).on("error", reject).end(body);
    });
  }

  async send(path: string, options: RequestOptions = {}): Promise<Answer> {
    const incoming = await this.begin(path, options);
    let text = "";
    for await (const part of incoming.setEncoding("utf8")) text += String(part);
    return { status: incoming.statusCode ?? 0, headers: incoming.headers, text, complete: incoming.complete };
  }

  async manage(method: string, path: string, body?: unknown): Promise<Answer> {
    const json = { "content-type": "application/json" };
    const answer = await this.send(path, {
      method,
      ...(body === undefined ? {} : { headers: json, body: JSON.stringify(body) }),
    });
    assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${answer.text}`);
    return answer;
  }

  async read<Shape>(path: string): Promise<Shape> {
    return JSON.parse((await this.manage("GET", path)).text) as Shape;
  }

  async deploy(name: string, source: Source, spec: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const files = typeof source === "string" ? { "index.mjs": source } : source;
    const body = zip(Object.entries(files).map(([path, content]) => ({ path, content })));
    const uploaded = await this.send("/v1/code", {
      method: "POST",
      headers: { "content-type": "application/zip" },
      body,
    });
    assert.equal(uploaded.status, 201, uploaded.text);
    const { digest } = JSON.parse(uploaded.text) as { digest: string };
    await this.manage("PUT", functionPath(name), { code: digest, ...spec });
  }

  async call(name: string): Promise<string> {
    const answer = await this.send(`/fn/${name}`);
    assert.equal(answer.status, 200, answer.text);
    return answer.text;
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }
}

const LINES_MAX = 60;
/** Answers the same from one instance, and something else from every other one: what never runs twice at a time has one per engine. */
const WHO = "const me = crypto.randomUUID(); export default () => new Response(me);";

function functionPath(name: string): string {
  return `/v1/namespaces/default/functions/${name}`;
}

/** A connection to each of two engines. */
async function lineToEach(url: string): Promise<readonly [Line, Line]> {
  const first = new Line(url);
  await first.deploy("who", WHO);
  const who = await first.call("who");
  for (let tried = 0; tried < LINES_MAX; tried++) {
    const other = new Line(url);
    if ((await other.call("who")) !== who) return [first, other];
    other[Symbol.dispose]();
  }
  throw new Error(`none of ${LINES_MAX} connections reached another engine`);
}

async function status(line: Line): Promise<PlatformStatus> {
  return await line.read<PlatformStatus>("/v1/status");
}

suite("a platform with two engines", () => {
  let platform: RunningPlatform;
  let lines: readonly [Line, Line];

  before(async () => {
    platform = await startPlatform({ args: ["--engines", "2"] });
    lines = await lineToEach(platform.url);
  });
  after(async () => {
    for (const line of lines ?? []) line[Symbol.dispose]();
    await platform?.stop();
  });

  test("connections reach both, and each tells of both", async () => {
    for (const line of lines) {
      const { engines, instances } = await status(line);
      assert.deepEqual(
        engines.map(({ engine }) => engine),
        [1, 2],
      );
      assert.ok(engines.every(({ connections }) => connections > 0));
      assert.ok(engines.every((engine) => engine.instances.idle > 0 || engine.instances.frozen > 0));
      assert.equal(
        instances.idle,
        engines.reduce((sum, engine) => sum + engine.instances.idle, 0),
      );
    }
  });

  test("what is deployed, published, pointed to, set or deleted through one is so on both when that is answered", async () => {
    for (const [here, there] of [lines, lines.toReversed() as [Line, Line]]) {
      await here.manage("PUT", "/v1/namespaces/default/secrets/WORD", { value: "first" });
      const source = (text: string): string =>
        `export default () => new Response("${text} " + process.env.WORD + " " + process.env.SALT);`;
      await here.deploy("changing", source("one"), { secrets: ["WORD"], environment: { SALT: "a" } });
      assert.equal(await there.call("changing"), "one first a");
      await here.deploy("changing", source("two"), { secrets: ["WORD"], environment: { SALT: "a" } });
      assert.equal(await there.call("changing"), "two first a");
      await here.manage("PUT", `${functionPath("changing")}/aliases/old`, { version: 1 });
      assert.equal(await there.call("changing:old"), "one first a");
      await here.manage("POST", `${functionPath("changing")}/rollback`, {});
      assert.equal(await there.call("changing"), "one first a");
      for (const value of ["second", "third", "fourth", "fifth"]) {
        await here.manage("PUT", "/v1/namespaces/default/secrets/WORD", { value });
        assert.equal(await there.call("changing"), `one ${value} a`);
      }
      await here.manage("DELETE", functionPath("changing"));
      assert.equal((await there.send("/fn/changing")).status, 404);
      await here.manage("DELETE", "/v1/namespaces/default/secrets/WORD");
    }
  });

  test("a function that may run once at a time never runs twice, and calls of both engines get their turn", async () => {
    const source = `const me = crypto.randomUUID();
      export default async () => {
        const begin = performance.timeOrigin + performance.now();
        await new Promise((resolve) => setTimeout(resolve, 5));
        return Response.json({ me, begin, end: performance.timeOrigin + performance.now() });
      };`;
    await lines[0].deploy("single", source, { reservedConcurrency: 1 });
    const callers = [...lines, ...Array.from({ length: 14 }, () => new Line(platform.url))];
    const runs: { me: string; begin: number; end: number }[] = [];
    await Promise.all(
      callers.map(async (line) => {
        for (let calls = 0; calls < 8; calls++) runs.push(JSON.parse(await line.call("single")) as (typeof runs)[0]);
      }),
    );
    for (const line of callers.slice(2)) line[Symbol.dispose]();
    runs.sort((a, b) => a.begin - b.begin);
    for (const [index, run] of runs.entries())
      assert.ok(run.end <= (runs[index + 1]?.begin ?? Number.POSITIVE_INFINITY), "two ran at the same time");
    assert.equal(new Set(runs.map(({ me }) => me)).size, 2);
    // An engine that has a slot and nothing to do with it lets the other one have it.
    for (const line of [...lines, ...lines]) await line.call("single");
  });

  test("activations, log lines and metrics are those of both, whichever is asked", async () => {
    await lines[0].deploy("writer", 'export default () => { console.log("a line"); return new Response("ok"); };');
    for (const line of [lines[0], lines[1], lines[1]]) await line.call("writer");
    for (const line of lines) {
      const found = await line.read<Page<ActivationView>>("/v1/namespaces/default/activations?function=writer");
      assert.equal(found.items.length, 3);
      assert.equal(new Set(found.items.map(({ instanceId }) => instanceId)).size, 2);
      const written = await line.read<Page<LogView>>(`${functionPath("writer")}/logs`);
      assert.equal(written.items.filter(({ line: text }) => text === "a line").length, 3);
      const metrics = (await line.send("/metrics")).text;
      assert.match(metrics, /^koine_invocations_total\{[^}]*function="writer"[^}]*outcome="succeeded"[^}]*\} 3$/m);
    }
  });

  test("log lines of both are followed through either, as they come", async () => {
    await lines[0].deploy("told", 'export default () => { console.log("told"); return new Response("ok"); };');
    for (const url of [platform.url, platform.url]) {
      using line = new Line(url);
      const following = await line.begin(`${functionPath("told")}/logs?follow=true&limit=1`);
      let text = "";
      following.setEncoding("utf8").on("data", (part: string) => (text += part));
      await eventually("the beginning", () => (text === "" ? null : true));
      const seen = (): number => text.split('"line":"told"').length - 1;
      const already = seen();
      for (const caller of lines) await caller.call("told");
      await eventually("the lines of both engines", () => (seen() >= already + 2 ? true : null));
      following.destroy();
    }
  });

  test("asynchronous work is accepted through either and runs on both", async () => {
    const source = `const me = crypto.randomUUID();
      export default async () => { await new Promise((resolve) => setTimeout(resolve, 50)); return new Response(me); };`;
    await lines[0].deploy("later", source);
    const accepted = await Promise.all(
      Array.from({ length: 12 }, (_, index) =>
        (lines[index % 2] ?? lines[0]).send("/fn/later", {
          method: "POST",
          headers: { prefer: "respond-async" },
          body: "x",
        }),
      ),
    );
    const ids = accepted.map((answer) => {
      assert.equal(answer.status, 202, answer.text);
      const { activationId } = JSON.parse(answer.text) as { activationId: string };
      assert.equal(answer.headers["x-request-id"], activationId);
      return activationId;
    });
    const instances = new Set<string>();
    for (const id of ids) {
      const path = `/v1/namespaces/default/activations/${id}`;
      const done = await eventually("the end of it", async () => {
        const activation = await lines[1].read<ActivationView>(path);
        return activation.state === "succeeded" ? activation : null;
      });
      instances.add((await lines[0].send(`${path}/result`)).text);
      assert.notEqual(done.instanceId, "");
    }
    const { engines } = await status(lines[0]);
    assert.ok(
      engines.every(({ instances: counts }) => counts.idle + counts.frozen > 0) && instances.size >= 2,
      JSON.stringify(engines),
    );
  });
});

test("an engine that is killed is started anew: the other serves on, its slots are free again, nothing accepted is lost", async () => {
  await using platform = await startPlatform({ args: ["--engines", "2"] });
  const lines = await lineToEach(platform.url);
  const source = `export default async (request) => {
      await new Promise((resolve) => setTimeout(resolve, Number(new URL(request.url).searchParams.get("ms") ?? 0)));
      return new Response("slept");
    };`;
  await lines[0].deploy("sleeper", source, { reservedConcurrency: 2, timeoutMs: 120_000 });
  const before = await status(lines[0]);
  const second = before.engines[1]?.pid ?? 0;
  // Both slots are in use; the calls on the engine that is killed break off.
  const calls = lines.map((line) =>
    line.send("/fn/sleeper?ms=6000").then(
      ({ text }) => text,
      () => "broken",
    ),
  );
  using other = new Line(platform.url);
  await eventually("both run", async () => ((await status(other)).instances.busy === 2 ? true : null));
  const accepted = await other.send("/fn/sleeper", { method: "POST", headers: { prefer: "respond-async" } });
  assert.equal(accepted.status, 202);
  process.kill(second, "SIGKILL");
  assert.equal(await Promise.race(calls), "broken");
  const { activationId } = JSON.parse(accepted.text) as { activationId: string };
  await eventually("the accepted one has run", async () => {
    using line = new Line(platform.url);
    const answer = await line.send(`/v1/namespaces/default/activations/${activationId}`).catch(() => null);
    return answer?.status === 200 && (JSON.parse(answer.text) as ActivationView).state === "succeeded" ? true : null;
  });
  const pid = await eventually("it runs again", async () => {
    using line = new Line(platform.url);
    const { engines } = await status(line).catch(() => ({ engines: [] }));
    const found = engines[1]?.pid ?? null;
    return found === second ? null : found;
  });
  assert.notEqual(pid, second);
  for (const line of lines) line[Symbol.dispose]();
  await eventually("both serve again", async () => {
    const again = await lineToEach(platform.url).catch(() => null);
    for (const line of again ?? []) line[Symbol.dispose]();
    return again;
  });
  assert.match(platform.output, /error an engine ended/);
});

test("stopping lets what runs on both end, and leaves nothing behind", async () => {
  const platform = await startPlatform({ args: ["--engines", "2"] });
  try {
    const lines = await lineToEach(platform.url);
    const source =
      'export default async () => { await new Promise((resolve) => setTimeout(resolve, 1500)); return new Response("done"); };';
    await lines[0].deploy("slow", source);
    const calls = lines.map((line) => line.call("slow"));
    using other = new Line(platform.url);
    const { engines } = await eventually("both run", async () => {
      const now = await status(other);
      return now.instances.busy === 2 ? now : null;
    });
    process.kill(platform.pid, "SIGTERM");
    assert.deepEqual(await Promise.all(calls), ["done", "done"]);
    assert.equal(await platform.ended, 0);
    assert.throws(() => process.kill(engines[1]?.pid ?? 0, 0), { code: "ESRCH" });
    assert.equal(existsSync(join(platform.dataDirectory, "sandboxes", "engine-2")), false);
    for (const line of lines) line[Symbol.dispose]();
  } finally {
    await platform.stop();
  }
});

test("after kill -9 the engines end with the platform, and the next start has everything that was acknowledged", async () => {
  await using platform = await startPlatform({ args: ["--engines", "2"] });
  const lines = await lineToEach(platform.url);
  await lines[1].deploy("kept", 'export default () => new Response("kept");');
  const second = (await status(lines[0])).engines[1]?.pid ?? 0;
  for (const line of lines) line[Symbol.dispose]();
  await platform.kill9();
  await eventually("the other engine has ended", () => {
    try {
      process.kill(second, 0);
      return null;
    } catch {
      return true;
    }
  });
  // With fewer engines than before: what those that are gone left behind is swept away all the same.
  await platform.restart({ args: [] });
  using line = new Line(platform.url);
  assert.equal(await line.call("kept"), "kept");
  assert.equal((await status(line)).engines.length, 1);
  assert.equal(existsSync(join(platform.dataDirectory, "sandboxes", "engine-2")), false);
});

test("two platforms never share a port", async () => {
  await using platform = await startPlatform({ args: ["--engines", "2"] });
  const { port } = new URL(platform.url);
  await assert.rejects(startPlatform({ args: ["--engines", "2", "--port", port] }), /port-in-use/);
});
