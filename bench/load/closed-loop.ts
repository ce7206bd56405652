import { Histogram } from "../measure/histogram.ts";
import { Connection } from "./connection.ts";
import type { LoadJob, LoadResult } from "./job.ts";

/** Every connection sends its next request as soon as the last one is answered: finds the most a server can do. */
export async function closedLoop(job: LoadJob): Promise<LoadResult> {
  const request = Buffer.from(job.request);
  const statuses: Record<string, number> = {};
  const latency = new Histogram();
  let failures = 0;
  let succeeded = 0;
  const connections = await Promise.all(Array.from({ length: job.connections }, () => Connection.open(job.address)));
  const begunMs = performance.now();
  const endMs = begunMs + job.durationMs;

  const drive = (connection: Connection): Promise<void> =>
    new Promise((resolve) => {
      let sentMs = 0;
      const failed = (): void => {
        failures++;
        resolve();
      };
      const answered = (status: number): void => {
        const nowMs = performance.now();
        statuses[status] = (statuses[status] ?? 0) + 1;
        if (nowMs <= endMs && status < 300) {
          succeeded++;
          latency.record(nowMs - sentMs);
        }
        if (nowMs >= endMs) resolve();
        else send(nowMs);
      };
      const send = (nowMs: number): void => {
        sentMs = nowMs;
        connection.send(request, answered, failed);
      };
      send(performance.now());
    });
  await Promise.all(connections.map(drive));
  for (const connection of connections) connection.close();
  return {
    statuses,
    failures,
    unanswered: 0,
    seconds: job.durationMs / 1000,
    succeeded,
    latency: latency.toJSON(),
    ownDelayP99Ms: 0,
  };
}
