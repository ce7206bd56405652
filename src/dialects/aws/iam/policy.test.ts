import assert from "node:assert/strict";
import { test } from "node:test";
import { type Decision, evaluate, like, type PolicyDocument, policyDocument, type PolicyRequest } from "./policy.ts";

const request: PolicyRequest = {
  principalArn: "arn:aws:iam::000000000000:user/ada",
  principalAccountId: "000000000000",
  action: "lambda:InvokeFunction",
  resource: "arn:aws:lambda:us-east-1:000000000000:function:hello",
  conditions: {},
};

function decide(statements: unknown, changes: Partial<PolicyRequest> = {}): Decision {
  const document: PolicyDocument = policyDocument.parse({ Version: "2012-10-17", Statement: statements });
  return evaluate([document], { ...request, ...changes });
}

test("nothing said is no permission", () => {
  assert.equal(decide([]), "none");
  assert.equal(decide({ Effect: "Allow", Action: "s3:*", Resource: "*" }), "none");
});

test("an explicit denial outweighs every permission, wherever it stands", () => {
  const allow = { Effect: "Allow", Action: "*", Resource: "*" };
  const deny = { Effect: "Deny", Action: "lambda:Invoke*", Resource: "*:function:hello" };
  assert.equal(decide([allow, deny]), "deny");
  assert.equal(decide([deny, allow]), "deny");
  assert.equal(decide([allow, deny], { resource: "arn:aws:lambda:us-east-1:000000000000:function:other" }), "allow");
});

test("actions are compared without regard to case, resources with", () => {
  assert.equal(decide({ Effect: "Allow", Action: "LAMBDA:invokefunction", Resource: request.resource }), "allow");
  assert.equal(decide({ Effect: "Allow", Action: "lambda:*", Resource: request.resource.toUpperCase() }), "none");
});

test("NotAction and NotResource speak of everything else", () => {
  assert.equal(decide({ Effect: "Allow", NotAction: "iam:*", Resource: "*" }), "allow");
  assert.equal(decide({ Effect: "Allow", NotAction: "lambda:*", Resource: "*" }), "none");
  assert.equal(decide({ Effect: "Deny", Action: "*", NotResource: request.resource }), "none");
});

test("a principal is an account, its root, one name, a service, or everybody", () => {
  const by = (Principal: unknown, changes: Partial<PolicyRequest> = {}): Decision =>
    decide({ Effect: "Allow", Principal, Action: "*", Resource: "*" }, changes);
  for (const name of ["000000000000", "arn:aws:iam::000000000000:root", request.principalArn, "*"])
    assert.equal(by({ AWS: [name] }), "allow", name);
  assert.equal(by({ AWS: "111111111111" }), "none");
  assert.equal(by({ Service: "sqs.amazonaws.com" }), "none");
  assert.equal(by({ Service: "sqs.amazonaws.com" }, { principalService: "sqs.amazonaws.com" }), "allow");
});

test("conditions hold together, each for any of its values", () => {
  const when = (Condition: unknown, conditions: PolicyRequest["conditions"]): Decision =>
    decide({ Effect: "Allow", Action: "*", Resource: "*", Condition }, { conditions });
  const source = { "aws:SourceArn": "arn:aws:sqs:us-east-1:000000000000:orders", "aws:SourceAccount": "000000000000" };
  assert.equal(when({ ArnLike: { "AWS:SourceArn": "arn:aws:sqs:*:*:ord*" } }, source), "allow");
  assert.equal(when({ StringEquals: { "aws:SourceAccount": ["1", "000000000000"] } }, source), "allow");
  assert.equal(when({ StringEquals: { "aws:SourceAccount": "000000000000", "aws:Other": "x" } }, source), "none");
  assert.equal(when({ StringEqualsIfExists: { "aws:Other": "x" } }, source), "allow");
  assert.equal(when({ StringNotEquals: { "aws:SourceAccount": ["1", "000000000000"] } }, source), "none");
  assert.equal(when({ Null: { "aws:Other": "true" } }, source), "allow");
  assert.equal(when({ IpAddress: { "aws:SourceIp": "10.0.0.0/8" } }, { "aws:SourceIp": "10.1.2.3" }), "allow");
  assert.equal(when({ NotIpAddress: { "aws:SourceIp": "10.0.0.0/8" } }, { "aws:SourceIp": "10.1.2.3" }), "none");
  assert.equal(when({ NumericLessThan: { "s3:max-keys": 10 } }, { "s3:max-keys": "9" }), "allow");
  assert.equal(
    when(
      { DateLessThan: { "aws:CurrentTime": "2026-01-01T00:00:00Z" } },
      { "aws:CurrentTime": "2025-06-01T00:00:00Z" },
    ),
    "allow",
  );
  assert.equal(
    when({ "ForAllValues:StringEquals": { "aws:TagKeys": ["a", "b"] } }, { "aws:TagKeys": ["a", "c"] }),
    "none",
  );
  assert.equal(
    when({ "ForAnyValue:StringEquals": { "aws:TagKeys": ["a", "b"] } }, { "aws:TagKeys": ["a", "c"] }),
    "allow",
  );
  assert.equal(when({ StringMagic: { "aws:SourceAccount": "000000000000" } }, source), "none");
});

test("variables of a policy become the request's values", () => {
  const policy = { Effect: "Allow", Action: "*", Resource: "arn:aws:s3:::home/${aws:username}/*" };
  assert.equal(decide(policy, { resource: "arn:aws:s3:::home/ada/x" }), "allow");
  assert.equal(decide(policy, { resource: "arn:aws:s3:::home/bob/x" }), "none");
});

test("no pattern takes more than linear time", () => {
  assert.equal(like(`${"*a".repeat(2_000)}b`, "a".repeat(20_000)), false);
  assert.equal(like("a*b?d", "a--bcd"), true);
  assert.equal(like("*", ""), true);
});
