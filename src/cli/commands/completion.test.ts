import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { run, temporaryFolder } from "../testing/run.ts";
import { page, scriptedPlatform } from "../testing/scripted-platform.ts";
import { functionView } from "../testing/views.ts";

test("commands, options, choices and names are completed", async () => {
  await using platform = await scriptedPlatform({
    "GET /v1/namespaces/default/functions": page(functionView, { ...functionView, name: "help-desk" }),
    "GET /v1/runtimes": page({ name: "nodejs26.x" }, { name: "python3" }),
  });
  const completed = async (...words: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(platform.url, ["__complete", "--", ...words]);
    assert.deepEqual([code, stderr], [0, ""]);
    return stdout.trimEnd().split("\n").join(" ");
  };
  assert.equal(await completed("de"), "dev deploy delete");
  assert.equal(await completed("secret", ""), "set list delete");
  assert.equal(await completed("invoke", "--as"), "--async");
  assert.equal(await completed("list", "-o", "j"), "json");
  assert.equal(await completed("get", "hel"), "hello help-desk");
  assert.equal(await completed("-n", "default", "rm", "hello", "help"), "help-desk");
  assert.equal(await completed("deploy", "--runtime", "py"), "python3");
  assert.equal(await completed("completion", ""), "bash zsh fish");
  assert.equal(await completed("deploy", ""), "");
});

test("completion stays silent when no platform answers", async () => {
  const ran = await run("http://127.0.0.1:1", ["__complete", "--", "get", ""]);
  assert.deepEqual(ran, { code: 0, stdout: "", stderr: "" });
});

test("the script for bash hands the words over and takes the answers", async () => {
  await using folder = await temporaryFolder();
  await writeFile(join(folder.path, "koine"), '#!/bin/sh\necho "$#"\nfor word; do echo "<$word>"; done\n');
  await chmod(join(folder.path, "koine"), 0o755);
  const script = (await run(null, ["completion", "bash"])).stdout;
  const typed = 'COMP_WORDS=(koine get ""); COMP_CWORD=2; _koine; printf "%s " "${COMPREPLY[@]}"';
  const { stdout } = await promisify(execFile)("bash", ["-c", `${script}\n${typed}`], {
    env: { PATH: `${folder.path}:/usr/bin:/bin` },
  });
  assert.equal(stdout, "4 <__complete> <--> <get> <> ");
  assert.equal((await run(null, ["completion", "cmd"])).code, 2);
  assert.match((await run(null, ["completion", "zsh"])).stdout, /compdef _koine koine/);
  assert.match((await run(null, ["completion", "fish"])).stdout, /complete -c koine/);
});
