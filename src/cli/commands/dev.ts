import type { Command } from "commander";
import { resolve } from "node:path";
import type { Cli, Session } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { develop, platformEnded } from "../dev/development.ts";
import { ensurePlatform } from "../dev/local-platform.ts";
import type { DeployFlags } from "../plan.ts";
import { readProjectFolder } from "../project-folder.ts";
import { addDeployOptions } from "./deploy-options.ts";

export function addDev(parent: Command, cli: Cli): void {
  const command = defineCommand(parent, "dev [path]", {
    summary: "Deploy a folder at every change and show the function's logs",
    detail:
      "A change that does not load is shown, and the version before it keeps running. Type errors of TypeScript are shown, too.\n" +
      "Where no platform answers on this machine, one runs for as long as this does. Ctrl-C ends.\n" +
      "The function reaches the internet, and of this machine what --allow-network names: a database, say.",
    examples: ["koine dev", "koine dev ./api -e LOG_LEVEL=debug", "koine dev --allow-network localhost:5432"],
  });
  addDeployOptions(command).action(
    withSession(cli, async (session, path: string | undefined, flags: DeployFlags) => {
      await dev(session, path ?? ".", flags);
    }),
  );
}

async function dev(session: Session, path: string, flags: DeployFlags): Promise<void> {
  // What is wrong with the folder is shown when it is deployed.
  const folder = await readProjectFolder(resolve(session.io.cwd, path)).catch(() => null);
  const platform = await ensurePlatform(session, {
    network: flags.network ?? folder?.projectFile?.network,
    allowNetwork: flags.allowNetwork ?? folder?.projectFile?.allowNetwork,
  });
  if (platform === null) return await develop(session, path, flags);
  const signal = AbortSignal.any([session.signal, platform.ended]);
  try {
    await develop({ ...session, signal }, path, flags);
  } catch (thrown) {
    throw platform.ended.aborted && !session.signal.aborted ? platformEnded() : thrown;
  } finally {
    await platform.stop();
  }
}
