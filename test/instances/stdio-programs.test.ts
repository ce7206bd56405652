import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { FunctionSpec, Version } from "../../src/core/function.ts";
import { limits } from "../../src/core/limits.ts";
import { createStdioProtocol } from "../../src/protocols/stdio.ts";
import { ProgramMachine } from "./program.ts";

describe("programs that are run for each call", { timeout: 180_000 }, () => {
  let machine: ProgramMachine;
  before(async () => {
    machine = await ProgramMachine.open([createStdioProtocol()]);
  });
  after(() => machine[Symbol.asyncDispose]());

  const script = (text: string, spec: Partial<FunctionSpec> = {}): Promise<Version> =>
    machine.deploy({ bootstrap: `#!/bin/sh\n${text}` }, { protocol: "stdio", ...spec });

  test("a shell script gets the body on its stdin and the request in its environment", async () => {
    const version = await script(
      `echo "$Http_Method $Http_Path $Http_Query $Http_X_Tag $CONTENT_LENGTH $GREETING"; tr a-z A-Z`,
      { environment: { GREETING: "hello" } },
    );
    const request = { method: "PUT", url: "/a/b?c=d", headers: ["x-tag", "tagged"] };
    const answer = machine.call(version, request, "loud");
    assert.equal(await answer.result, "succeeded", await answer.message);
    assert.equal(answer.text, "PUT /a/b c=d tagged 4 hello\nLOUD");
    assert.equal(answer.header("content-type"), "text/plain; charset=utf-8");
  });

  test("a header cannot become any variable but its own", async () => {
    const version = await script(
      `env | grep -c -e '^PATH=/evil' -e '^HTTP_PROXY=' -e '^LD_PRELOAD='; echo "$Http_Proxy"`,
    );
    const headers = ["Proxy", "http://evil", "PATH", "/evil", "LD_PRELOAD", "/evil"];
    const answer = machine.call(version, { headers });
    await answer.result;
    assert.equal(answer.text, "0\nhttp://evil\n");
  });

  test("an exit code other than 0 is a failure with the end of what it wrote to stderr, and that is its log", async () => {
    const version = await script(`echo partly; echo "it broke" >&2; exit 3`);
    const answer = machine.call(version);
    assert.equal(await answer.result, "handler-failed");
    assert.equal(await answer.message, "exit status 3: it broke");
    assert.equal(answer.bytes, 0);
    assert.deepEqual(machine.linesOf(answer.id), ["it broke"]);
    const killed = machine.call(await script("kill -9 $$"));
    assert.equal(await killed.message, "ended by SIGKILL");
  });

  test("output flows while it runs; one that fails after that is cut", async () => {
    const version = await script(`echo first; read line; echo "$line"; [ "$line" = ok ]`);
    const answer = machine.call(version, { method: "POST" }, null);
    await answer.until(() => answer.text === "first\n");
    answer.exchange.write(Buffer.from("ok\n"));
    answer.exchange.end();
    assert.equal(await answer.result, "succeeded");
    assert.equal(answer.text, "first\nok\n");
    const cut = machine.call(version, { method: "POST" }, null);
    await cut.until(() => cut.text === "first\n");
    cut.exchange.write(Buffer.from("bad\n"));
    assert.equal(await cut.result, "handler-failed");
    assert.equal(cut.bodyIsWhole, false);
  });

  test("much output waits until it is taken", async () => {
    const bytes = 20 * limits.streamWindowBytes;
    const version = await script(`head -c ${bytes} /dev/zero`);
    const answer = machine.call(version);
    answer.accepting = false;
    await answer.until(() => answer.bytes > 0);
    assert.ok(answer.bytes <= limits.streamWindowBytes);
    answer.accepting = true;
    answer.exchange.resume();
    assert.equal(await answer.result, "succeeded");
    assert.equal(answer.bytes, bytes);
    assert.equal(answer.header("content-type"), "application/octet-stream");
  });

  test("it need not read what it is given, and may close what it does not need", async () => {
    const version = await script(`exec 0<&-; echo done`);
    const answer = machine.call(version, { method: "POST" }, "x".repeat(2_000_000));
    assert.deepEqual([await answer.result, answer.text], ["succeeded", "done\n"]);
  });

  test("what it leaves behind ends with it", async () => {
    const version = await script(`
      [ "$Http_Path" = /start ] && { sleep 1000 & echo $!; exit; }
      while kill -0 "$Http_Query" 2>/dev/null; do sleep 0.05; done; echo gone`);
    const first = machine.call(version, { url: "/start" });
    assert.equal(await first.result, "succeeded", await first.message);
    const second = machine.call(version, { url: `/look?${first.text.trim()}` });
    assert.deepEqual([await second.result, second.text], ["succeeded", "gone\n"]);
  });

  test("nothing of the platform is open in it", async () => {
    const answer = machine.call(await script(`ls /proc/self/fd | tr '\\n' ' '`));
    await answer.result;
    // The fourth is the folder that is listed.
    assert.equal(answer.text, "0 1 2 3 ");
  });

  test("calls run at the same time, each in a process of its own", async () => {
    const version = await script(
      `echo "$$" > /tmp/$Http_Query; while [ ! -e /tmp/a ] || [ ! -e /tmp/b ]; do sleep 0.05; done; echo met`,
      {
        instanceConcurrency: 2,
      },
    );
    const answers = ["/?a", "/?b"].map((url) => machine.call(version, { url }));
    assert.deepEqual(await Promise.all(answers.map((answer) => answer.result)), ["succeeded", "succeeded"]);
  });

  test("one that takes too long is ended, and so is one that nobody waits for", async () => {
    const version = await script(`[ "$Http_Path" = /quick ] && exit 0; echo on; sleep 1000`, { timeoutMs: 700 });
    const answer = machine.call(version, { url: "/slow" });
    assert.equal(await answer.result, "function-timed-out");
    assert.equal(await machine.call(version, { url: "/quick" }).result, "succeeded");
    const left = machine.call(version, { url: "/slow" });
    await left.until(() => left.bytes > 0);
    left.exchange.cancel();
    assert.equal(await left.result, "client-closed-request");
    assert.equal(await machine.call(version, { url: "/quick" }).result, "succeeded");
  });

  test("a program that is not there, or cannot be run, is found out before the first call", async () => {
    const missing = machine.call(await script("", { command: ["./missing"] }));
    assert.equal(await missing.result, "handler-not-found");
    const text = await machine.deploy({ "data.txt": "no program" }, { protocol: "stdio", command: ["./data.txt"] });
    assert.match(await machine.call(text).message, /data\.txt cannot be executed: chmod \+x/);
    const odd = await machine.deploy({ bootstrap: "#!/no/such/shell\n" }, { protocol: "stdio" });
    assert.match(await machine.call(odd).message, /the interpreter in its '#!' line is not there/);
  });

  test("interpreters of other runtimes are there, with the package as working directory", async () => {
    const version = await machine.deploy(
      { "count.py": "import sys, os\nprint(len(sys.stdin.read()), os.getcwd())" },
      { runtime: "python3", protocol: "stdio", command: ["python3", "count.py"] },
    );
    const answer = machine.call(version, { method: "POST" }, "12345");
    assert.equal(await answer.result, "succeeded", await answer.message);
    assert.equal(answer.text, "5 /code\n");
  });

  test("an event is its stdin", async () => {
    const answer = machine.run(await script("cat"), { kind: "event", contentType: "application/json" }, "[1]");
    assert.deepEqual([await answer.result, answer.text], ["succeeded", "[1]"]);
  });
});
