import type { Command } from "commander";
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { isName } from "../../core/function.ts";
import type { Cli, Session } from "../command.ts";
import { defineCommand, globalFlags, withSession } from "../command.ts";
import { usageFailure } from "../failure.ts";
import { askHidden } from "../prompt.ts";
import type { Context } from "../settings.ts";
import { contextNamed, parseUrl, readContexts, writeContexts } from "../settings.ts";
import { readStdinValue } from "./secret.ts";

/** Adds `context list|use|set|delete`: named platforms with token and namespace. */
export function addContext(parent: Command, cli: Cli): void {
  const context = defineCommand(parent, "context", {
    summary: "Keep the addresses of platforms, with token and namespace, under names",
    examples: ["koine context set prod --url https://koine.example.org --token", "koine context use prod"],
  });

  defineCommand(context, "list", { summary: "List the contexts", examples: ["koine context list"] })
    .alias("ls")
    .action(withSession(cli, listContexts));

  defineCommand(context, "use <context>", {
    summary: "Make a context the current one",
    examples: ["koine context use prod"],
  }).action(
    withSession(cli, async ({ io, output }, name: string) => {
      const file = await readContexts(io);
      const { url } = contextNamed(file, name);
      await writeContexts(io, { ...file, current: name });
      output.done(`context ${name} is in use: ${url}`);
      if (output.json) output.value({ current: name });
    }),
  );

  const set = defineCommand(context, "set <context>", {
    summary: "Add or change a context; the first one becomes the current one",
    detail: "--url and --namespace say what it holds; what is left out stays as it was.",
    examples: [
      "koine context set prod --url https://koine.example.org --token",
      "koine context set prod -n team-a --token-file ./token",
    ],
  })
    .option("--token", "ask for the token, or read it from stdin")
    .option("--token-file <file>", "file that holds the token");
  set.action(
    withSession(
      cli,
      async (session, name: string, flags: { readonly token?: boolean; readonly tokenFile?: string }) => {
        await setContext(session, name, { ...globalFlags(set), ...flags });
      },
    ),
  );

  defineCommand(context, "delete <context>", { summary: "Delete a context", examples: ["koine context delete prod"] })
    .alias("rm")
    .action(
      withSession(cli, async ({ io, output }, name: string) => {
        const file = await readContexts(io);
        contextNamed(file, name);
        const contexts = Object.fromEntries(Object.entries(file.contexts).filter(([other]) => other !== name));
        await writeContexts(io, { current: file.current === name ? null : file.current, contexts });
        output.done(`deleted context ${name}`);
        if (output.json) output.value({ deleted: [name] });
      }),
    );
}

async function listContexts({ io, output }: Session): Promise<void> {
  const file = await readContexts(io);
  // Tokens are left out, so that a listing can be shown to anybody.
  const contexts = Object.entries(file.contexts).map(([name, { url, namespace, token }]) => ({
    name,
    current: name === file.current,
    url,
    namespace: namespace ?? null,
    hasToken: token !== undefined,
  }));
  output.list(contexts, {
    columns: [{ title: "" }, { title: "NAME" }, { title: "URL" }, { title: "NAMESPACE" }, { title: "TOKEN" }],
    row: (view) => [view.current ? "*" : "", view.name, view.url, view.namespace ?? "-", view.hasToken ? "yes" : "-"],
    empty: "No contexts; 'koine context set NAME --url URL' adds one.",
  });
}

async function setContext(
  session: Session,
  name: string,
  flags: {
    readonly url?: string;
    readonly namespace?: string;
    readonly token?: boolean;
    readonly tokenFile?: string;
  },
): Promise<void> {
  const { io, output } = session;
  if (!isName(name)) throw usageFailure(`'${name}' is not a name`, "Use letters, digits, '.', '_' and '-'.");
  const file = await readContexts(io);
  const before = Object.hasOwn(file.contexts, name) ? file.contexts[name] : undefined;
  const url = flags.url ?? before?.url;
  if (url === undefined) throw usageFailure(`Context '${name}' needs an address`, "Add --url URL.");
  parseUrl(url);
  const namespace = flags.namespace ?? before?.namespace;
  const token = await contextToken(session, flags, before);
  const context: Context = {
    url,
    ...(token === undefined ? {} : { token }),
    ...(namespace === undefined ? {} : { namespace }),
  };
  const current = file.current ?? name;
  await writeContexts(io, { current, contexts: { ...file.contexts, [name]: context } });
  output.done(`context ${name} is set: ${url}${current === name ? ", in use" : ""}`);
  if (output.json)
    output.value({ name, current: current === name, url, namespace: namespace ?? null, hasToken: token !== undefined });
}

async function contextToken(
  session: Session,
  flags: { readonly url?: string; readonly token?: boolean; readonly tokenFile?: string },
  before: Context | undefined,
): Promise<string | undefined> {
  const { io, signal } = session;
  if (flags.tokenFile !== undefined) return (await readFile(resolve(io.cwd, flags.tokenFile), "utf8")).trim();
  if (flags.token === true) {
    return io.isTerminal.stdin ? await askHidden(io, "Token", signal) : (await readStdinValue(io)).trim();
  }
  // A token belongs to an address: a new address must not be sent the old one's.
  return flags.url === undefined || flags.url === before?.url ? before?.token : undefined;
}
