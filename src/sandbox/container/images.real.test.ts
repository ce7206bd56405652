import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { VirtualClock } from "../../core/clock.ts";
import { limits } from "../../core/limits.ts";
import { run, testLimits } from "../conformance.ts";
import type { RegistryCredentials } from "../images.ts";
import type { SandboxRequest } from "../sandbox.ts";
import { type Containers, openContainers } from "./driver.ts";
import { encodeAuth } from "./registry-login.ts";
import { importImage, startEngine, type TestEngine } from "./testing/engine.ts";
import { startRegistry, type TestRegistry } from "./testing/registry.ts";

const login = { username: "somebody", password: "a password: with colons" };
const clock = new VirtualClock();
let engine: TestEngine;
let registry: TestRegistry;
let containers: Containers;
let clientConfigFile = "";
let repository = "";
const never = new AbortController().signal;

before(async () => {
  engine = await startEngine();
  registry = await startRegistry(login);
  clientConfigFile = join(engine.folder, "config.json");
  await writeFile(clientConfigFile, "{}");
  const { address, folder } = engine;
  const directory = join(folder, "containers");
  containers = openContainers({ address, tag: "imagetest", directory, clientConfigFile, clock, aheadMax: 0 });
  repository = `${registry.address}/team/program`;
  await publish("1.0", "first");
});
after(async () => {
  await containers.driver.close();
  await registry[Symbol.asyncDispose]();
  await engine[Symbol.asyncDispose]();
});

const pin = (reference: string, credentials: RegistryCredentials | null = login) => {
  const lines: string[] = [];
  const request = { reference, credentials, onProgress: (line: string) => lines.push(line) };
  return containers.images.pin(request, never).then((pinned) => ({ ...pinned, lines }));
};

test("a tag is pulled and pinned by what it means now, and can be run", async () => {
  const { image, digest, ports, lines } = await pin(`${repository}:1.0`);
  assert.equal(image, `${repository}@${digest}`);
  assert.deepEqual(ports, ["8080/tcp"]);
  assert.match(lines.join("\n"), /pulling .*team\/program:1\.0: 1 of 1 layers, \d/);
  assert.equal(await outputOf(image), "first\n");
});

test("what is there is not pulled again", async () => {
  const { lines } = await pin(`${repository}:1.0`);
  assert.deepEqual(lines, [`asking ${registry.address} for ${repository}:1.0`]);
});

test("a tag that has moved is another image, and what was pinned before stays what it was", async () => {
  const before1 = await pin(`${repository}:1.0`);
  await publish("1.0", "second");
  const after1 = await pin(`${repository}:1.0`);
  assert.notEqual(after1.image, before1.image);
  assert.deepEqual([await outputOf(before1.image), await outputOf(after1.image)], ["first\n", "second\n"]);
});

test("without the right credentials the registry's refusal is told, and how to get them in", async () => {
  const denied = { code: "image-access-denied", hint: /--registry-secret/ };
  await assert.rejects(pin(`${repository}:other`, null), denied);
  await assert.rejects(pin(`${repository}:other`, { ...login, password: "wrong" }), denied);
});

test("who has logged in with Docker's client needs no credentials of his own", async () => {
  const auth = Buffer.from(`${login.username}:${login.password}`).toString("base64");
  await writeFile(clientConfigFile, JSON.stringify({ auths: { [registry.address]: { auth } } }));
  await publish("2.0", "other");
  assert.match((await pin(`${repository}:2.0`, null)).image, /@sha256:/);
  await writeFile(clientConfigFile, "{}");
});

test("an image that the registry does not have, and a registry that does not answer, are different errors", async () => {
  await assert.rejects(pin(`${repository}:missing`), { code: "image-not-found" });
  await assert.rejects(pin("127.0.0.1:1/team/program:1.0"), { code: "registry-unavailable" });
});

test("an image that is in this engine only is pinned by its id, and no registry is asked", async () => {
  registry.requests.length = 0;
  const id = await importImage(engine, { name: "koine-test/local:3", changes: ['CMD ["echo", "local"]'] });
  const { image } = await pin("koine-test/local:3", null);
  assert.equal(image, id);
  assert.equal((await pin(id, null)).image, id);
  assert.deepEqual(registry.requests, []);
});

test("an image that was removed from the engine is pulled again by its digest", async () => {
  const { image } = await pin(`${repository}:1.0`);
  await remove(image);
  await assert.rejects(start(image), { code: "image-not-found" });
  await containers.images.ensure(image, async () => login, never);
  assert.equal(await outputOf(image), "second\n");
});

test("a local image that was removed cannot come back, which is told", async () => {
  const id = await importImage(engine, { name: "koine-test/gone", changes: ['CMD ["echo", "gone"]'] });
  await pin("koine-test/gone", null);
  await remove(id);
  containers.images.has(id);
  await assert.rejects(start(id), { code: "image-not-found" });
  await assert.rejects(
    containers.images.ensure(id, async () => null, never),
    { message: /deploy the function again/ },
  );
});

