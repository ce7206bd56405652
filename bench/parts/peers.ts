import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Bench, PartResult } from "../bench.ts";
import { requestBytes } from "../load/connection.ts";
import type { Contender } from "../measure/rounds.ts";
import { ratioOf, type Rounds } from "../measure/rounds.ts";
import { catalogue, elsewhere } from "../peers/catalogue.ts";
import { ratio } from "../report/format.ts";
import { type MetricRow, missingRow } from "../row.ts";
import { helloJs } from "../targets/functions.ts";
import type { Server } from "../targets/server.ts";
import { HELLO_SPEC, loading, type Saturated, saturate, summary } from "./throughput.ts";

const CACHE = fileURLToPath(new URL("../../node_modules/.cache/koine-bench", import.meta.url));

interface Running {
  readonly name: string;
  readonly ratioMin: number | null;
  readonly note: string;
  readonly contender: Contender<Saturated>;
}

/** Row 11: a greeting from everybody, in turn. */
export async function peers(bench: Bench): Promise<PartResult> {
  await using servers = new AsyncDisposableStack();
  const missing: MetricRow[] = [];
  const running: Running[] = [];
  for (const peer of catalogue) {
    const { name, ratioMin, note, path } = peer;
    bench.say(`peers: ${name}`);
    try {
      const server = servers.use(await peer.start(join(CACHE, name)));
      const request = requestBytes(server.address, { path });
      running.push({ name, ratioMin, note, contender: loading(bench, server, request) });
    } catch (thrown) {
      missing.push(missingRow("11", metric(name), target(ratioMin), String(thrown).split("\n").slice(0, 2).join(" ")));
    }
  }
  for (const [name, { ratioMin, note }] of Object.entries(elsewhere)) {
    const url = bench.options.peers[name];
    if (url === undefined)
      missing.push(
        missingRow("11", metric(name), target(ratioMin), `in no package registry: run it and add --peer ${name}=URL`),
      );
    else running.push({ name, ratioMin, note, contender: loading(bench, runningAt(name, url), requestTo(name, url)) });
  }
  const koine = await bench.koine();
  const bare = await bench.bare();
  await koine.deploy("hello", helloJs, HELLO_SPEC);
  bench.say(`peers: ${["Koine", ...running.map(({ name }) => name)].join(", ")} in turn`);
  const rounds = await saturate(
    bench,
    [
      loading(bench, bare, requestBytes(bare.address, { path: "/" })),
      loading(bench, koine, koine.request("hello")),
      ...running.map(({ contender }) => contender),
    ],
    bare.name,
  );
  return { rows: [...running.map((peer) => peerRow(peer, rounds)), ...missing] };
}

function peerRow({ name, ratioMin, note }: Running, rounds: Rounds<Saturated>): MetricRow {
  const found = ratioOf(rounds, { ours: "Koine", reference: name }, ({ perSecond }) => perSecond);
  const [ours, theirs] = [summary(rounds.of("Koine")), summary(rounds.of(name))];
  return {
    id: "11",
    metric: metric(name),
    ours: ours.text,
    reference: `${name} ${theirs.text}`,
    ratio: ratio(found),
    target: target(ratioMin),
    met: ratioMin === null ? null : found.median >= ratioMin,
    note,
    figures: { ratio: found, ours, theirs },
  };
}

function metric(name: string): string {
  return `Throughput beside ${name}`;
}

function target(ratioMin: number | null): string {
  return ratioMin === null ? "–" : `≥ ${ratioMin}×`;
}

/** A server that somebody else has started. */
function runningAt(name: string, url: URL): Server {
  const address = { host: url.hostname, port: Number(url.port || 80) };
  return { name, address, pid: null, [Symbol.asyncDispose]: async () => {} };
}

function requestTo(name: string, url: URL): Buffer {
  const { address } = runningAt(name, url);
  if (name !== "openwhisk") return requestBytes(address, { path: url.pathname });
  const headers = { "Content-Type": "application/json" };
  return requestBytes(address, { method: "POST", path: "/run", headers, body: '{"value":{"name":"world"}}' });
}
