import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { buffer } from "node:stream/consumers";

/** As much of a registry as engines need to push to it and to pull from it, in memory, with a password. */
export interface TestRegistry extends AsyncDisposable {
  /** `127.0.0.1:PORT` */
  readonly address: string;
  /** Requests so far, such as `GET /v2/name/manifests/tag`. */
  readonly requests: string[];
}

export interface RegistryLogin {
  readonly username: string;
  readonly password: string;
}

export async function startRegistry({ username, password }: RegistryLogin): Promise<TestRegistry> {
  const blobs = new Map<string, Buffer>();
  const manifests = new Map<string, { readonly type: string; readonly content: Buffer }>();
  const uploads = new Map<string, Buffer>();
  const requests: string[] = [];
  const expected = `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { method = "", url = "" } = request;
    const { pathname, searchParams } = new URL(url, "http://registry");
    requests.push(`${method} ${pathname}`);
    const send = (status: number, headers: Record<string, string> = {}, body: Buffer | string = ""): void => {
      response.writeHead(status, { "docker-distribution-api-version": "registry/2.0", ...headers });
      response.end(method === "HEAD" ? undefined : body);
    };
    const content = await buffer(request);
    if (request.headers.authorization !== expected) {
      const body = JSON.stringify({ errors: [{ code: "UNAUTHORIZED", message: "authentication required" }] });
      return send(401, { "www-authenticate": 'Basic realm="test"', "content-type": "application/json" }, body);
    }
    if (pathname === "/v2/") return send(200);
    const [, name = "", kind = "", rest = ""] = /^\/v2\/(.+?)\/(manifests|blobs)\/(.*)$/.exec(pathname) ?? [];
    const missing = (code: string): void => {
      const body = JSON.stringify({ errors: [{ code, message: `${code.toLowerCase()} of ${name}` }] });
      send(404, { "content-type": "application/json" }, body);
    };
    if (kind === "manifests") {
      const key = `${name}/${rest}`;
      if (method === "PUT") {
        const digest = digestOf(content);
        const stored = { type: request.headers["content-type"] ?? "", content };
        for (const reference of [rest, digest]) manifests.set(`${name}/${reference}`, stored);
        return send(201, { "docker-content-digest": digest });
      }
      const found = manifests.get(key);
      if (found === undefined) return missing("MANIFEST_UNKNOWN");
      const headers = { "content-type": found.type, "docker-content-digest": digestOf(found.content) };
      return send(200, { ...headers, "content-length": String(found.content.length) }, found.content);
    }
    if (method === "GET" || method === "HEAD") {
      const blob = blobs.get(rest);
      if (blob === undefined) return missing("BLOB_UNKNOWN");
      return send(200, { "content-length": String(blob.length), "docker-content-digest": rest }, blob);
    }
    const upload = /^uploads\/(.*)$/.exec(rest)?.[1];
    if (upload === undefined) return missing("UNSUPPORTED");
    const id = upload === "" ? randomUUID() : upload;
    const sent = Buffer.concat([uploads.get(id) ?? Buffer.alloc(0), content]);
    uploads.set(id, sent);
    const digest = searchParams.get("digest");
    if (method === "PUT" && digest !== null) {
      blobs.set(digest, sent);
      return send(201, { "docker-content-digest": digest });
    }
    send(202, { location: `/v2/${name}/blobs/uploads/${id}`, range: `0-${Math.max(0, sent.length - 1)}` });
  };

  const server = createServer((request, response) => {
    answer(request, response).catch((thrown: unknown) =>
      response.destroy(thrown instanceof Error ? thrown : undefined),
    );
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a registry has an address");
  return {
    address: `127.0.0.1:${address.port}`,
    requests,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function digestOf(content: Buffer): string {
  return `sha256:${createHash("sha256").update(content).digest("hex")}`;
}
