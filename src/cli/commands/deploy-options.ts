import { type Command, Option } from "commander";
import { collect } from "../command.ts";

/** The options that `deploy` and `dev` share; DeployFlags are their values. */
export function addDeployOptions(command: Command): Command {
  return command
    .option("--name <name>", "function name: NAME or PACKAGE/NAME")
    .option("--runtime <runtime>", "such as nodejs26.x, nodejs22.x, python3, custom")
    .option("--handler <handler>", "FILE or FILE.EXPORT, relative to the folder")
    .option("--handler-model <model>", "calling convention, such as web or lambda; recognised by default")
    .addOption(
      new Option("--protocol <protocol>", "what a program of your own speaks").choices([
        "http",
        "stdio",
        "lambda-runtime-api",
        "action-proxy",
      ]),
    )
    .option("--command <command>", "the program and its arguments, such as './server --port $PORT'")
    .option("--port <port>", "port on which the program listens: in PORT, 8080 by default")
    .option("--ready-path <path>", "path that answers 2xx once the program can be used")
    .option("-e, --env <name=value>", "environment variable; may be repeated", collect)
    .option("--env-file <file>", "file of environment variables, NAME=VALUE per line")
    .option("--secret <name>", "secret that becomes an environment variable; may be repeated", collect)
    .option("--memory <size>", "memory of an instance: 256, 256MB, 1GB")
    .option("--timeout <duration>", "most time an invocation may take: 500ms, 30s, 5m, 2h")
    .option("--concurrency <count>", "invocations one instance serves at a time")
    .option("--max-concurrency <count>", "most invocations of the function at a time")
    .option("--idle-timeout <duration>", "idle time after which an instance stops")
    .option("--cpu <cores>", "most processor time an instance may use: 0.5, 2")
    .addOption(new Option("--network <mode>", "what its code reaches").choices(["none", "egress", "host"]))
    .option("--allow <what>", "what its code may ask of the platform: invoke, publish, schedule, secrets", collect)
    .option("--allow-network <rule>", "what it may reach beyond the internet; may be repeated", collect)
    .option("--retries <count>", "attempts of asynchronous invocations after the first: 0 to 100; 2 by default")
    .option("--retry-delay <duration>", "wait before the first of them, which doubles with each: 1m by default")
    .option("--max-event-age <duration>", "age at which an event is given up: 6h by default")
    .option("--on-success <destination>", "where outcomes go: function:NAME, topic:NAME, https://…")
    .option("--on-failure <destination>", "where failures go that are not tried again")
    .option("--destination-secret <name>", "secret that signs what goes to URLs: WEBHOOK_SECRET by default")
    .option("--public", "may be called over HTTP without a token")
    .option("--description <text>", "what the function is for");
}
