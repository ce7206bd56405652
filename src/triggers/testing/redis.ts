import { connect } from "node:net";
import { freePort, scratchFolder, startServer, type TestServer } from "./servers.ts";

export interface RedisServer extends TestServer {
  readonly url: string;
  readonly port: number;
  readonly password: string;
}

/** A redis-server that syncs every write, with a password; `further` are options of its configuration. */
export async function startRedis(further: Readonly<Record<string, string | number>> = {}): Promise<RedisServer> {
  const folder = await scratchFolder("redis");
  const port = await freePort();
  const password = "redis-pass-of-test";
  const options = { port, bind: "127.0.0.1", dir: folder.path, appendonly: "yes", appendfsync: "always", save: "" };
  const words = Object.entries({ ...options, requirepass: password, ...further }).flatMap(([name, value]) => [
    `--${name}`,
    String(value),
  ]);
  const server = await startServer({
    name: "redis-server",
    command: ["redis-server", ...words],
    ready: () => pong(port, password),
  });
  return Object.assign(server, {
    url: `redis://127.0.0.1:${port}`,
    port,
    password,
    [Symbol.asyncDispose]: async () => {
      await server.kill();
      await folder[Symbol.asyncDispose]();
    },
  });
}

/** Whether it answers, and not while it still loads what it has on disk. */
async function pong(port: number, password: string): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    let text = "";
    socket.setTimeout(2_000, () => resolve(false));
    socket.on("error", reject);
    socket.on("end", () => resolve(false));
    socket.on("data", (chunk) => {
      text += chunk.toString();
      if (text.includes("+PONG")) resolve(true);
      else if (text.includes("-LOADING")) resolve(false);
    });
    socket.write(`AUTH ${password}\r\nPING\r\n`);
    return await promise;
  } finally {
    socket.destroy();
  }
}
