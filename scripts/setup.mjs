// Sets up what is missing, says what it does, and changes nothing when nothing is missing.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { nodePackageName } from "./node-version.mjs";
import { installRuntimeClients } from "./runtime-clients.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Debian packages by the program that shows that they are there. */
const SYSTEM_PACKAGES = {
  start: [
    { program: "bwrap", packages: ["bubblewrap"], why: "isolates functions from the machine" },
    { program: "unshare", packages: ["util-linux"], why: "gives the platform a mount namespace of its own" },
    { program: "nsenter", packages: ["util-linux"], why: "takes functions into networks of their own" },
    { program: "python3", packages: ["python3"], why: "runs Python functions" },
  ],
  test: [
    { program: "pip3", packages: ["python3-pip"], why: "installs the Python packages of functions" },
    { program: "ip", packages: ["iproute2"], why: "makes the networks of the tests" },
    { program: "dockerd", packages: ["docker.io"], why: "is the container engine that tests start for themselves" },
    { program: "busybox", packages: ["busybox-static"], why: "is what the images of the tests are made of" },
    { program: "gcc", packages: ["gcc", "libc6-dev"], why: "compiles the static programs of the tests" },
    { program: "go", packages: ["golang-go"], why: "builds the Go functions of the tests" },
    { program: "javac", packages: ["openjdk-17-jdk-headless"], why: "compiles the Java functions of the tests" },
    { program: "cmake", packages: ["cmake", "g++", "make"], why: "compiles a runtime client of the tests" },
    { program: "mvn", packages: ["maven"], why: "fetches what Java functions need, and Apache Kafka" },
    { program: "openssl", packages: ["openssl"], why: "makes the certificates of the servers of the tests" },
    { program: "redis-server", packages: ["redis-server"], why: "is the Redis that tests of triggers start" },
    // The server itself is in nobody's path; this comes with it.
    { program: "pg_createcluster", packages: ["postgresql"], why: "is the database that tests of triggers start" },
    { program: "nats-server", packages: ["nats-server"], why: "is a broker that the tests of event sources start" },
    {
      program: "rabbitmq-server",
      packages: ["rabbitmq-server"],
      why: "is a broker that the tests of event sources start",
    },
    { program: "mosquitto", packages: ["mosquitto"], why: "is a broker that the tests of event sources start" },
    { program: "curl", packages: ["curl"], why: "is what a custom runtime written for the shell asks with" },
  ],
};

/** Clients from PyPI that tests drive the platform with, as people do; pip puts them into a folder of their own. */
const PYTHON_CLIENTS = ["awscli==1.45.11", "boto3==1.43.11"];

/** Where they are, one folder per set of versions, so that a newer set is another folder. */
export function pythonClientsFolder() {
  const cache = process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  return join(cache, "koine", "test-clients", PYTHON_CLIENTS.join("-").replaceAll("==", "-"));
}

/**
 * @param {{ purpose: "start" | "test" }} options
 * @returns {boolean} whether koine can run
 */
export function setup({ purpose }) {
  if (Number(process.versions.node.split(".")[0]) < 20) {
    say(`Node ${process.versions.node} is too old to set up koine: Node 20 or newer is needed`);
    return false;
  }
  if (!installPackages()) return false;
  installSystemPackages([...SYSTEM_PACKAGES.start, ...(purpose === "test" ? SYSTEM_PACKAGES.test : [])]);
  if (purpose === "test") {
    installPythonClients();
    installRuntimeClients(say);
  }
  return true;
}

function installPythonClients() {
  const folder = pythonClientsFolder();
  if (existsSync(folder)) return;
  say(`installing ${PYTHON_CLIENTS.join(", ")} (pip)`);
  // Under another name until all of it is there: a folder of that name is a whole one.
  const unfinished = `${folder}.${process.pid}`;
  const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", unfinished];
  const { status } = spawnSync("python3", [...pip, ...PYTHON_CLIENTS], {
    stdio: ["ignore", "ignore", 2],
    env: { ...process.env, PIP_ROOT_USER_ACTION: "ignore" },
  });
  if (status === 0 && !existsSync(folder)) renameSync(unfinished, folder);
  else rmSync(unfinished, { recursive: true, force: true });
  if (status !== 0) say(`missing: ${PYTHON_CLIENTS.join(", ")}, with which the tests drive the platform`);
}

/** Path of the Node that koine runs on. */
export function nodePath() {
  const manifest = createRequire(import.meta.url).resolve(`${nodePackageName()}/package.json`);
  return join(dirname(manifest), "bin", "node");
}

function installPackages() {
  if (packagesAreCurrent()) return true;
  say("installing koine's packages and its Node (npm ci)");
  const { status, error } = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    stdio: ["ignore", 2, 2],
  });
  if (status === 0) return true;
  say(`npm ci failed${error === undefined ? "" : `: ${error.message}`}`);
  return false;
}

function packagesAreCurrent() {
  const installed = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(installed) || !existsSync(join(root, "node_modules", nodePackageName(), "bin", "node"))) return false;
  if (statSync(installed).mtimeMs >= statSync(join(root, "package-lock.json")).mtimeMs) return true;
  return sameVersions(installed, join(root, "package-lock.json"));
}

/**
 * @param {string} installed
 * @param {string} wanted
 */
function sameVersions(installed, wanted) {
  const [have, want] = [installed, wanted].map((path) => JSON.parse(readFileSync(path, "utf8")).packages);
  return Object.entries(want).every(
    ([name, entry]) => name === "" || entry.optional === true || have[name]?.version === entry.version,
  );
}

/** @param {{ program: string, packages: string[], why: string }[]} wanted */
function installSystemPackages(wanted) {
  if (process.platform !== "linux") {
    say("this is not Linux: functions run as plain processes, without isolation");
    return;
  }
  const missing = wanted.filter(({ program }) => !onPath(program));
  if (missing.length === 0) return;
  const names = missing.flatMap(({ packages }) => packages);
  const asRoot =
    process.getuid?.() === 0 ? [] : onPath("sudo") && succeeds("sudo", ["-n", "true"]) ? ["sudo", "-n"] : null;
  if (onPath("apt-get") && asRoot !== null) {
    say(`installing ${names.join(", ")} (apt-get)`);
    // In this runlevel no service is started: who tests has asked for programs, not for an engine that runs for ever.
    const environment = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" };
    const apt = (/** @type {string[]} */ ...args) => {
      const [program = "", ...rest] = [...asRoot, "apt-get", ...args];
      return spawnSync(program, rest, { stdio: ["ignore", "ignore", 2], env: environment }).status === 0;
    };
    const install = () => apt("install", "-y", "-qq", "--no-install-recommends", ...names);
    if (install() || (apt("update", "-qq") && install())) return;
  }
  for (const { program, packages, why } of missing) {
    if (!onPath(program))
      say(`missing: ${program}, which ${why}; to get it: apt-get install ${packages.join(" ")} (as root)`);
  }
}

/** @param {string} program */
function onPath(program) {
  return (process.env["PATH"] ?? "").split(":").some((folder) => folder !== "" && existsSync(join(folder, program)));
}

/**
 * @param {string} program
 * @param {string[]} args
 */
function succeeds(program, args) {
  return spawnSync(program, args, { stdio: "ignore" }).status === 0;
}

/** @param {string} text */
function say(text) {
  process.stderr.write(`  ${text}\n`);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  process.exit(setup({ purpose: process.argv.includes("--test") ? "test" : "start" }) ? 0 : 1);
}
