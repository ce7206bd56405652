import { createConnection } from "node:net";
import { readFile, writeFile } from "node:fs/promises";
import { once } from "node:events";
import { join } from "node:path";
import {
  freePort,
  runProgram,
  scratchFolder,
  startServer,
  type ScratchFolder,
  type ServerPlan,
  type TestServer,
} from "./servers.ts";

export interface Broker extends TestServer {
  readonly port: number;
  /** For encrypted connections; may be the same. */
  readonly tlsPort: number;
  /** The certificate of who vouches for the server (PEM); for 127.0.0.1 and localhost. */
  readonly ca: string;
  /** `user` may log in with it. */
  readonly password: string;
}

export interface Certificate {
  readonly pem: string;
  readonly certificatePath: string;
  readonly keyPath: string;
}

/** A certificate that vouches for itself. */
export async function makeCertificate(folder: string): Promise<Certificate> {
  const [certificatePath, keyPath] = [join(folder, "certificate.pem"), join(folder, "key.pem")];
  const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", keyPath];
  await runProgram(["openssl", "req", "-x509", "-days", "2", ...key, "-out", certificatePath, ...names]);
  return { pem: await readFile(certificatePath, "utf8"), certificatePath, keyPath };
}

const PASSWORD = "broker-pass-of-test";

/** A nats-server with JetStream; with `secure` it takes encrypted connections only. */
export async function startNats({ secure = false }: { readonly secure?: boolean } = {}): Promise<Broker> {
  const folder = await scratchFolder("nats");
  const port = await freePort();
  const { pem, certificatePath, keyPath } = await makeCertificate(folder.path);
  const config = join(folder.path, "nats.conf");
  await writeFile(
    config,
    `listen: "127.0.0.1:${port}"
     jetstream { store_dir: "${folder.path}" }
     ${secure ? `tls { cert_file: "${certificatePath}", key_file: "${keyPath}" }` : ""}
     authorization { user: user, password: "${PASSWORD}" }
     max_payload: 8MB`,
  );
  return await start(
    { folder, port, tlsPort: port, ca: pem },
    { name: "nats-server", command: ["nats-server", "-c", config] },
  );
}

/** A mosquitto that writes its sessions to disk when it ends. */
export async function startMosquitto(): Promise<Broker> {
  const folder = await scratchFolder("mosquitto");
  const port = await freePort();
  const tlsPort = await freePort();
  const { pem, certificatePath, keyPath } = await makeCertificate(folder.path);
  const config = join(folder.path, "mosquitto.conf");
  const passwords = join(folder.path, "passwords");
  await writeFile(passwords, "", { mode: 0o600 });
  await runProgram(["mosquitto_passwd", "-b", passwords, "user", PASSWORD]);
  const user = process.getuid?.() === 0 ? "user root\n" : "";
  await writeFile(
    config,
    `listener ${port} 127.0.0.1\nlistener ${tlsPort} 127.0.0.1\ncertfile ${certificatePath}\nkeyfile ${keyPath}\n${user}allow_anonymous false\npassword_file ${passwords}\npersistence true\n` +
      `persistence_location ${folder.path}/\nautosave_interval 1800\n` +
      `max_queued_messages 0\nmax_inflight_messages 1000\n`,
  );
  return await start({ folder, port, tlsPort, ca: pem }, { name: "mosquitto", command: ["mosquitto", "-c", config] });
}

/** A rabbitmq-server of its own: node name, cookie, directories and ports; it makes no cluster and joins none. */
export async function startRabbitMq(): Promise<Broker> {
  const folder = await scratchFolder("rabbitmq");
  const [port, distributionPort, namesPort] = [await freePort(), await freePort(), await freePort()];
  const tlsPort = await freePort();
  const { path } = folder;
  const { pem, certificatePath, keyPath } = await makeCertificate(path);
  await writeFile(join(path, "plugins"), "[].");
  await writeFile(
    join(path, "rabbitmq.conf"),
    `listeners.tcp.default = 127.0.0.1:${port}\nlisteners.ssl.default = 127.0.0.1:${tlsPort}\n` +
      `ssl_options.certfile = ${certificatePath}\nssl_options.keyfile = ${keyPath}\ndefault_user = user\ndefault_pass = ${PASSWORD}\n` +
      `disk_free_limit.absolute = 50MB\nvm_memory_high_watermark.absolute = 512MB\nlog.console = true\nlog.console.level = warning\n`,
  );
  const environment = {
    HOME: path,
    RABBITMQ_NODENAME: `koine-test-${port}@localhost`,
    RABBITMQ_NODE_IP_ADDRESS: "127.0.0.1",
    RABBITMQ_DIST_PORT: String(distributionPort),
    ERL_EPMD_PORT: String(namesPort),
    ERL_EPMD_ADDRESS: "127.0.0.1",
    RABBITMQ_BASE: path,
    RABBITMQ_MNESIA_BASE: join(path, "mnesia"),
    RABBITMQ_LOG_BASE: join(path, "log"),
    RABBITMQ_SCHEMA_DIR: join(path, "schema"),
    RABBITMQ_GENERATED_CONFIG_DIR: join(path, "generated"),
    RABBITMQ_CONFIG_FILE: join(path, "rabbitmq"),
    RABBITMQ_CONF_ENV_FILE: join(path, "environment"),
    RABBITMQ_ADVANCED_CONFIG_FILE: join(path, "advanced"),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(path, "plugins"),
    RABBITMQ_PID_FILE: join(path, "pid"),
    RABBITMQ_LOGS: "-",
    // The script becomes the server, instead of a process between it and the test.
    RUNNING_UNDER_SYSTEMD: "yes",
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: "+S 2:2 +sbwt none -start_epmd false",
  };
  const names = await startServer({
    name: "epmd",
    command: ["epmd", "-address", "127.0.0.1", "-port", String(namesPort)],
    environment: { HOME: path },
    ready: () => listens(namesPort),
  });
  try {
    const command = ["/usr/lib/rabbitmq/bin/rabbitmq-server"];
    return await start(
      { folder, port, tlsPort, ca: pem },
      { name: "rabbitmq-server", command, environment, ready: () => greets(port) },
      names,
    );
  } catch (thrown) {
    await names.kill();
    throw thrown;
  }
}

async function start(
  { folder, ...facts }: Pick<Broker, "port" | "tlsPort" | "ca"> & { readonly folder: ScratchFolder },
  plan: Omit<ServerPlan, "ready"> & Partial<Pick<ServerPlan, "ready">>,
  beside?: TestServer,
): Promise<Broker> {
  const server = await startServer({ ready: () => listens(facts.port), ...plan });
  return Object.assign(server, {
    ...facts,
    password: PASSWORD,
    [Symbol.asyncDispose]: async () => {
      await server.stop();
      await beside?.kill();
      await folder[Symbol.asyncDispose]();
    },
  });
}

export async function listens(port: number): Promise<boolean> {
  const socket = createConnection(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } finally {
    socket.destroy();
  }
}

/** Whether the server speaks AMQP already: it answers the protocol's header. */
async function greets(port: number): Promise<boolean> {
  const socket = createConnection(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    socket.write("AMQP\x00\x00\x09\x01");
    await once(socket, "data", { signal: AbortSignal.timeout(2_000) });
    return true;
  } finally {
    socket.destroy();
  }
}
