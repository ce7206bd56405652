import { Agent as HttpAgent, request as httpRequest } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { KoineError } from "../../core/errors.ts";
import { tlsOptions, type TlsSettings } from "./tls.ts";
import type { SourceHost } from "../trigger.ts";

const ANSWER_BYTES_MAX = 16 * 1024 * 1024;

export interface HttpRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  /** After which an answer is not waited for any more, in milliseconds. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

export interface HttpAnswer {
  readonly status: number;
  header(name: string): string | undefined;
  readonly body: string;
}

/** Requests of one source to its server, over connections that stay open. */
export interface HttpConnections extends Disposable {
  /** @throws Error when there is no answer, KoineError `source-failed` when it is too large */
  ask(request: HttpRequest): Promise<HttpAnswer>;
}

export function httpConnections(
  tls: TlsSettings | undefined,
  host: Pick<SourceHost, "secret">,
  { connections }: { readonly connections: number },
): HttpConnections {
  const agents = {
    http: new HttpAgent({ keepAlive: true, maxSockets: connections }),
    https: new HttpsAgent({ keepAlive: true, maxSockets: connections, ...tlsOptions(tls, host) }),
  };
  return {
    ask: (request) => ask(request, agents),
    [Symbol.dispose]: () => {
      agents.http.destroy();
      agents.https.destroy();
    },
  };
}

function ask(
  { method, url, headers, body, timeoutMs, signal }: HttpRequest,
  agents: { readonly http: HttpAgent; readonly https: HttpsAgent },
): Promise<HttpAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<HttpAnswer>();
  const within = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  const options = { method, headers, signal: within };
  const request =
    url.protocol === "https:"
      ? httpsRequest(url, { ...options, agent: agents.https })
      : httpRequest(url, { ...options, agent: agents.http });
  request.once("error", reject);
  request.once("response", (response) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    response.once("error", reject);
    response.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      if ((bytes += chunk.length) <= ANSWER_BYTES_MAX) return;
      request.destroy();
      reject(new KoineError("source-failed", { detail: `the server answered more than ${ANSWER_BYTES_MAX} bytes` }));
    });
    response.once("end", () =>
      resolve({
        status: response.statusCode ?? 0,
        header: (name) => {
          const value = response.headers[name];
          return typeof value === "string" ? value : undefined;
        },
        body: Buffer.concat(chunks).toString("utf8"),
      }),
    );
  });
  request.end(body);
  return promise;
}
