import assert from "node:assert/strict";
import { test } from "node:test";
import { readForm } from "./form.ts";
import { writeXml } from "./xml.ts";

test("numbered parameters are lists in the order of their numbers, with or without a member in between", () => {
  const form = readForm(
    "Tags.member.2.Key=b&Tags.member.1.Key=a&Attribute.1.Name=n&Attribute.1.Value=v&Ids.10=z&Ids.9=y",
  );
  assert.deepEqual(JSON.parse(JSON.stringify(form)), {
    Tags: [{ Key: "a" }, { Key: "b" }],
    Attribute: [{ Name: "n", Value: "v" }],
    Ids: ["y", "z"],
  });
});

test("a parameter named like a part of every object is only a parameter", () => {
  const form = readForm("__proto__.polluted=yes&constructor=c");
  assert.deepEqual(Object.keys(form), ["__proto__", "constructor"]);
  assert.equal(({} as Record<string, unknown>)["polluted"], undefined);
});

test("more parameters or deeper nesting than anybody needs is refused", () => {
  assert.throws(() => readForm(Array.from({ length: 10_001 }, (_, index) => `a${index}=1`).join("&")), /too many/);
  assert.throws(() => readForm(`${"a.".repeat(16)}a=1`), /too deep/);
});

test("text is escaped, lists are members, and a starred key makes a flat list", () => {
  const xml = writeXml({
    Name: 'a<b>&"\u0000',
    Roles: [{ RoleName: "r" }],
    "Message*": ["x", "y"],
    "Map:entry": [{ key: "k" }],
    Gone: null,
  });
  assert.equal(
    xml,
    "<Name>a&lt;b&gt;&amp;&quot;\uFFFD</Name><Roles><member><RoleName>r</RoleName></member></Roles>" +
      "<Message>x</Message><Message>y</Message><Map><entry><key>k</key></entry></Map>",
  );
});
