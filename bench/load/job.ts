import type { HistogramRecord } from "../measure/histogram.ts";
import type { Address } from "./connection.ts";

/** What the load process is asked to do. */
export interface LoadJob {
  readonly address: Address;
  /** The bytes of every request. */
  readonly request: Uint8Array;
  readonly connections: number;
  readonly durationMs: number;
  /** Null: closed loop, every connection sends again as soon as it is answered. Else: open loop at this rate, whatever the answers do. */
  readonly ratePerSecond: number | null;
}

export interface LoadResult {
  /** Answers by status. */
  readonly statuses: Readonly<Record<string, number>>;
  /** Requests whose connection broke. */
  readonly failures: number;
  /** Requests that were due and had no answer when the time to wait for it was over. */
  readonly unanswered: number;
  /** Seconds from the first request to the end of the duration. */
  readonly seconds: number;
  /** Successful answers within the duration. */
  readonly succeeded: number;
  /** Of successful answers. Open loop: from when the request was due, so that a slow server delays nobody's clock. */
  readonly latency: HistogramRecord;
  /** How late the generator itself was, of 99 % of requests; open loop only. */
  readonly ownDelayP99Ms: number;
}
