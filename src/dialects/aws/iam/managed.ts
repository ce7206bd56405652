import type { PolicyDocument } from "./policy.ts";

const allow = (...actions: readonly string[]): PolicyDocument => ({
  Version: "2012-10-17",
  Statement: [{ Effect: "Allow", Action: [...actions], Resource: "*" }],
});

const LOGS = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"];

/** What the vendor's own policies mean here, by the name at the end of their ARN; others can be attached and allow nothing. */
export const vendorPolicies: ReadonlyMap<string, PolicyDocument> = new Map([
  ["AdministratorAccess", allow("*")],
  ["PowerUserAccess", { Version: "2012-10-17", Statement: [{ Effect: "Allow", NotAction: ["iam:*"], Resource: "*" }] }],
  ["ReadOnlyAccess", allow("*:Get*", "*:List*", "*:Describe*", "*:Filter*", "*:BatchGet*")],
  ["IAMFullAccess", allow("iam:*")],
  ["IAMReadOnlyAccess", allow("iam:Get*", "iam:List*", "iam:Simulate*")],
  ["AWSLambda_FullAccess", allow("lambda:*", "logs:*", "cloudwatch:*", "iam:GetRole", "iam:PassRole", "iam:ListRoles")],
  ["AWSLambda_ReadOnlyAccess", allow("lambda:Get*", "lambda:List*", "logs:Describe*", "logs:Get*", "logs:Filter*")],
  ["AWSLambdaInvocation-DynamoDB", allow("lambda:InvokeFunction")],
  ["service-role/AWSLambdaRole", allow("lambda:InvokeFunction")],
  ["service-role/AWSLambdaBasicExecutionRole", allow(...LOGS)],
  ["service-role/AWSLambdaVPCAccessExecutionRole", allow(...LOGS)],
  [
    "service-role/AWSLambdaSQSQueueExecutionRole",
    allow("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", ...LOGS),
  ],
  ["AmazonSQSFullAccess", allow("sqs:*")],
  ["AmazonSQSReadOnlyAccess", allow("sqs:Get*", "sqs:List*")],
  ["CloudWatchLogsFullAccess", allow("logs:*")],
  ["CloudWatchLogsReadOnlyAccess", allow("logs:Describe*", "logs:Get*", "logs:List*", "logs:Filter*")],
  ["CloudWatchFullAccess", allow("cloudwatch:*", "logs:*")],
  [
    "CloudWatchReadOnlyAccess",
    allow("cloudwatch:Get*", "cloudwatch:List*", "cloudwatch:Describe*", "logs:Get*", "logs:Filter*"),
  ],
]);

/** The document behind `arn:aws:iam::aws:policy/…`; null for a policy of somebody's own. */
export function vendorPolicy(arn: string): PolicyDocument | null {
  const name = /^arn:aws:iam::aws:policy\/(.+)$/.exec(arn)?.[1];
  if (name === undefined) return null;
  return vendorPolicies.get(name) ?? { Version: "2012-10-17", Statement: [] };
}
