import assert from "node:assert/strict";
import { test } from "node:test";
import { EndMarkers } from "./action-markers.ts";

const MARKER = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX\n";

test("marks are taken out wherever chunks begin and end, and nothing else is", () => {
  const text = `one\nX\n${MARKER}two${MARKER}\nXXX_THE_END\n${MARKER}${MARKER}last`;
  const expected = "one\nX\ntwo\n\nXXX_THE_END\nlast";
  for (let size = 1; size <= text.length; size++) {
    const markers = new EndMarkers();
    let kept = "";
    for (let at = 0; at < text.length; at += size)
      kept += markers.filter("stdout", Buffer.from(text.slice(at, at + size))).toString();
    assert.equal(kept, expected, `in pieces of ${size}`);
  }
});

test("the wait ends when both outputs have ended their activation", async () => {
  const markers = new EndMarkers();
  const ended = markers.next();
  markers.filter("stdout", Buffer.from(MARKER));
  markers.filter("stderr", Buffer.from(MARKER));
  await ended;
});
