import type { Command } from "commander";
import { functionNamed, functionPath, inPackage } from "../address.ts";
import type { Cli } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { CliFailure } from "../failure.ts";
import { canAsk, confirm } from "../prompt.ts";

export function addDelete(parent: Command, cli: Cli): void {
  defineCommand(parent, "delete <name...>", {
    summary: "Delete functions with all their versions and aliases",
    detail: "Asks first when there is a terminal.",
    examples: ["koine delete hello", "koine rm hello thumbnail --yes"],
  })
    .alias("rm")
    .option("-y, --yes", "do not ask")
    .action(
      withSession(cli, async (session, names: readonly string[], flags: { readonly yes?: boolean }) => {
        const refs = names.map((name) => functionNamed(session, name));
        const listed = refs.map(inPackage).join(", ");
        if (flags.yes !== true && canAsk(session.io)) {
          const question = `Delete ${listed} and all versions?`;
          if (!(await confirm(session.io, question, session.signal))) {
            throw new CliFailure("declined", "Nothing was deleted", "");
          }
        }
        for (const ref of refs) {
          await session.client.json("DELETE", functionPath(session, ref));
          session.output.done(`deleted ${inPackage(ref)}`);
        }
        if (session.output.json) session.output.value({ deleted: refs.map(inPackage) });
      }),
    );
}
