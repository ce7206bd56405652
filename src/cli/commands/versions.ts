import type { Command } from "commander";
import type { FunctionView, Page, VersionView } from "../../core/api.ts";
import { functionNamed, functionPath, inPackage } from "../address.ts";
import type { Cli, Session } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { formatAgo, formatBytes, parseCount } from "../quantity.ts";

/** Adds `versions`, `publish` and `rollback`: what there is, and what of it is live. */
export function addVersions(parent: Command, cli: Cli): void {
  defineCommand(parent, "versions <name>", {
    summary: "List the versions of a function, newest first",
    examples: ["koine versions hello"],
  }).action(withSession(cli, listVersions));

  defineCommand(parent, "publish <name> <version>", {
    summary: "Make a version live",
    examples: ["koine publish hello 3"],
  }).action(
    withSession(cli, async (session, name: string, version: string) => {
      await makeLive(session, name, { verb: "publish", version: parseCount(version, "a version") });
    }),
  );

  defineCommand(parent, "rollback <name>", {
    summary: "Make the version that was live before live again",
    examples: ["koine rollback hello", "koine rollback hello --to 2"],
  })
    .option("--to <version>", "version to go back to")
    .action(
      withSession(cli, async (session, name: string, flags: { readonly to?: string }) => {
        const version = flags.to === undefined ? undefined : parseCount(flags.to, "a version");
        await makeLive(session, name, { verb: "rollback", version });
      }),
    );
}

async function listVersions(session: Session, name: string): Promise<void> {
  const nowMs = session.io.clock.nowMs();
  const path = functionPath(session, functionNamed(session, name), "/versions");
  const { items } = await session.client.json<Page<VersionView>>("GET", path);
  session.output.list(items, {
    columns: [
      { title: "VERSION", align: "right" },
      { title: "LIVE" },
      { title: "ALIASES" },
      { title: "RUNTIME" },
      { title: "HANDLER" },
      { title: "MEMORY", align: "right" },
      { title: "CODE" },
      { title: "CREATED" },
    ],
    row: (view) => [
      String(view.number),
      view.live ? session.output.paint("green", "live") : "",
      view.aliases.join(", "),
      view.spec.runtime,
      view.spec.handler,
      formatBytes(view.spec.memoryBytesMax),
      view.spec.code.replace(/^sha256:/, "").slice(0, 12),
      formatAgo(view.createdAt, nowMs),
    ],
    empty: "No versions.",
  });
}

async function makeLive(
  session: Session,
  name: string,
  change: { readonly verb: "publish" | "rollback"; readonly version: number | undefined },
): Promise<void> {
  const ref = functionNamed(session, name);
  const body = change.version === undefined ? {} : { version: change.version };
  const view = await session.client.json<FunctionView>("POST", functionPath(session, ref, `/${change.verb}`), body);
  session.output.done(`version ${view.liveVersion} of ${inPackage(ref)} is live`);
  if (session.output.json) session.output.value(view);
}
