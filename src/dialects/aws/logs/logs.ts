import type { Service } from "../wire/service.ts";
import type { LogGroups } from "./groups.ts";
import type { LogLines } from "./lines.ts";
import { eventOperations } from "./operations/events.ts";
import { groupOperations } from "./operations/groups.ts";
import { streamOperations } from "./operations/streams.ts";

/** CloudWatch Logs over the platform's own log. */
export function createLogs(groups: LogGroups, lines: LogLines): Service {
  const operations = [
    ...groupOperations(groups, lines),
    ...streamOperations(groups, lines),
    ...eventOperations(groups, lines),
  ];
  return {
    name: "logs",
    protocols: ["json"],
    target: "Logs_20140328",
    queryVersion: null,
    xmlNamespace: null,
    operations: new Map(operations.map((each) => [each.name, each])),
    route: () => null,
  };
}
