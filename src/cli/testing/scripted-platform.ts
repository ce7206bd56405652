import { createServer } from "node:http";
import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import { readBody } from "../client.ts";

/** What a scripted route answers: JSON with a status, or whatever it writes itself. */
export type Script =
  | { readonly status: number; readonly body?: unknown; readonly headers?: Readonly<Record<string, string>> }
  | ((request: SeenRequest, response: ServerResponse) => void);

export interface SeenRequest {
  readonly method: string;
  /** With the query. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface ScriptedPlatform {
  readonly url: string;
  readonly seen: readonly SeenRequest[];
  /** The one request to `METHOD /path`, query ignored. */
  request(route: string): SeenRequest;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A server that answers `METHOD /path` (query ignored) as it is told, and anything else with the platform's 404. */
export async function scriptedPlatform(routes: Readonly<Record<string, Script>>): Promise<ScriptedPlatform> {
  const seen: SeenRequest[] = [];
  const answer = async (request: SeenRequest, response: ServerResponse): Promise<void> => {
    const script = routes[`${request.method} ${request.url.split("?")[0]}`] ?? errorScript("not-found", 404);
    if (typeof script === "function") {
      script(request, response);
      return;
    }
    const text = script.body === undefined ? "" : JSON.stringify(script.body);
    response.writeHead(script.status, {
      "content-type": "application/json",
      "x-request-id": "req-1",
      ...script.headers,
    });
    response.end(text);
  };
  const server = createServer((incoming, response) => {
    void readBody(incoming).then(async (body) => {
      const { method = "", url = "", headers } = incoming;
      const request = { method, url, headers, body };
      seen.push(request);
      await answer(request, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    seen,
    request(route) {
      const found = seen.filter((other) => `${other.method} ${other.url.split("?")[0]}` === route);
      if (found[0] === undefined || found.length > 1) {
        const all = seen.map((other) => `${other.method} ${other.url}`).join(", ");
        throw new Error(`${found.length} requests to ${route}; seen: ${all}`);
      }
      return found[0];
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** An answer in the platform's error shape. */
export function errorScript(
  code: string,
  status: number,
  more: {
    readonly fault?: string;
    readonly message?: string;
    readonly headers?: Readonly<Record<string, string>>;
  } = {},
): Script {
  const { fault = "caller", message = `the message of ${code}` } = more;
  return {
    status,
    headers: { "x-koine-error": code, ...more.headers },
    body: { error: { code, fault, message, hint: "the hint", requestId: "req-1" } },
  };
}

/** A page with everything on it. */
export function page(...items: readonly unknown[]): Script {
  return { status: 200, body: { items, next: null } };
}
