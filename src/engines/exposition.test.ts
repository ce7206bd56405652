import assert from "node:assert/strict";
import { test } from "node:test";
import { Telemetry } from "../core/telemetry.ts";
import { sumExpositions } from "./exposition.ts";

test("what two engines counted is added up, sample by sample, within its family", () => {
  const [first, second] = [new Telemetry(), new Telemetry()];
  for (const telemetry of [first, second]) {
    telemetry.counter("requests_total", "Requests.").add(2);
    telemetry.histogram("seconds", "Time.", {}, [1, 2]).observe(1.5);
  }
  first.counter("calls_total", "Calls.", { function: "a b" }).add();
  second.counter("calls_total", "Calls.", { function: "a b" }).add(4);
  second.counter("calls_total", "Calls.", { function: "only there" }).add();
  const text = sumExpositions([first.render(), second.render()]);
  assert.equal(
    text,
    `# HELP requests_total Requests.
# TYPE requests_total counter
requests_total 4
# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{le="1"} 0
seconds_bucket{le="2"} 2
seconds_bucket{le="+Inf"} 2
seconds_sum 3
seconds_count 2
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{function="a b"} 5
calls_total{function="only there"} 1
`,
  );
});

test("the figures of one engine stay as they are", () => {
  const telemetry = new Telemetry();
  telemetry.gauge("instances", "Instances.", { state: "idle" }).set(3);
  assert.equal(sumExpositions([telemetry.render()]), telemetry.render());
});
