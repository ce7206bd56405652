import { spawn } from "node:child_process";
import { join } from "node:path";
import { pythonClientsFolder } from "../../../scripts/setup.mjs";

export interface ClientRun {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const RUN_MS_MAX = 120_000;

/** Runs the CLI of the cloud, unmodified, against an address; nothing of the user's own configuration reaches it. */
export async function runCli(url: string, args: readonly string[], cwd: string): Promise<ClientRun> {
  // For queues version 1 of the CLI takes an address of its own from a table, unless it is told one here.
  const told = args[0] === "sqs" ? ["--endpoint-url", url] : [];
  return await runPython(url, [join(pythonClientsFolder(), "bin", "aws"), ...told, ...args], cwd);
}

/** Runs a Python program that finds the SDK. */
export async function runPython(url: string, args: readonly string[], cwd: string): Promise<ClientRun> {
  const env = {
    PATH: process.env["PATH"],
    HOME: cwd,
    PYTHONPATH: pythonClientsFolder(),
    AWS_ENDPOINT_URL: url,
    AWS_ACCESS_KEY_ID: "test",
    AWS_SECRET_ACCESS_KEY: "test",
    AWS_DEFAULT_REGION: "us-east-1",
    AWS_CONFIG_FILE: join(cwd, "none"),
    AWS_SHARED_CREDENTIALS_FILE: join(cwd, "none"),
    AWS_EC2_METADATA_DISABLED: "true",
    AWS_MAX_ATTEMPTS: "1",
    AWS_PAGER: "",
  };
  const child = spawn("python3", [...args], { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), RUN_MS_MAX);
  const run = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => void (run.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => void (run.stderr += text));
  return await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => {
      clearTimeout(timer);
      resolve({ ...run, code: code ?? 128 });
    });
  });
}
