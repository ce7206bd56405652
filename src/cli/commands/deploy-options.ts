import type { Command } from "commander";
import { collect } from "../command.ts";

/** The options that `deploy` and `dev` share; DeployFlags are their values. */
export function addDeployOptions(command: Command): Command {
  return command
    .option("--name <name>", "function name: NAME or PACKAGE/NAME")
    .option("--runtime <runtime>", "such as nodejs26.x, nodejs22.x, python3")
    .option("--handler <handler>", "FILE or FILE.EXPORT, relative to the folder")
    .option("--handler-model <model>", "calling convention, such as web or lambda; recognised by default")
    .option("-e, --env <name=value>", "environment variable; may be repeated", collect)
    .option("--env-file <file>", "file of environment variables, NAME=VALUE per line")
    .option("--secret <name>", "secret that becomes an environment variable; may be repeated", collect)
    .option("--memory <size>", "memory of an instance: 256, 256MB, 1GB")
    .option("--timeout <duration>", "most time an invocation may take: 500ms, 30s, 5m, 2h")
    .option("--concurrency <count>", "invocations one instance serves at a time")
    .option("--max-concurrency <count>", "most invocations of the function at a time")
    .option("--idle-timeout <duration>", "idle time after which an instance stops")
    .option("--public", "may be called over HTTP without a token")
    .option("--description <text>", "what the function is for");
}
