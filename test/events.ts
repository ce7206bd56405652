import { brokerSources } from "./system/broker-places.ts";
import { keepingSources } from "./system/event-places.ts";
import { tellEvents } from "./system/events.ts";

/** `npm run events -- [SOURCE …]`: many events through each source's real server, through kills and a restart; KOINE_EVENTS says how many. */
const EVENTS = Number(process.env["KOINE_EVENTS"] ?? 100_000);
const sources = [...brokerSources, ...keepingSources];
const names = process.argv.slice(2);
const unknown = names.filter((name) => !sources.some((source) => source.name === name));
if (unknown.length > 0) {
  process.stderr.write(
    `There is no source '${unknown.join("', '")}'; there are ${sources.map(({ name }) => name).join(", ")}.\n`,
  );
  process.exit(1);
}
for (const source of sources) {
  if (names.length > 0 && !names.includes(source.name)) continue;
  const { events, lost, duplicates, seconds, killedAt, restartedAt } = await tellEvents(source, EVENTS);
  const middle = `platform killed at ${killedAt.join(" and ")}, server restarted at ${restartedAt}`;
  process.stdout.write(
    `${source.name}: ${events} events, ${lost} lost, ${duplicates} twice, ${seconds} s; ${middle}\n`,
  );
  if (lost > 0) process.exitCode = 1;
}
