import type { Command } from "commander";
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { SecretView } from "../../core/api.ts";
import { limits } from "../../core/limits.ts";
import { namespacePath } from "../address.ts";
import type { Cli, Session } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { CliFailure, usageFailure } from "../failure.ts";
import type { CliIo } from "../io.ts";
import { askHidden } from "../prompt.ts";
import { formatAgo } from "../quantity.ts";

/** Adds `secret set|list|delete`. */
export function addSecret(parent: Command, cli: Cli): void {
  const secret = defineCommand(parent, "secret", {
    summary: "Keep values that functions get as environment variables and nobody can read back",
    examples: ["koine secret set API_KEY", "koine deploy . --secret API_KEY"],
  });

  defineCommand(secret, "set <secret> [source]", {
    summary: "Set a secret",
    detail:
      "The value is asked for without showing it; or comes from stdin (also said by '-'; one newline at its end is left out),\n" +
      "or from a file as it is. It is never an argument, where other users of the machine could see it.",
    examples: [
      "koine secret set API_KEY",
      "pass show api | koine secret set API_KEY -",
      "koine secret set TLS_KEY --from-file key.pem",
    ],
  })
    .option("--from-file <file>", "file whose content is the value")
    .action(
      withSession(cli, async (session, name: string, source: string | undefined, flags: { fromFile?: string }) => {
        await setSecret(session, name, { source, fromFile: flags.fromFile });
      }),
    );

  defineCommand(secret, "list", { summary: "List the names of secrets", examples: ["koine secret list"] })
    .alias("ls")
    .action(
      withSession(cli, async (session) => {
        const nowMs = session.io.clock.nowMs();
        session.output.list(await session.client.items<SecretView>(namespacePath(session, "/secrets")), {
          columns: [{ title: "NAME" }, { title: "CREATED" }, { title: "UPDATED" }],
          row: (view) => [view.name, formatAgo(view.createdAt, nowMs), formatAgo(view.updatedAt, nowMs)],
          empty: `No secrets in namespace '${session.settings.namespace}'.`,
        });
      }),
    );

  defineCommand(secret, "delete <secret>", { summary: "Delete a secret", examples: ["koine secret delete API_KEY"] })
    .alias("rm")
    .action(
      withSession(cli, async (session, name: string) => {
        await session.client.json("DELETE", secretPath(session, name));
        session.output.done(`deleted secret ${name}`);
        if (session.output.json) session.output.value({ deleted: [name] });
      }),
    );
}

async function setSecret(
  session: Session,
  name: string,
  from: { readonly source: string | undefined; readonly fromFile: string | undefined },
): Promise<void> {
  if (from.source !== undefined && from.source !== "-") {
    const hint = `Use a prompt ('koine secret set ${name}'), stdin ('-') or --from-file.`;
    throw usageFailure("A secret's value cannot be an argument", hint);
  }
  if (from.source === "-" && from.fromFile !== undefined) {
    throw usageFailure("Both '-' and --from-file are given", "Use one of them.");
  }
  const value = await secretValue(session, name, from);
  const view = await session.client.json<SecretView>("PUT", secretPath(session, name), { value });
  session.output.done(`secret ${view.name} is set`);
  if (session.output.json) session.output.value(view);
}

async function secretValue(
  session: Session,
  name: string,
  from: { readonly source: string | undefined; readonly fromFile: string | undefined },
): Promise<string> {
  const { io, signal } = session;
  if (from.fromFile !== undefined) return utf8(await readFile(resolve(io.cwd, from.fromFile)));
  if (from.source !== "-" && io.isTerminal.stdin) return await askHidden(io, `Value of ${name}`, signal);
  return await readStdinValue(io);
}

/** All of stdin as text, without one newline at its end. */
export async function readStdinValue(io: CliIo): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of io.stdin as AsyncIterable<Buffer>) {
    bytes += chunk.byteLength;
    if (bytes > limits.secretBytesMax + 2) {
      throw usageFailure("What comes on stdin is too large", `At most ${limits.secretBytesMax} bytes are possible.`);
    }
    chunks.push(chunk);
  }
  return utf8(Buffer.concat(chunks)).replace(/\r?\n$/, "");
}

function utf8(bytes: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new CliFailure(
      "file-not-usable",
      "The value is not UTF-8 text",
      "Encode it first, with base64 for instance.",
    );
  }
}

function secretPath(session: Session, name: string): string {
  return namespacePath(session, `/secrets/${encodeURIComponent(name)}`);
}
