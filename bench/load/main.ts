import { closedLoop } from "./closed-loop.ts";
import type { LoadJob, LoadResult } from "./job.ts";
import { openLoop } from "./open-loop.ts";

/** The load process: does one job after the other and answers each. Ends with the process that started it. */
process.on("disconnect", () => process.exit(0));
process.on("message", (job: LoadJob) => {
  const run: Promise<LoadResult> = job.ratePerSecond === null ? closedLoop(job) : openLoop(job);
  run.then(
    (result) => process.send?.({ result }),
    (thrown: unknown) => process.send?.({ error: String(thrown) }),
  );
});
