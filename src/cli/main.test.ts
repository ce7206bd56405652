import type { Command } from "commander";
import assert from "node:assert/strict";
import { test } from "node:test";
import type { UpOptions } from "./commands/up.ts";
import { processIo } from "./io.ts";
import { buildProgram } from "./main.ts";
import { run } from "./testing/run.ts";
import { errorScript, page, scriptedPlatform } from "./testing/scripted-platform.ts";

const io = processIo({ environment: {}, version: "1.2.3", launch: [] });

function everyCommand(command: Command): readonly Command[] {
  const visible = command.createHelp().visibleCommands(command);
  return visible.filter((child) => child.name() !== "help").flatMap((child) => [child, ...everyCommand(child)]);
}

function pathOf(command: Command): readonly string[] {
  return command.parent === null ? [] : [...pathOf(command.parent), command.name()];
}

test("the help of every command explains it, with an example that begins with the command", async () => {
  const commands = everyCommand(buildProgram({ io, commands: {}, exitCode: 0 }));
  const names = commands.filter((command) => command.parent?.parent === null).map((command) => command.name());
  const expected =
    "alias completion context delete deploy dev dlq doctor get init invoke list logs publish rollback runs secret status topic trigger up version versions";
  assert.equal(names.toSorted().join(" "), expected);
  for (const command of commands) {
    const path = pathOf(command);
    const { code, stdout, stderr } = await run(null, [...path, "--help"]);
    assert.equal(code, 0, path.join(" "));
    assert.equal(stderr, "");
    assert.match(stdout, new RegExp(`Examples:\n(?: {2}\\$ .*\n)*? {2}\\$ .*koine ${path.join(" ")}`), path.join(" "));
    assert.match(stdout, /--output <format>/);
    assert.notEqual(command.summary(), "", path.join(" "));
  }
});

test("koine alone shows its help; a group without a command is a usage error", async () => {
  const alone = await run(null, []);
  assert.equal(alone.code, 0);
  assert.match(alone.stdout, /Exit codes: 0 ok/);
  const group = await run(null, ["secret"]);
  assert.equal(group.code, 2);
  assert.match(group.stderr, /Usage: koine secret/);
  assert.equal(group.stdout, "");
});

test("mistyped commands and options are usage errors that say what was meant", async () => {
  const command = await run(null, ["depoly"]);
  assert.equal(command.code, 2);
  assert.equal(
    command.stderr,
    "error: unknown command 'depoly'\n  hint: Did you mean 'deploy'?\n  code usage  fault caller\n",
  );
  const option = await run(null, ["list", "--outptu", "json"]);
  assert.equal(option.code, 2);
  assert.match(option.stderr, /unknown option '--outptu'\n {2}hint: Did you mean '--output'\?/);
  assert.equal((await run(null, ["get"])).code, 2);
  assert.equal((await run(null, ["get", "a", "b"])).code, 2);
  assert.equal((await run(null, ["get", "not/a/valid/name"])).code, 2);
  assert.equal((await run(null, ["get", "hello:3"])).code, 2);
  assert.equal((await run(null, ["list", "-n", "no good"])).code, 2);
  assert.equal((await run(null, ["list", "--url", "ftp://x"])).code, 2);
});

test("options that all commands share may stand before the command or after it", async () => {
  await using platform = await scriptedPlatform({ "GET /v1/namespaces/team/functions": page() });
  for (const argv of [
    ["-n", "team", "list", "-o", "json"],
    ["-o", "json", "list", "--namespace", "team"],
  ]) {
    assert.deepEqual(await run(platform.url, argv), {
      code: 0,
      stdout: '{\n  "items": [],\n  "next": null\n}\n',
      stderr: "",
    });
  }
});

test("a platform that is not there is named, with what to do", async () => {
  await using gone = await scriptedPlatform({});
  const { url } = gone;
  await gone[Symbol.asyncDispose]();
  const { code, stdout, stderr } = await run(url, ["list"]);
  assert.equal(code, 1);
  assert.equal(stdout, "");
  assert.match(
    stderr,
    new RegExp(`^error: No platform answers at ${url} \\(ECONNREFUSED\\)\n {2}hint: Start one with 'koine up'`),
  );
});

