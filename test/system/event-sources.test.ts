import assert from "node:assert/strict";
import { test } from "node:test";
import { brokerSources } from "./broker-places.ts";
import { keepingSources } from "./event-places.ts";
import { tellEvents } from "./events.ts";

/** Few here; `npm run events` sends 100,000 through each. */
const EVENTS = Number(process.env["KOINE_EVENTS"] ?? 400);
const CHUNK = 40;

for (const story of [...brokerSources, ...keepingSources]) {
  test(`${story.name}: no event is lost when the platform is killed and the server restarts while they flow`, async (context) => {
    const end = await tellEvents({ ...story, chunk: CHUNK }, EVENTS);
    context.diagnostic(JSON.stringify(end));
    assert.equal(end.lost, 0);
    assert.equal(end.killedAt.length, 2);
  });
}
