import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Broker, listens, makeCertificate } from "./brokers.ts";
import { freePort, installedOnce, runProgram, scratchFolder, startServer } from "./servers.ts";

const VERSION = "4.4.0";
const PASSWORD = "kafka-pass-of-test";
const pom = fileURLToPath(new URL("./kafka-pom.xml", import.meta.url));

/** A folder with the programs of Apache Kafka, from its Maven artefacts. */
export async function installKafka(): Promise<string> {
  const folder = await installedOnce(`kafka-${VERSION}`, async (into) => {
    await mkdir(join(into, "libs"), { recursive: true });
    await copyFile(pom, join(into, "pom.xml"));
    const copy = ["dependency:copy-dependencies", "-DoutputDirectory=libs", `-Dkafka.version=${VERSION}`];
    await runProgram(["mvn", "-q", "-B", ...copy], into);
  });
  return join(folder, "libs");
}

/** Apache Kafka in KRaft mode, one node that is broker and controller; `user` logs in by PLAIN. */
export async function startKafka(): Promise<Broker> {
  const libs = await installKafka();
  const folder = await scratchFolder("kafka");
  const [port, controllerPort] = [await freePort(), await freePort()];
  const tlsPort = await freePort();
  const { path } = folder;
  const { pem, certificatePath, keyPath } = await makeCertificate(path);
  const keyStore = join(path, "keystore.pem");
  await writeFile(keyStore, (await readFile(keyPath, "utf8")) + (await readFile(certificatePath, "utf8")));
  const config = join(path, "server.properties");
  const login = "org.apache.kafka.common.security.plain.PlainLoginModule required";
  const users = `username="admin" password="${PASSWORD}" user_admin="${PASSWORD}" user_user="${PASSWORD}"`;
  const properties = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.quorum.voters": `1@127.0.0.1:${controllerPort}`,
    listeners: `CLIENT://127.0.0.1:${port},SECURE://127.0.0.1:${tlsPort},CONTROLLER://127.0.0.1:${controllerPort}`,
    "advertised.listeners": `CLIENT://127.0.0.1:${port},SECURE://127.0.0.1:${tlsPort}`,
    "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "CLIENT",
    "controller.listener.names": "CONTROLLER",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.client.plain.sasl.jaas.config": `${login} ${users};`,
    "listener.name.secure.plain.sasl.jaas.config": `${login} ${users};`,
    "listener.name.secure.ssl.keystore.type": "PEM",
    "listener.name.secure.ssl.keystore.location": keyStore,
    "log.dirs": join(path, "log"),
    "num.partitions": "1",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    // Every record is on disk before it is acknowledged, as with several replicas it would be in several memories.
    "log.flush.interval.messages": "1",
  };
  await writeFile(
    config,
    Object.entries(properties)
      .map(([name, value]) => `${name}=${value}\n`)
      .join(""),
  );
  const small = ["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", `${libs}/*`];
  const id = randomBytes(16).toString("base64url");
  await runProgram(["java", ...small, "kafka.tools.StorageTool", "format", "-t", id, "-c", config], path);
  const server = await startServer({
    name: "kafka",
    command: ["java", ...small, "kafka.Kafka", config],
    cwd: path,
    ready: () => listens(port),
  });
  return Object.assign(server, {
    port,
    tlsPort,
    ca: pem,
    password: PASSWORD,
    [Symbol.asyncDispose]: async () => {
      await server.kill();
      await folder[Symbol.asyncDispose]();
    },
  });
}
