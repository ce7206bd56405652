import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { FunctionSpec, Version } from "../../src/core/function.ts";
import { createActionProxyProtocol } from "../../src/protocols/action-proxy.ts";
import { type Files, ProgramMachine } from "./program.ts";

/** An action proxy for JavaScript, as the protocol's documentation describes one. */
const PROXY = `
  import { createServer } from "node:http";
  import { text } from "node:stream/consumers";
  const MARKER = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX\\n";
  let main = null;
  const answer = (response, status, value) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
  createServer(async (request, response) => {
    const asked = JSON.parse(await text(request));
    if (request.url === "/init") {
      if (main !== null) return answer(response, 403, { error: "Cannot initialize the action more than once." });
      if (!asked.value.code) return answer(response, 403, { error: "Missing main/no code to execute." });
      try {
        main = new Function(asked.value.code + "\\nreturn " + asked.value.main)();
        Object.assign(process.env, asked.value.env);
        return answer(response, 200, { ok: true });
      } catch (error) {
        return answer(response, 502, { error: "Initialization has failed: " + error.message });
      }
    }
    for (const [name, value] of Object.entries(asked)) if (typeof value === "string") process.env["__OW_" + name.toUpperCase()] = value;
    try {
      const result = await main(asked.value);
      if (typeof result !== "object") answer(response, 502, { error: "The action did not return a dictionary." });
      else answer(response, 200, result);
    } catch (error) {
      answer(response, 502, { error: "An error has occurred: " + error.message });
    }
    process.stdout.write(MARKER);
    process.stderr.write(MARKER);
  }).listen(8080, "127.0.0.1");`;

describe("programs that speak OpenWhisk's action proxy protocol", { timeout: 120_000 }, () => {
  let machine: ProgramMachine;
  before(async () => {
    machine = await ProgramMachine.open([createActionProxyProtocol()]);
  });
  after(() => machine[Symbol.asyncDispose]());

  const action = (code: string, spec: Partial<FunctionSpec> = {}, files: Files = {}): Promise<Version> =>
    machine.deploy(
      { "proxy.mjs": PROXY, "hello.js": code, ...files },
      {
        runtime: "nodejs26.x",
        protocol: "action-proxy",
        command: ["node", "proxy.mjs"],
        handler: "hello.js",
        ...spec,
      },
    );
  const event = { kind: "event", contentType: "application/json" } as const;

  test("an action gets its parameters and the facts of its activation, and gives a result", async () => {
    const code = `function hi({ name }) { return { hi: name, word: process.env.WORD, id: process.env.__OW_ACTIVATION_ID, action: process.env.__OW_ACTION_NAME }; }`;
    const version = await action(code, { handler: "hello.js.hi", environment: { WORD: "abc" } });
    const answer = machine.run(version, event, `{"name":"you"}`);
    assert.equal(await answer.result, "succeeded", await answer.message);
    const result = { hi: "you", word: "abc", id: answer.id, action: `/default/${version.name}` };
    assert.deepEqual(JSON.parse(answer.text), result);
    assert.equal(answer.header("content-type"), "application/json");
  });

  test("an error that it returns, and one that it throws, fail the call", async () => {
    const version = await action(`function main({ how }) {
      if (how === "throw") throw new Error("thrown");
      if (how === "number") return 5;
      return { error: how === "object" ? { code: 7 } : "returned" };
    }`);
    const messages: string[] = [];
    for (const how of ["throw", "number", "object", "text"]) {
      const answer = machine.run(version, event, JSON.stringify({ how }));
      assert.equal(await answer.result, "handler-failed");
      messages.push(await answer.message);
    }
    assert.deepEqual(messages, [
      "POST /run answered 502: An error has occurred: thrown",
      "POST /run answered 502: The action did not return a dictionary.",
      `{"code":7}`,
      "returned",
    ]);
  });

  test("an HTTP call is that of a web action", async () => {
    const version = await action(`function main(given) {
      if (given.bare) return { given: given.bare };
      if (given.gone) return { error: { statusCode: 410, body: "gone" } };
      if (given.image) return { headers: { "Content-Type": "image/png" }, body: Buffer.from([1, 2, 0]).toString("base64") };
      return { statusCode: 201, headers: { "x-method": given.__ow_method, "set-cookie": ["a=1", "b=2"] }, body: { path: given.__ow_path, a: given.a, b: given.b, tag: given.__ow_headers["x-tag"] } };
    }`);
    const headers = ["Content-Type", "application/json", "X-Tag", "t"];
    const full = machine.call(version, { method: "POST", url: "/p/q?a=1", headers }, `{"b":2}`);
    assert.equal(await full.result, "succeeded", await full.message);
    assert.deepEqual([full.status, full.header("x-method")], [201, "post"]);
    assert.deepEqual(JSON.parse(full.text), { path: "/p/q", a: "1", b: 2, tag: "t" });
    assert.equal(full.headers.filter((name) => name === "set-cookie").length, 2);
    const bare = machine.call(version, { url: "/?bare=1" });
    await bare.result;
    assert.deepEqual([bare.status, bare.text], [200, `{"given":"1"}`]);
    const gone = machine.call(version, { url: "/?gone=1" });
    assert.deepEqual([await gone.result, gone.status, gone.text], ["succeeded", 410, "gone"]);
    const image = machine.call(version, { url: "/?image=1" });
    await image.result;
    assert.deepEqual([image.bytes, image.header("content-type")], [3, "image/png"]);
  });

  test("output belongs to its activation, and the marks of its end are not part of it", async () => {
    const version = await action(
      `function main({ name }) { console.log("out " + name); console.error("err " + name); return {}; }`,
    );
    const answers = [];
    for (const name of ["one", "two", "three"]) {
      const answer = machine.run(version, event, JSON.stringify({ name }));
      await answer.result;
      answers.push([name, answer.id] as const);
    }
    for (const [name, id] of answers) assert.deepEqual([...machine.linesOf(id)].sort(), [`err ${name}`, `out ${name}`]);
    assert.ok(!machine.lines.some(({ line }) => line.includes("WHISK_ACTIVATION")));
  });

  test("code that cannot be initialised is found out before the first call", async () => {
    const version = await action(`function main( {`);
    const answer = machine.run(version, event, "{}");
    assert.equal(await answer.result, "handler-load-failed");
    assert.match(await answer.message, /POST \/init answered 502: Initialization has failed/);
    const none = await action("", { handler: "nothing" });
    assert.match(await machine.run(none, event, "{}").message, /answered 403: Missing main\/no code to execute/);
  });

  test("a payload that is no JSON is the caller's fault", async () => {
    const version = await action(`function main(given) { return given; }`);
    assert.equal(await machine.run(version, event, "{").result, "invalid-json");
    const list = machine.run(version, event, "[1,2]");
    await list.result;
    assert.equal(list.text, "[1,2]");
  });

  test("a program that ends in the middle fails its call, and another takes its place", async () => {
    const version = await action(`function main({ exit }) { if (exit) process.exit(2); return { here: 1 }; }`);
    assert.match(await machine.run(version, event, `{"exit":true}`).message, /exit code 2/);
    assert.equal(await machine.run(version, event, "{}").result, "succeeded");
  });
});
