import type { Command } from "commander";
import type { Cli, Session } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { develop, platformEnded } from "../dev/development.ts";
import { ensurePlatform } from "../dev/local-platform.ts";
import type { DeployFlags } from "../plan.ts";
import { addDeployOptions } from "./deploy-options.ts";

export function addDev(parent: Command, cli: Cli): void {
  const command = defineCommand(parent, "dev [path]", {
    summary: "Deploy a folder at every change and show the function's logs",
    detail:
      "A change that does not load is shown, and the version before it keeps running. Type errors of TypeScript are shown, too.\n" +
      "Where no platform answers on this machine, one runs for as long as this does. Ctrl-C ends.",
    examples: ["koine dev", "koine dev ./api -e LOG_LEVEL=debug"],
  });
  addDeployOptions(command).action(
    withSession(cli, async (session, path: string | undefined, flags: DeployFlags) => {
      await dev(session, path ?? ".", flags);
    }),
  );
}

async function dev(session: Session, path: string, flags: DeployFlags): Promise<void> {
  const platform = await ensurePlatform(session);
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
