import { httpConnections } from "../connection/http.ts";
import { openSigner } from "../connection/signed.ts";
import { freePort, installedOnce, runProgram, scratchFolder, startServer, type TestServer } from "./servers.ts";

const S3RVER = "s3rver@3.7.1";
const MOTO = "5.2.1";

export interface StoreServer extends TestServer {
  readonly url: string;
}

export const STORE_KEY = { accessKeyId: "test-key", secretAccessKey: "store-secret-of-test" };

/** s3rver: an S3-compatible store that keeps objects in files and checks signatures. */
export async function startS3rver(): Promise<StoreServer> {
  const installed = await installedOnce("s3rver-3.7.1", async (folder) => {
    await runProgram([
      "npm",
      "install",
      "--prefix",
      folder,
      "--no-audit",
      "--no-fund",
      "--no-save",
      "--loglevel=error",
      S3RVER,
    ]);
  });
  const folder = await scratchFolder("s3rver");
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const options = { address: "127.0.0.1", port, directory: folder.path, silent: true };
  // Its only key is as secret as its name; it gets another one.
  const script = `const { DUMMY_ACCOUNT } = require("s3rver/lib/models/account");
    DUMMY_ACCOUNT.createKeyPair("${STORE_KEY.accessKeyId}", "${STORE_KEY.secretAccessKey}");
    new (require("s3rver"))(${JSON.stringify(options)}).run();`;
  const server = await startServer({
    name: "s3rver",
    command: [process.execPath, "-e", script],
    cwd: installed,
    environment: { NODE_NO_WARNINGS: "1" },
    ready: () => answers(url),
  });
  return withUrl(server, url, folder);
}

/** moto: imitations of several services in one process, in memory. */
export async function startMoto(): Promise<StoreServer> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const python = await motoFolder();
  const server = await startServer({
    name: "moto",
    command: ["python3", "-m", "moto.server", "-H", "127.0.0.1", "-p", String(port)],
    ...(python === null ? {} : { environment: { PYTHONPATH: python } }),
    ready: () => answers(url),
  });
  return withUrl(server, url, null);
}

/** Null where Python finds it by itself. */
async function motoFolder(): Promise<string | null> {
  const found = await runProgram(["python3", "-c", "import moto, flask; print(moto.__version__)"]).catch(() => "");
  if (found.trim() === MOTO) return null;
  return await installedOnce(`moto-${MOTO}`, async (folder) => {
    await runProgram(["pip3", "install", "--quiet", "--target", folder, `moto[server,s3,sqs]==${MOTO}`]);
  });
}

/** Puts objects into a bucket; with `null` as its content, makes the bucket. */
export async function putObjects(
  url: string,
  bucket: string,
  objects: readonly (readonly [key: string, content: string | null])[],
): Promise<void> {
  const host = { secret: () => STORE_KEY.secretAccessKey };
  const settings = {
    region: "us-east-1",
    accessKeyId: STORE_KEY.accessKeyId,
    secretAccessKey: { secret: "KEY" },
    sessionToken: undefined,
  };
  const sign = await openSigner(settings, "s3", host);
  using connections = httpConnections(undefined, host, { connections: 4 });
  for (const [key, content] of objects) {
    const address = new URL(`${url}/${bucket}${content === null ? "" : `/${encodeURIComponent(key)}`}`);
    const body = content ?? "";
    const headers = await sign({
      method: "PUT",
      url: address,
      headers: { "content-length": String(Buffer.byteLength(body)) },
      body,
    });
    const signal = AbortSignal.timeout(30_000);
    const answer = await connections.ask({ method: "PUT", url: address, headers, body, timeoutMs: 30_000, signal });
    if (answer.status >= 300) throw new Error(`putting ${key} was answered ${answer.status}: ${answer.body}`);
  }
}

function withUrl(server: TestServer, url: string, folder: AsyncDisposable | null): StoreServer {
  return Object.assign(server, {
    url,
    [Symbol.asyncDispose]: async () => {
      await server.kill();
      await folder?.[Symbol.asyncDispose]();
    },
  });
}

async function answers(url: string): Promise<boolean> {
  await (await fetch(url, { signal: AbortSignal.timeout(2_000) })).arrayBuffer();
  return true;
}
