import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BROKEN, clockJumps, fullDisk, powerCuts } from "./fates.ts";
import { Random } from "./random.ts";
import { type Fate, runCrashes } from "./run.ts";

/**
 * `npm run crash -- --points 1000 --seed 1 --fate power`: runs the whole platform under load and ends it at random points, over and over on one data
 * directory; then judges what functions noted against what clients were told. What is proven by it: `docs/events.md`.
 *
 *   life.ts     one start of `koine up`               load.ts, functions.ts   what is sent, and what takes it
 *   run.ts      the points, and the laps              evidence.ts, recorder.ts what outlives every crash
 *   scene.ts    deploys, and asks at the end          history.ts, reader.ts   the independent judgement
 *   fates.ts    power cuts, full disks, clock jumps   disk.ts, shim.c         the disk that loses what was not synced
 */
const USAGE = `Usage: npm run crash -- [options]

  --fate kill|power|full|clock   what happens to the platform besides its load (default kill)
  --points N                     how often it is ended (default 1000)
  --lap N                        points between two judgements (default 40)
  --seed N                       repeats what was random in a run
  --folder DIRECTORY             where to keep everything
  --sandbox none|process         how functions are isolated (default none, which starts in half the time)
  --broken                       with a store that acknowledges before it syncs: must be found out by --fate power
`;

const { values } = parseArgs({
  options: {
    fate: { type: "string", default: "kill" },
    points: { type: "string", default: "1000" },
    lap: { type: "string", default: "40" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    folder: { type: "string" },
    sandbox: { type: "string", default: "none" },
    broken: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
const { help, folder = mkdtempSync(join(tmpdir(), "koine-crash-")), points, lap, seed, broken } = values;
const fate = help ? null : fateOf(values.fate);
if (fate === null) {
  process.stdout.write(USAGE);
  process.exit(help ? 0 : 2);
}
// Not by the signal itself: at its exit a run takes its platform along.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(1));
const begunMs = performance.now();
const say = (line: string): void => {
  const seconds = `${((performance.now() - begunMs) / 1_000).toFixed(0)} s`;
  process.stdout.write(`${seconds.padStart(7)}  ${line}\n`);
};
say(`fate ${values.fate}, seed ${seed}, ${points} points, in ${folder}`);
const { violations, figures } = await runCrashes({
  folder: join(folder, "run"),
  fate,
  seed: Number(seed),
  points: Number(points),
  pointsPerLap: Number(lap),
  sandbox: values.sandbox === "process" ? "process" : "none",
  env: broken ? BROKEN : {},
  say,
});
for (const [name, figure] of Object.entries(figures)) process.stdout.write(`${String(figure).padStart(10)}  ${name}\n`);
for (const { rule, what } of violations) process.stdout.write(`VIOLATION  ${rule}: ${what}\n`);
process.exit(violations.length === 0 ? 0 : 1);

function fateOf(name: string): Fate | null {
  const random = new Random(Number(seed) + 1);
  const place = join(folder, "fate");
  switch (name) {
    case "kill":
      return {};
    case "power":
      return powerCuts(place, random);
    case "full":
      return fullDisk(place, random);
    case "clock":
      return clockJumps(place, random);
    default:
      return null;
  }
}
