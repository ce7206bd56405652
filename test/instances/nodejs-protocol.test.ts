import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createFramesProtocol } from "../../src/protocols/frames.ts";
import { protocolConformance } from "../../src/protocols/conformance.ts";
import { createNodeRuntime } from "../../src/runtimes/nodejs.ts";
import { nodeBootstrap, startNodeProcess } from "./node-instance.ts";

const files = {
  "index.mjs": `
    export default async function handle(request, context) {
      const url = new URL(request.url);
      switch (url.pathname) {
        case "/echo":
          return new Response(request.body, { status: 201, headers: { "x-tag": request.headers.get("x-tag") ?? "" } });
        case "/large":
          return new Response("x".repeat(Number(url.searchParams.get("bytes"))));
        case "/fail":
          throw new RangeError("broken");
        case "/exit":
          return process.exit(3);
        case "/wait":
          await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
          return new Response("gone");
        case "/log":
          console.log(url.searchParams.get("text"));
          await new Promise((resolve) => setImmediate(resolve));
          console.log(url.searchParams.get("text"));
          return new Response("logged");
        default:
          return new Response("?", { status: 404 });
      }
    }`,
};

protocolConformance("frames with Node", createFramesProtocol(), () => startNodeProcess(files));

// As it is mounted into sandboxes: joined into one file.
const cacheDirectory = await mkdtemp(join(tmpdir(), "koine-runtimes-"));
after(() => rm(cacheDirectory, { recursive: true, force: true }));
const bootstrapFolder = dirname(nodeBootstrap);
const runtime = createNodeRuntime({
  name: "nodejs26.x",
  cacheDirectory,
  bootstrapFolder,
  adapters: [],
  environment: {},
});
const { mounts } = await runtime.prepare(AbortSignal.timeout(20_000));
const joined = mounts.find(({ target }) => target.endsWith("/bootstrap/nodejs"))?.source ?? "";
if (!joined.startsWith(cacheDirectory)) throw new Error("the bootstrap was not joined");
protocolConformance("frames with Node, joined", createFramesProtocol(), () =>
  startNodeProcess(files, join(joined, "main.mjs")),
);

test("a process that was told to rehearse answers when it has, and is specialised in the middle of it", async () => {
  for (const pings of [1, 2, 3]) {
    const process = await startNodeProcess(files);
    try {
      const link = createFramesProtocol().connect(process.reach, { log: () => {}, closed: () => {} });
      await link.ready(AbortSignal.timeout(20_000));
      assert.ok(await link.ping(20_000));
      const further = Array.from({ length: pings - 1 }, () => link.ping(20_000));
      await link.specialise(process.specialisation, AbortSignal.timeout(20_000));
      assert.ok((await Promise.all(further)).every((answered) => answered));
      assert.ok(await link.ping(20_000));
    } finally {
      await process.stop();
    }
  }
});