test("a folder is built by its Dockerfile, with its output shown", async () => {
  await importImage(engine, { name: "koine-test/builder" });
  const folder = join(engine.folder, "context");
  await mkdir(folder);
  await writeFile(join(folder, "greeting"), "hello from the folder\n");
  const dockerfile =
    'FROM koine-test/builder\nCOPY greeting /greeting\nRUN echo "while it is built"\nCMD ["cat", "/greeting"]\n';
  await writeFile(join(folder, "Dockerfile"), dockerfile);
  const lines: string[] = [];
  const request = { contextFolder: folder, dockerfile: "Dockerfile", onOutput: (line: string) => lines.push(line) };
  const built = await containers.images.build(request, never);
  assert.match(lines.join("\n"), /^Step 1\/4[^]*while it is built[^]*Successfully built/);
  assert.equal(await outputOf(built.image), "hello from the folder\n");
  assert.equal(
    (await containers.images.build(request, never)).image,
    built.image,
    "what is the same is not built again",
  );
});

test("a build that fails says how, and leaves nothing", async () => {
  const folder = join(engine.folder, "broken");
  await mkdir(folder);
  await writeFile(join(folder, "Dockerfile"), "FROM koine-test/builder\nRUN echo before; exit 3\n");
  const request = { contextFolder: folder, dockerfile: "Dockerfile", onOutput: () => {} };
  await assert.rejects(containers.images.build(request, never), {
    code: "image-build-failed",
    message: /returned a non-zero code: 3/,
  });
  await assert.rejects(containers.images.build({ ...request, dockerfile: "Missing" }, never), {
    code: "image-build-failed",
  });
  assert.deepEqual(
    (await names()).filter((name) => name.includes("building")),
    [],
  );
});

test("images that nothing needs any more go after a while: those that the platform brought; others only lose its name", async () => {
  const pulled = await pin(`${repository}:2.0`);
  const local = await importImage(engine, { name: "koine-test/kept", changes: ['CMD ["echo", "kept"]'] });
  await pin("koine-test/kept", null);
  const needed = await pin(`${repository}:1.0`);
  assert.equal(
    await containers.images.keepOnly(new Set([needed.image])),
    0,
    "not while somebody may be about to deploy them",
  );
  await clock.advance(limits.unusedPackageMs);
  assert.ok((await containers.images.keepOnly(new Set([needed.image]))) >= 2);
  const own = (await names()).filter((name) => name.startsWith("koine-imagetest:"));
  assert.deepEqual(own.length, 1, own.join());
  assert.equal(await exists(pulled.image), false);
  assert.deepEqual([await exists(local), await exists(needed.image)], [true, true]);
});

test("names that are none are refused before anybody is asked", async () => {
  for (const name of ["", "UPPER", "a b", "x@sha256:12", "host:99999999/x", "-x", "../x"]) {
    await assert.rejects(pin(name, null), { code: "invalid-request" }, name);
  }
});

/** Pushes an image that says something, and removes it here. */
async function publish(tag: string, says: string): Promise<void> {
  const { api } = engine;
  const changes = [`CMD ["echo", "${says}"]`, "EXPOSE 8080"];
  await importImage(engine, { name: "koine-test/publishing", changes, files: { "etc/says": says } });
  await api.json("POST", "/images/koine-test/publishing/tag", { query: { repo: repository, tag } });
  const auth = encodeAuth({ ...login, serveraddress: registry.address });
  const answer = await api.stream("POST", `/images/${repository}/push`, {
    query: { tag },
    headers: { "x-registry-auth": auth },
  });
  let said = "";
  for await (const chunk of answer as AsyncIterable<Buffer>) said += chunk.toString();
  assert.doesNotMatch(said, /"error"/);
  for (const name of ["koine-test/publishing", `${repository}:${tag}`]) await api.json("DELETE", `/images/${name}`);
}

let lastId = 0;

const requestOf = (image: string): SandboxRequest => ({
  id: `image-${++lastId}`,
  command: [],
  environment: {},
  mounts: [],
  limits: testLimits,
  network: "none",
  image,
});

async function outputOf(image: string): Promise<string> {
  return (await run(containers.driver, requestOf(image))).stdout;
}

async function start(image: string): Promise<unknown> {
  return await containers.driver.create(requestOf(image), AbortSignal.timeout(20_000));
}

/** As an operator does who cleans up. */
async function remove(image: string): Promise<void> {
  const inspection = (await engine.api.json("GET", `/images/${image}/json`)) as { readonly Id: string };
  await engine.api.json("DELETE", `/images/${inspection.Id}?force=1`);
}

async function exists(image: string): Promise<boolean> {
  return await engine.api.json("GET", `/images/${image}/json`).then(
    () => true,
    () => false,
  );
}

async function names(): Promise<readonly string[]> {
  const listed = (await engine.api.json("GET", "/images/json")) as readonly {
    readonly RepoTags: readonly string[] | null;
  }[];
  return listed.flatMap(({ RepoTags: tags }) => tags ?? []);
}
