import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect, isDeepStrictEqual } from "node:util";
import { ReaderComparison } from "./testing/compare.ts";
import { RequestGenerator } from "./testing/generate.ts";

/** `npm run fuzz` sets these; the suite runs a part that is always the same. */
const CASES = Number(process.env["KOINE_FUZZ_CASES"] ?? 20_000);
const SEED = Number(process.env["KOINE_FUZZ_SEED"] ?? 1);

test(`whatever a client sends, the front end and node:http read the same requests (${CASES} connections)`, async () => {
  const comparison = new ReaderComparison();
  const counts = { read: 0, byFront: 0, none: 0 };
  for (let index = 0; index < CASES; index++) {
    const seed = (SEED + index) | 0;
    const pieces = new RequestGenerator(seed).connection();
    const { ours, oracle, readByFront } = await comparison.compare(pieces, index % 2 === 1);
    if (!isDeepStrictEqual(ours, oracle)) {
      const sent = pieces
        .map((piece) => JSON.stringify(piece.toString("latin1").replaceAll(/x{20,}/g, "x…")))
        .join("\n  ");
      assert.fail(
        `seed ${seed}: read ${inspect({ ours, oracle, readByFront }, { depth: 4, maxStringLength: 100 })}; sent\n  ${sent}`,
      );
    }
    counts.read += oracle.length;
    counts.byFront += readByFront;
    if (oracle.length === 0) counts.none++;
  }
  comparison.close();
  // Neither would say much if most were refused, or all were left to node:http.
  assert.ok(counts.byFront > counts.read / 3 && counts.byFront < counts.read, JSON.stringify(counts));
  assert.ok(counts.none > CASES / 20 && counts.none < CASES * 0.6, JSON.stringify(counts));
  if (process.env["KOINE_FUZZ_CASES"] !== undefined) process.stdout.write(`${JSON.stringify({ CASES, ...counts })}\n`);
});
