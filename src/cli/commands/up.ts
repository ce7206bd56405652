import type { Command } from "commander";
import { Option } from "commander";
import { resolve } from "node:path";
import { limits } from "../../core/limits.ts";
import type { Cli } from "../command.ts";
import type { NetworkMode } from "../../core/function.ts";
import { collect, defineCommand } from "../command.ts";
import { CliFailure, exitCodes, usageFailure } from "../failure.ts";
import { parseDuration, parseMemory } from "../quantity.ts";

/** What `koine up` was asked for; what is absent is the configuration's to decide. */
export interface UpOptions {
  /** 0 to 65535; 0 takes a free one. */
  readonly port?: number;
  readonly host?: string;
  /** Absolute. */
  readonly dataDirectory?: string;
  readonly sandbox?: "auto" | "process" | "none";
  /** Whether to deploy the examples at the start. */
  readonly examples?: boolean;
  readonly logFormat?: "text" | "json";
  /** File that holds the token callers must show, absolute. */
  readonly tokenFile?: string;
  /** Memory for all instances together. */
  readonly memoryBudgetBytes?: number;
  readonly idleTimeoutMs?: number;
  /** What functions have of the network unless they ask for less, and the most they can have. */
  readonly network?: NetworkMode;
  readonly allowNetwork?: readonly string[];
  /** `unix:///path` of the engine that runs images. */
  readonly containerEngine?: string;
  /** Processes that serve. */
  readonly engines?: number;
}

interface UpFlags {
  readonly port?: string;
  readonly host?: string;
  readonly data?: string;
  readonly sandbox?: "auto" | "process" | "none";
  readonly examples?: boolean;
  readonly logFormat?: "text" | "json";
  readonly tokenFile?: string;
  readonly memoryBudget?: string;
  readonly idleTimeout?: string;
  readonly network?: NetworkMode;
  readonly allowNetwork?: readonly string[];
  readonly engines?: string;
  readonly containerEngine?: string;
}

export function addUp(parent: Command, cli: Cli): void {
  defineCommand(parent, "up", {
    summary: "Run the platform in the foreground",
    detail: "Ctrl-C lets running invocations end and stops; a second Ctrl-C stops at once.",
    examples: [
      "koine up",
      "koine up --port 8080 --data /var/lib/koine --memory-budget 4GB",
      "koine up --allow-network localhost:5432",
      "koine up --engines 4",
    ],
  })
    .option("--port <port>", "port to listen on (default 4000)")
    .option("--host <host>", "address to listen on (default 127.0.0.1)")
    .option("--data <directory>", "where everything is kept (default ./.koine)")
    .addOption(new Option("--sandbox <kind>", "how functions are isolated").choices(["auto", "process", "none"]))
    .option("--examples", "deploy the examples")
    .addOption(new Option("--log-format <format>", "the platform's own log").choices(["text", "json"]))
    .option("--token-file <file>", "file with the token that callers must show")
    .option("--memory-budget <size>", "memory for all instances: 2048, 4GB")
    .option(
      "--idle-timeout <duration>",
      "idle time after which instances of functions not known yet stop, unless their function says (default 60s)",
    )
    .addOption(
      new Option("--network <mode>", "the most that functions reach, and the default").choices([
        "none",
        "egress",
        "host",
      ]),
    )
    .option("--allow-network <rule>", "what they may reach beyond the internet; may be repeated", collect)
    .option("--container-engine <address>", "the engine that runs images: unix:///PATH (default: where one listens)")
    .option("--engines <count>", "processes that serve, about one for each core (default 1)")
    .action(async (flags: UpFlags) => {
      const options = upOptions(flags, cli.io.cwd);
      if (cli.commands.up === undefined) {
        throw new CliFailure(
          "not-supported",
          "This build has no platform to run",
          "Use the koine of a full installation.",
          {
            fault: "platform",
            exitCode: exitCodes.failed,
          },
        );
      }
      cli.exitCode = await cli.commands.up(options);
    });
}

function upOptions(flags: UpFlags, cwd: string): UpOptions {
  const { host, sandbox, examples, logFormat } = flags;
  return {
    ...(flags.network === undefined ? {} : { network: flags.network }),
    ...(flags.allowNetwork === undefined ? {} : { allowNetwork: flags.allowNetwork }),
    ...(flags.port === undefined ? {} : { port: parsePort(flags.port) }),
    ...(host === undefined ? {} : { host }),
    ...(flags.data === undefined ? {} : { dataDirectory: resolve(cwd, flags.data) }),
    ...(sandbox === undefined ? {} : { sandbox }),
    ...(examples === undefined ? {} : { examples }),
    ...(logFormat === undefined ? {} : { logFormat }),
    ...(flags.tokenFile === undefined ? {} : { tokenFile: resolve(cwd, flags.tokenFile) }),
    ...(flags.memoryBudget === undefined ? {} : { memoryBudgetBytes: parseMemory(flags.memoryBudget) }),
    ...(flags.idleTimeout === undefined ? {} : { idleTimeoutMs: parseDuration(flags.idleTimeout) }),
    ...(flags.containerEngine === undefined ? {} : { containerEngine: flags.containerEngine }),
    ...(flags.engines === undefined ? {} : { engines: parseEngines(flags.engines) }),
  };
}

function parseEngines(text: string): number {
  const engines = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (engines < 1 || engines > limits.enginesMax)
    throw usageFailure(`'${text}' is no number of engines`, `Write a number from 1 to ${limits.enginesMax}.`);
  return engines;
}

function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 65_536;
  if (port > 65_535) throw usageFailure(`'${text}' is not a port`, "Write a number from 0 to 65535.");
  return port;
}
