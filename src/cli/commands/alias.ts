import type { Command } from "commander";
import type { AliasRequest, AliasView, Page } from "../../core/api.ts";
import { functionNamed, functionPath, inPackage } from "../address.ts";
import type { Cli, Session } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { usageFailure } from "../failure.ts";
import { formatAgo, parseCount } from "../quantity.ts";
import { aliasTarget, aliasText } from "./get.ts";

/** Adds `alias set|list|delete`. */
export function addAlias(parent: Command, cli: Cli): void {
  const alias = defineCommand(parent, "alias", {
    summary: "Name versions, and split calls between two of them",
    examples: ["koine alias set hello prod 3", "koine alias list hello"],
  });

  defineCommand(alias, "set <name> <alias> <version>", {
    summary: "Point an alias at a version",
    examples: ["koine alias set hello prod 3", "koine alias set hello prod 3 --split 4=10%"],
  })
    .option("--split <version=share>", "send a share of the calls to another version: 4=10%")
    .action(withSession(cli, setAlias));

  defineCommand(alias, "list <name>", { summary: "List a function's aliases", examples: ["koine alias list hello"] })
    .alias("ls")
    .action(
      withSession(cli, async (session, name: string) => {
        const nowMs = session.io.clock.nowMs();
        const path = functionPath(session, functionNamed(session, name), "/aliases");
        const { items } = await session.client.json<Page<AliasView>>("GET", path);
        session.output.list(items, {
          columns: [{ title: "ALIAS" }, { title: "VERSION" }, { title: "UPDATED" }],
          row: (view) => [view.name, aliasTarget(view), formatAgo(view.updatedAt, nowMs)],
          empty: `${name} has no aliases.`,
        });
      }),
    );

  defineCommand(alias, "delete <name> <alias>", {
    summary: "Delete an alias; its versions stay",
    examples: ["koine alias delete hello prod"],
  })
    .alias("rm")
    .action(
      withSession(cli, async (session, name: string, aliasName: string) => {
        const ref = functionNamed(session, name);
        await session.client.json("DELETE", functionPath(session, ref, `/aliases/${encodeURIComponent(aliasName)}`));
        session.output.done(`deleted alias ${aliasName} of ${inPackage(ref)}`);
        if (session.output.json) session.output.value({ deleted: [aliasName] });
      }),
    );
}

async function setAlias(
  session: Session,
  name: string,
  aliasName: string,
  version: string,
  flags: { readonly split?: string },
): Promise<void> {
  const ref = functionNamed(session, name);
  const request: AliasRequest = {
    version: parseCount(version, "a version"),
    ...(flags.split === undefined ? {} : { additional: parseSplit(flags.split) }),
  };
  const path = functionPath(session, ref, `/aliases/${encodeURIComponent(aliasName)}`);
  const view = await session.client.json<AliasView>("PUT", path, request);
  session.output.done(`${inPackage(ref)}: ${aliasText(view)}`);
  if (session.output.json) session.output.value(view);
}

/** `4=10%` or `4=0.1`: a version and its share of the calls. */
function parseSplit(text: string): { version: number; weight: number } {
  const match = /^(\d+)=(\d+(?:\.\d+)?)(%)?$/.exec(text);
  const weight = match === null ? Number.NaN : Number(match[2]) / (match[3] === "%" ? 100 : 1);
  if (match === null || !(weight >= 0 && weight <= 1)) {
    throw usageFailure(`'${text}' is not a split`, "Write VERSION=SHARE, such as 4=10%.");
  }
  return { version: parseCount(match[1] ?? "", "a version"), weight };
}
