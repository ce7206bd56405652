import { type Agent, type OutgoingHttpHeaders, request } from "node:http";
import { limits } from "../core/limits.ts";

export interface Question {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly headers: OutgoingHttpHeaders;
  readonly body?: Buffer;
  readonly signal: AbortSignal;
}

/** An answer that is small enough to be taken whole. */
export interface WholeAnswer {
  readonly status: number;
  readonly body: Buffer;
  /** There was more than is taken. */
  readonly isCut: boolean;
}

/** One request to a program whose answer is wanted whole. Rejects when the connection breaks, or when the signal fires. */
export function askProgram(agent: Agent, question: Question): Promise<WholeAnswer> {
  const { method, path, headers, body, signal } = question;
  const bytesMax = limits.programPayloadBytesMax;
  return new Promise((resolve, reject) => {
    const maxHeaderSize = limits.programHeadBytesMax;
    const sent = request({ agent, method, path, headers, signal, maxHeaderSize }, (answer) => {
      const parts: Buffer[] = [];
      let length = 0;
      answer.on("data", (part: Buffer) => {
        length += part.length;
        if (length <= bytesMax) parts.push(part);
        else {
          resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(parts), isCut: true });
          answer.destroy();
        }
      });
      answer.on("error", reject);
      answer.on("end", () => {
        if (answer.complete) resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(parts), isCut: false });
        else reject(new Error("the answer broke off"));
      });
    });
    sent.on("error", reject).end(body);
  });
}
