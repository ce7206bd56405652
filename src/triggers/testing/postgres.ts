import { existsSync, globSync } from "node:fs";
import { chown, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Client } from "pg";
import { freePort, runProgram, scratchFolder, startServer, type TestServer, unprivilegedPrefix } from "./servers.ts";

export interface PostgresServer extends TestServer {
  readonly url: string;
  readonly port: number;
  readonly password: string;
}

/** A postgres with a database `events` of its user `koine`, who needs a password. Commits are synced. */
export async function startPostgres(): Promise<PostgresServer> {
  const programs = programFolder();
  const folder = await scratchFolder("postgres", { unprivileged: true });
  const [data, passwordFile] = [join(folder.path, "data"), join(folder.path, "password")];
  const port = await freePort();
  const password = "postgres-pass-of-test";
  await writeFile(passwordFile, `${password}\n`);
  if (process.getuid?.() === 0) await chown(passwordFile, 65_534, 65_534);
  const initialise = [join(programs, "initdb"), "-D", data, "-U", "koine", "--pwfile", passwordFile];
  await runProgram([...unprivilegedPrefix(), ...initialise, "-A", "scram-sha-256", "-E", "UTF8", "--no-sync"], "/");
  const settings = {
    port,
    listen_addresses: "127.0.0.1",
    unix_socket_directories: folder.path,
    shared_buffers: "32MB",
  };
  const options = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const server = await startServer({
    name: "postgres",
    command: [join(programs, "postgres"), "-D", data, ...options],
    cwd: "/",
    unprivileged: true,
    // Ends connections and stops at once, in order.
    stopSignal: "SIGINT",
    ready: () => answers(port, password),
  });
  const url = `postgres://koine@127.0.0.1:${port}/postgres`;
  return Object.assign(server, {
    url,
    port,
    password,
    [Symbol.asyncDispose]: async () => {
      await server.kill();
      await folder[Symbol.asyncDispose]();
    },
  });
}

/** A connection for one use. */
export async function asking<Answer>(
  { url, password }: Pick<PostgresServer, "url" | "password">,
  use: (client: Client) => Promise<Answer>,
): Promise<Answer> {
  const connectionString = url.replace("@", `:${encodeURIComponent(password)}@`);
  const client = new Client({ connectionString });
  // A server that is stopped meanwhile makes the query reject, too.
  client.on("error", () => {});
  try {
    await client.connect();
    return await use(client);
  } finally {
    await client.end();
  }
}

async function answers(port: number, password: string): Promise<boolean> {
  await asking({ url: `postgres://koine@127.0.0.1:${port}/postgres`, password }, (client) => client.query("SELECT 1"));
  return true;
}

/** Debian keeps the server's programs out of everybody's path, by version. */
function programFolder(): string {
  const folders = (process.env["PATH"] ?? "").split(":").filter((folder) => existsSync(join(folder, "initdb")));
  const debian = globSync("/usr/lib/postgresql/*/bin/initdb").map((path) => dirname(path));
  const [found] = [...folders, ...debian.sort().toReversed()];
  if (found === undefined) throw new Error("PostgreSQL's server is not installed");
  return found;
}
