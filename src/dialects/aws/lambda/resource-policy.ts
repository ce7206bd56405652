import { type Decision, evaluate, policyDocument, type PolicyDocument, type PolicyRequest } from "../iam/policy.ts";
import type { LambdaRecord, PolicyStatement } from "./records.ts";

const parsed = new WeakMap<readonly PolicyStatement[], PolicyDocument | null>();

/** What a function's resource policy says to a request, for `$LATEST` or the qualifier that was named. */
export function resourceDecision(record: LambdaRecord, key: string, request: PolicyRequest): Decision {
  const statements = record.policies[key]?.statements;
  if (statements === undefined || statements.length === 0) return "none";
  let document = parsed.get(statements);
  if (document === undefined) {
    const read = policyDocument.safeParse({ Version: "2012-10-17", Statement: statements });
    // What cannot be read allows nothing.
    document = read.success ? read.data : null;
    parsed.set(statements, document);
  }
  return document === null ? "none" : evaluate([document], request);
}
