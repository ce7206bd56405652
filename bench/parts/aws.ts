import { InvokeCommand, LambdaClient } from "@aws-sdk/client-lambda";
import { SignatureV4 } from "@smithy/signature-v4";
import { createHash, createHmac } from "node:crypto";
import type { Bench, PartResult } from "../bench.ts";
import { requestBytes } from "../load/connection.ts";
import { interleave, ratioOf } from "../measure/rounds.ts";
import { median } from "../measure/statistics.ts";
import { durations, ratio } from "../report/format.ts";
import type { Source } from "../targets/functions.ts";
import type { Koine } from "../targets/koine.ts";
import { loading } from "./throughput.ts";

const RATIO_MAX = 1.5;
const CALLS_OF_SDK = 300;
const PATH = "/2015-03-31/functions/signed/invocations";
const BODY = '{"n":1}';
const handler: Source = {
  "index.mjs": `export const handler = async (event) => ({ statusCode: 200, body: "hello" });\n`,
};

/** A warm Invoke, signed and verified, against a native call of the same function through the same kind of client; and what the SDK itself adds. */
export async function aws(bench: Bench): Promise<PartResult> {
  const koine = await bench.koine();
  await koine.deploy("signed", handler, { idleTimeoutMs: 600_000 });
  const key = await keyOf(koine);
  const json = { "Content-Type": "application/json" };
  const native = koine.request("signed", { method: "POST", headers: json, body: BODY });
  bench.say("aws: one call at a time, native and signed");
  const rounds = await interleave(
    [
      { ...loading(bench, koine, native, 1), name: "native" },
      {
        name: "signed",
        // A signature is good for some minutes: each round makes its own.
        run: async () => await loading(bench, koine, await signed(koine, key), 1).run(),
      },
    ],
    (figures) => figures.latency.percentileMs(0.5),
    { count: bench.rounds.count, reference: "native" },
  );
  const names = { ours: "signed", reference: "native" };
  const p50 = ratioOf(rounds, names, ({ latency }) => latency.percentileMs(0.5));
  const of = (name: string, share: number): number =>
    median(rounds.of(name).map(({ latency }) => latency.percentileMs(share)));
  const [ours, theirs] = [names.ours, names.reference].map((name) => ({ p50: of(name, 0.5), p99: of(name, 0.99) }));
  const sdkMs = await throughSdk(koine, key);
  const row = {
    id: "19",
    metric: "Warm Invoke of the AWS dialect, one at a time",
    ours: durations(ours ?? {}),
    reference: `native call ${durations(theirs ?? {})}`,
    ratio: `p50 ${ratio(p50)}`,
    target: `p50 ≤ ${RATIO_MAX}×`,
    met: p50.median <= RATIO_MAX,
    note: `signature verified; through the SDK for JavaScript, whose own work comes on top, p50 ${sdkMs.toFixed(2)} ms`,
    figures: { p50, ours, theirs, sdkP50Ms: sdkMs },
  };
  return { rows: [row] };
}

interface Key {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

async function keyOf(koine: Koine): Promise<Key> {
  const version = "Version=2010-05-08";
  await koine.form(`Action=CreateUser&UserName=bench&${version}`);
  const policy = encodeURIComponent("arn:aws:iam::aws:policy/AdministratorAccess");
  await koine.form(`Action=AttachUserPolicy&UserName=bench&PolicyArn=${policy}&${version}`);
  const xml = await koine.form(`Action=CreateAccessKey&UserName=bench&${version}`);
  const [, accessKeyId = ""] = /<AccessKeyId>(.+)<\/AccessKeyId>/.exec(xml) ?? [];
  const [, secretAccessKey = ""] = /<SecretAccessKey>(.+)<\/SecretAccessKey>/.exec(xml) ?? [];
  return { accessKeyId, secretAccessKey };
}

async function signed(koine: Koine, credentials: Key): Promise<Buffer> {
  const { host, port } = koine.address;
  const signer = new SignatureV4({ credentials, region: "us-east-1", service: "lambda", sha256: Sha256 });
  const { headers } = await signer.sign({
    method: "POST",
    protocol: "http:",
    hostname: host,
    port,
    path: PATH,
    headers: { host: `${host}:${port}`, "content-type": "application/json" },
    body: BODY,
  });
  const { host: _host, ...sent } = headers;
  return requestBytes(koine.address, { method: "POST", path: PATH, headers: sent, body: BODY });
}

async function throughSdk(koine: Koine, credentials: Key): Promise<number> {
  const { host, port } = koine.address;
  const client = new LambdaClient({ endpoint: `http://${host}:${port}`, region: "us-east-1", credentials });
  const Payload = Buffer.from(BODY);
  const timesMs: number[] = [];
  for (let call = 0; call < CALLS_OF_SDK; call++) {
    const begunMs = performance.now();
    await client.send(new InvokeCommand({ FunctionName: "signed", Payload }));
    // The first third warms the client.
    if (call * 3 > CALLS_OF_SDK) timesMs.push(performance.now() - begunMs);
  }
  client.destroy();
  return median(timesMs);
}

class Sha256 {
  readonly #hash;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash = secret === undefined ? createHash("sha256") : createHmac("sha256", secret as Buffer);
  }

  update(part: string | ArrayBuffer | ArrayBufferView): void {
    this.#hash.update(part as Buffer);
  }

  async digest(): Promise<Uint8Array> {
    return this.#hash.digest();
  }
}
