import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { CliFailure } from "./failure.ts";
import { planDeploy, readEnvironment } from "./plan.ts";
import { parseProjectFile } from "./project-file.ts";
import type { ProjectFolder } from "./project-folder.ts";
import { temporaryFolder } from "./testing/run.ts";

const given = { namespace: "default", environment: {} };
const folder: ProjectFolder = {
  path: "/projects/my-fn",
  isFile: false,
  facts: { files: ["index.mjs"], packageJson: null },
  projectFile: parseProjectFile(
    JSON.stringify({
      name: "from-file",
      memoryMb: 128,
      timeout: "10s",
      environment: { A: "1", B: "2" },
      secrets: ["KEY"],
      public: true,
    }),
  ),
};

test("flags come before koine.json, and that before what the folder holds", () => {
  const flags = { name: "tools/by-flag", timeout: "1m", secret: ["OTHER", "KEY"], concurrency: "5", live: false };
  const { ref, request } = planDeploy(folder, flags, { ...given, environment: { B: "3" } });
  assert.deepEqual(ref, { namespace: "default", package: "tools", name: "by-flag" });
  assert.deepEqual(request, {
    runtime: "nodejs26.x",
    handler: "index.mjs",
    memoryBytesMax: 128 * 1024 * 1024,
    timeoutMs: 60_000,
    instanceConcurrency: 5,
    access: "public",
    environment: { A: "1", B: "3" },
    secrets: ["KEY", "OTHER"],
    live: false,
  });
});

test("the name comes from package.json, else from the folder or file", () => {
  const named = (part: Partial<ProjectFolder>): string =>
    planDeploy({ ...folder, projectFile: null, ...part }, {}, given).ref.name;
  assert.equal(named({}), "my-fn");
  assert.equal(named({ facts: { files: ["index.mjs"], packageJson: { name: "@me/api" } } }), "api");
  assert.equal(
    named({ path: "/x/hello.mjs", isFile: true, facts: { files: ["hello.mjs"], packageJson: null } }),
    "hello",
  );
});

test("environment comes from a file and from the command line", async () => {
  await using home = await temporaryFolder();
  await writeFile(join(home.path, "vars"), "# remark\nexport A='one two'\nB=2\n");
  const environment = await readEnvironment({ envFile: "vars", env: ["B=3", "C=x=y"] }, home.path);
  assert.deepEqual(environment, { A: "one two", B: "3", C: "x=y" });
  await assert.rejects(readEnvironment({ env: ["NOVALUE"] }, home.path), /'NOVALUE' is not an environment variable/);
});

test("an unknown key of koine.json is an error that says what was probably meant", () => {
  const refused = (text: string): string => {
    try {
      parseProjectFile(text);
    } catch (thrown) {
      if (thrown instanceof CliFailure && thrown.code === "invalid-project") return thrown.message;
    }
    throw new Error("it was not refused");
  };
  assert.match(refused('{"memorymb": 5}'), /there is no 'memorymb' \(did you mean 'memoryMb'\?\)/);
  assert.match(refused('{"timeout": "10"}'), /timeout: must be a duration/);
  assert.match(refused('{"environment": {"A": 1}}'), /environment\.A: /);
  assert.match(refused("{"), /is not JSON/);
});

test("retries and destinations come from flags, then from koine.json", () => {
  const projectFile = parseProjectFile(
    JSON.stringify({ name: "f", retries: 5, retryDelay: "10s", onFailure: "topic:bad" }),
  );
  const flags = { retries: "0", maxEventAge: "1h", onSuccess: "function:audit", destinationSecret: "KEY" };
  const { request } = planDeploy({ ...folder, projectFile }, flags, given);
  assert.deepEqual(request.retry, { attemptsMax: 1, delayMs: 10_000, ageMsMax: 3_600_000 });
  assert.deepEqual(request.destinations, { onSuccess: "function:audit", onFailure: "topic:bad", secret: "KEY" });
  const without = planDeploy(folder, {}, given).request;
  assert.deepEqual([without.retry, without.destinations], [undefined, undefined]);
});

const withDockerfile: ProjectFolder = {
  ...folder,
  facts: { files: ["Dockerfile", "go.mod", "main.go"], packageJson: null },
  projectFile: null,
};

test("a Dockerfile is built where there is nothing else to run, and where it is asked for", () => {
  const { image, request, ref } = planDeploy(withDockerfile, {}, given);
  assert.deepEqual(image, { kind: "build", dockerfile: "Dockerfile" });
  assert.deepEqual(request, { runtime: "image", build: { dockerfile: "Dockerfile" } });
  assert.equal(ref.name, "my-fn");
  const both = { ...withDockerfile, facts: { files: ["Dockerfile", "index.mjs"], packageJson: null } };
  const left = planDeploy(both, {}, given);
  assert.deepEqual([left.image, left.request.runtime], [null, "nodejs26.x"]);
  assert.match(left.notes.join(), /--build image uses it/);
  assert.deepEqual(planDeploy(both, { build: "image" }, given).image, { kind: "build", dockerfile: "Dockerfile" });
  const other = planDeploy(both, { dockerfile: "docker/Prod" }, given);
  assert.deepEqual(other.image, { kind: "build", dockerfile: "docker/Prod" });
});

test("an image needs no folder, and names the function", () => {
  const empty: ProjectFolder = { ...folder, facts: { files: [], packageJson: null }, projectFile: null };
  const flags = { image: "ghcr.io/you/api:1.4", registrySecret: "GHCR", protocol: "http", port: "3000" };
  const { image, request, ref } = planDeploy(empty, flags, given);
  assert.equal(ref.name, "api");
  assert.deepEqual(image, { kind: "image", image: flags.image });
  assert.deepEqual(request, {
    runtime: "image",
    image: flags.image,
    annotations: { "registry-secret": "GHCR" },
    protocol: "http",
    port: 3_000,
  });
});

test("an image that exists and one that is to be built exclude each other", () => {
  for (const flags of [
    { image: "x", build: "image" as const },
    { image: "x", dockerfile: "Dockerfile" },
  ]) {
    assert.throws(() => planDeploy(withDockerfile, flags, given), CliFailure);
  }
  const without = { ...withDockerfile, facts: { files: [], packageJson: null } };
  assert.throws(() => planDeploy(without, { build: "image" }, given), /no Dockerfile/);
});