test("something else that answers at the address is not taken for a platform", async () => {
  await using other = await scriptedPlatform({
    "GET /v1/status": (_, response) =>
      response.writeHead(404, { "content-type": "text/html" }).end("<h1>Not here</h1>"),
  });
  const { code, stderr } = await run(other.url, ["status"]);
  assert.equal(code, 1);
  assert.match(stderr, /answered 404 in a form that is not Koine's/);
});

test("the exit code says whose error it was", async () => {
  const expected = [
    ["unauthorized", 401, "caller", 3],
    ["forbidden", 403, "caller", 3],
    ["function-not-found", 404, "caller", 4],
    ["function-timed-out", 504, "function", 5],
    ["handler-failed", 502, "function", 6],
    ["conflict", 409, "caller", 1],
    ["storage-failed", 500, "platform", 1],
    ["some-code-of-the-future", 404, "caller", 4],
  ] as const;
  for (const [code, status, fault, exitCode] of expected) {
    await using platform = await scriptedPlatform({
      "GET /v1/namespaces/default/functions/hello": errorScript(code, status, { fault }),
    });
    const ran = await run(platform.url, ["get", "hello"]);
    assert.equal(ran.code, exitCode, code);
    assert.equal(ran.stdout, "");
    const facts = `code ${code}  fault ${fault}  request req-1`;
    assert.equal(ran.stderr, `error: the message of ${code}\n  hint: the hint\n  ${facts}\n`);
  }
});

test("with -o json an error is an error body on stderr, usage errors too", async () => {
  await using platform = await scriptedPlatform({
    "GET /v1/namespaces/default/functions/hello": errorScript("function-not-found", 404),
  });
  const ran = await run(platform.url, ["get", "hello", "-o", "json"]);
  assert.equal(ran.stdout, "");
  assert.deepEqual(JSON.parse(ran.stderr), {
    error: {
      code: "function-not-found",
      fault: "caller",
      message: "the message of function-not-found",
      hint: "the hint",
      requestId: "req-1",
    },
  });
  const usage = await run(null, ["get", "-o", "json"]);
  assert.equal(JSON.parse(usage.stderr).error.code, "usage");
});

test("colour is for terminals, unless it is not wanted", async () => {
  await using platform = await scriptedPlatform({});
  const coloured = async (argv: readonly string[], environment: Record<string, string> = {}): Promise<boolean> =>
    (await run(platform.url, argv, { isTerminal: true, environment })).stderr.includes("\x1b[");
  assert.equal(await coloured(["get", "hello"]), true);
  assert.equal(await coloured(["get", "hello", "--no-color"]), false);
  assert.equal(await coloured(["get", "hello"], { NO_COLOR: "1" }), false);
  assert.equal(await coloured(["get", "hello"], { TERM: "dumb" }), false);
  assert.doesNotMatch((await run(platform.url, ["get", "hello"])).stderr, /\x1b/);
});

test("up hands its options over and answers with the platform's exit code", async () => {
  const asked: UpOptions[] = [];
  const commands = {
    up: async (options: UpOptions) => {
      asked.push(options);
      return 130;
    },
  };
  const argv =
    "up --port 8080 --host 0.0.0.0 --data store --sandbox none --examples --log-format json --token-file t --memory-budget 4GB --idle-timeout 90s";
  assert.equal((await run(null, argv.split(" "), { commands, cwd: "/srv" })).code, 130);
  assert.equal((await run(null, ["up"], { commands })).code, 130);
  assert.deepEqual(asked, [
    {
      port: 8080,
      host: "0.0.0.0",
      dataDirectory: "/srv/store",
      sandbox: "none",
      examples: true,
      logFormat: "json",
      tokenFile: "/srv/t",
      memoryBudgetBytes: 4 * 1024 ** 3,
      idleTimeoutMs: 90_000,
    },
    {},
  ]);
  assert.equal((await run(null, ["up", "--port", "70000"], { commands })).code, 2);
  for (const engines of ["0", "65", "many"])
    assert.equal((await run(null, ["up", "--engines", engines], { commands })).code, 2);
  assert.equal((await run(null, ["up", "--sandbox", "magic"], { commands })).code, 2);
});
