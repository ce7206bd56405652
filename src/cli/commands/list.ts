import type { Command } from "commander";
import type { FunctionView } from "../../core/api.ts";
import { inPackage, namespacePath } from "../address.ts";
import type { Cli } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { formatAgo, formatBytes, formatDuration } from "../quantity.ts";

export function addList(parent: Command, cli: Cli): void {
  defineCommand(parent, "list", {
    summary: "List the functions of a namespace",
    examples: ["koine list", "koine ls -o json | jq -r '.items[].name'"],
  })
    .alias("ls")
    .action(
      withSession(cli, async (session) => {
        const { client, io, output, settings } = session;
        const nowMs = io.clock.nowMs();
        const functions = await client.items<FunctionView>(namespacePath(session, "/functions"));
        output.list(functions, {
          columns: [
            { title: "NAME" },
            { title: "RUNTIME" },
            { title: "LIVE", align: "right" },
            { title: "INSTANCES" },
            { title: "MEMORY", align: "right" },
            { title: "TIMEOUT", align: "right" },
            { title: "UPDATED" },
          ],
          row: (view) => [
            inPackage(view),
            view.spec.runtime,
            `v${view.liveVersion}`,
            instancesText(view.instances),
            formatBytes(view.spec.memoryBytesMax),
            formatDuration(view.spec.timeoutMs),
            formatAgo(view.updatedAt, nowMs),
          ],
          empty: `No functions in namespace '${settings.namespace}' yet; 'koine init my-fn' makes one to deploy.`,
        });
      }),
    );
}

/** `2 idle, 1 busy`, or `-` for none. */
export function instancesText(instances: FunctionView["instances"]): string {
  const some = Object.entries(instances).filter(([, count]) => count > 0);
  return some.length === 0 ? "-" : some.map(([state, count]) => `${count} ${state}`).join(", ");
}
