import { access, mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort, type Server, startServer } from "../targets/server.ts";
import { install, program } from "./install.ts";

/** Another platform's server for functions, run as it ships. */
export interface Peer {
  readonly name: string;
  /** How many times as fast as it we want to be; null: only shown. */
  readonly ratioMin: number | null;
  /** What it does not do and we do, or the other way round. */
  readonly note: string;
  readonly path: string;
  /** Installs it into a folder on first use and starts it. @throws Error when either fails */
  start(folder: string): Promise<Server>;
}

const GREETING = '"Hello, world!\\n"';

export const catalogue: readonly Peer[] = [
  {
    name: "functions-framework",
    ratioMin: 4.5,
    note: "Google's, for Node; no router, no isolation",
    path: "/",
    async start(folder) {
      await install(folder, ["@google-cloud/functions-framework@5.0.5"]);
      await write(folder, { "index.js": `exports.hello = (request, response) => response.send(${GREETING});\n` });
      const script = join(folder, "node_modules/@google-cloud/functions-framework/build/src/main.js");
      return await serve(this, { folder, command: [...node(), script, "--target=hello"] });
    },
  },
  {
    name: "workerd",
    ratioMin: 3,
    note: "Cloudflare's; isolates instead of processes, no authentication or routes in this setting",
    path: "/",
    async start(folder) {
      await install(folder, ["workerd@1.20261117.1"]);
      const port = await freePort();
      await write(folder, {
        "index.mjs": `export default { async fetch() { return new Response(${GREETING}); } };\n`,
        "config.capnp": workerdConfig(port),
      });
      // The package's own program replaces itself by this one.
      const platform = `${process.platform}-${process.arch === "x64" ? "64" : process.arch}`;
      const command = [
        join(folder, `node_modules/@cloudflare/workerd-${platform}/bin/workerd`),
        "serve",
        "config.capnp",
      ];
      return await startServer({ name: this.name, command, cwd: folder, path: this.path, port });
    },
  },
  {
    name: "serverless-offline",
    ratioMin: null,
    note: "imitates AWS Lambda for development; thread per function",
    path: "/hello",
    async start(folder) {
      await install(folder, ["serverless@3.40.0", "serverless-offline@13.9.0"]);
      const [port, lambdaPort] = [await freePort(), await freePort()];
      const answer = `{ statusCode: 200, headers: { "Content-Type": "text/plain" }, body: ${GREETING} }`;
      await write(folder, {
        "index.js": `exports.hello = async () => (${answer});\n`,
        "serverless.yml": SERVERLESS_YML,
      });
      const script = join(folder, "node_modules/serverless/bin/serverless.js");
      const ports = ["--httpPort", String(port), "--lambdaPort", String(lambdaPort), "--host", "127.0.0.1"];
      const command = [...node(), script, "offline", "start", ...ports];
      const environment = { SLS_TELEMETRY_DISABLED: "1", SLS_NOTIFICATIONS_MODE: "off" };
      return await startServer({ name: this.name, command, cwd: folder, path: this.path, port, environment });
    },
  },
  {
    name: "of-watchdog",
    ratioMin: null,
    note: "OpenFaaS's, in front of a bare node:http server; no router, no isolation of its own",
    path: "/",
    async start(folder) {
      const watchdog = await program(folder, "github.com/openfaas/of-watchdog", "of-watchdog");
      const upstream = await freePort();
      const environment = {
        mode: "http",
        upstream_url: `http://127.0.0.1:${upstream}`,
        fprocess: `${process.execPath} ${fileURLToPath(new URL("../targets/bare-server.mjs", import.meta.url))}`,
        PORT: String(upstream),
      };
      return await serve(this, { folder, command: [watchdog], environment });
    },
  },
];

/** Peers that no registry serves: somebody who has them runs them and names them by `--peer`. */
export const elsewhere: Readonly<Record<string, { readonly ratioMin: number; readonly note: string }>> = {
  fission: {
    ratioMin: 3.5,
    note: "Fission's node environment, specialised beforehand; no router, no isolation of its own",
  },
  openwhisk: {
    ratioMin: 6,
    note: "OpenWhisk's action proxy for Node, initialised beforehand; POST /run with a small value",
  },
};

/** Our Node, listening on loopback only. */
function node(): readonly string[] {
  return [process.execPath, "--import", new URL("loopback.mjs", import.meta.url).href];
}

interface ServePlan {
  readonly folder: string;
  readonly command: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

async function serve(peer: Peer, { folder, command, environment = {} }: ServePlan): Promise<Server> {
  const port = await freePort();
  const ports = { PORT: String(port), port: String(port), ...environment };
  return await startServer({ name: peer.name, command, cwd: folder, path: peer.path, port, environment: ports });
}

async function write(folder: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
    await access(path);
  }
}

const SERVERLESS_YML = `service: hello
frameworkVersion: "3"
provider:
  name: aws
  runtime: nodejs20.x
plugins:
  - serverless-offline
functions:
  hello:
    handler: index.hello
    events:
      - httpApi: "GET /hello"
`;

function workerdConfig(port: number): string {
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .hello)],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")],
);
const hello :Workerd.Worker = (
  modules = [(name = "index.mjs", esModule = embed "index.mjs")],
  compatibilityDate = "2026-01-01",
);
`;
}
