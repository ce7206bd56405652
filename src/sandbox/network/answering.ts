import type { MessagePort } from "node:worker_threads";
import type { Answered, Asked } from "./wire.ts";

/** Answers what this thread is asked, one after the other. */
export function answer<Request>(port: MessagePort, act: (request: Request) => unknown): void {
  port.on("message", ({ number, request }: Asked<Request>) => {
    let answered: Answered;
    try {
      answered = { number, error: null, value: act(request) };
    } catch (thrown) {
      const code = thrown instanceof Error && "code" in thrown ? String(thrown.code) : null;
      const error = thrown instanceof Error ? thrown.message : String(thrown);
      answered = { number, error, value: null, ...(code === null ? {} : { code }) };
    }
    port.postMessage(answered);
  });
}
