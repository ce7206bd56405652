import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Runtime interface clients that tests run as functions bring them: from npm, PyPI and Maven, each with what it needs. */
const NODE = "aws-lambda-ric@4.0.2";
const PYTHON = "awslambdaric==4.2.2";
const JAVA = "aws-lambda-java-runtime-interface-client-2.9.0";

const javaProject = join(dirname(dirname(fileURLToPath(import.meta.url))), "test/system/aws/clients/java/pom.xml");

/** Where they are, one folder per set of versions, with `nodejs`, `python` and `java` in it. */
export function runtimeClientsFolder() {
  const cache = process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  return join(cache, "koine", "test-clients", [NODE.replace("@", "-"), PYTHON.replace("==", "-"), JAVA].join("+"));
}

/** @param {(text: string) => void} say */
export function installRuntimeClients(say) {
  const folder = runtimeClientsFolder();
  if (existsSync(folder)) return;
  say(`installing runtime interface clients: ${NODE} (npm, which compiles it), ${PYTHON} (pip), ${JAVA} (mvn)`);
  // Under another name until all of it is there: a folder of that name is a whole one.
  const unfinished = `${folder}.${process.pid}`;
  mkdirSync(unfinished, { recursive: true });
  const done = fetchNode(unfinished) && fetchPython(unfinished) && fetchJava(unfinished);
  if (done && !existsSync(folder)) renameSync(unfinished, folder);
  else rmSync(unfinished, { recursive: true, force: true });
  if (!done) say("missing: runtime interface clients, which the tests run as functions");
}

/** A part of it is compiled when it is installed. @param {string} folder */
function fetchNode(folder) {
  const target = join(folder, "nodejs");
  return run("npm", ["install", "--prefix", target, "--no-audit", "--no-fund", "--loglevel=error", NODE]);
}

/** For the Python that functions find, which may be another than the one with pip. @param {string} folder */
function fetchPython(folder) {
  const asked = spawnSync("/usr/bin/python3", ["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]);
  const version = asked.status === 0 ? asked.stdout.toString().trim() : "3.11";
  const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
  return run("python3", [...pip, "--python-version", version, "--target", join(folder, "python"), PYTHON]);
}

/** @param {string} folder */
function fetchJava(folder) {
  const goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";
  return run("mvn", ["-q", "-B", "-f", javaProject, goal, `-DoutputDirectory=${join(folder, "java")}`]);
}

/**
 * @param {string} program
 * @param {string[]} args
 */
function run(program, args) {
  const env = { ...process.env, PIP_ROOT_USER_ACTION: "ignore" };
  return spawnSync(program, args, { stdio: ["ignore", "ignore", 2], env }).status === 0;
}
