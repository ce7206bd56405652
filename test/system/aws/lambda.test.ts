import {
  AddLayerVersionPermissionCommand,
  AddPermissionCommand,
  CreateAliasCommand,
  CreateFunctionCommand,
  CreateFunctionUrlConfigCommand,
  DeleteAliasCommand,
  DeleteFunctionCodeSigningConfigCommand,
  DeleteFunctionCommand,
  DeleteFunctionConcurrencyCommand,
  DeleteFunctionEventInvokeConfigCommand,
  DeleteFunctionUrlConfigCommand,
  DeleteLayerVersionCommand,
  DeleteProvisionedConcurrencyConfigCommand,
  GetAccountSettingsCommand,
  GetAliasCommand,
  GetFunctionCodeSigningConfigCommand,
  GetFunctionCommand,
  GetFunctionConcurrencyCommand,
  GetFunctionConfigurationCommand,
  GetFunctionEventInvokeConfigCommand,
  GetFunctionRecursionConfigCommand,
  GetFunctionUrlConfigCommand,
  GetLayerVersionByArnCommand,
  GetLayerVersionCommand,
  GetLayerVersionPolicyCommand,
  GetPolicyCommand,
  GetProvisionedConcurrencyConfigCommand,
  GetRuntimeManagementConfigCommand,
  InvokeAsyncCommand,
  InvokeCommand,
  InvokeWithResponseStreamCommand,
  LambdaClient,
  ListAliasesCommand,
  ListFunctionEventInvokeConfigsCommand,
  ListFunctionsCommand,
  type ListFunctionsCommandOutput,
  ListFunctionUrlConfigsCommand,
  ListLayersCommand,
  ListLayerVersionsCommand,
  ListProvisionedConcurrencyConfigsCommand,
  ListTagsCommand,
  ListVersionsByFunctionCommand,
  PublishLayerVersionCommand,
  PublishVersionCommand,
  PutFunctionCodeSigningConfigCommand,
  PutFunctionConcurrencyCommand,
  PutFunctionEventInvokeConfigCommand,
  PutFunctionRecursionConfigCommand,
  PutProvisionedConcurrencyConfigCommand,
  PutRuntimeManagementConfigCommand,
  RemoveLayerVersionPermissionCommand,
  RemovePermissionCommand,
  TagResourceCommand,
  UntagResourceCommand,
  UpdateAliasCommand,
  UpdateFunctionCodeCommand,
  UpdateFunctionConfigurationCommand,
  UpdateFunctionEventInvokeConfigCommand,
  UpdateFunctionUrlConfigCommand,
  waitUntilFunctionActiveV2,
  waitUntilFunctionUpdatedV2,
} from "@aws-sdk/client-lambda";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import type { ActivationView, Page } from "../../../src/core/api.ts";
import { eventually, zip as zipEntries } from "../api.ts";
import { type RunningPlatform, startPlatform } from "../platform.ts";

const Role = "arn:aws:iam::000000000000:role/any";
const ECHO = `exports.handler = async (event, context) => {
  console.log("seen", JSON.stringify(event));
  if (event.fail) throw new TypeError("as asked");
  if (event.exit) process.exit(3);
  if (event.wait) await new Promise((resolve) => setTimeout(resolve, event.wait));
  return { event, version: process.env.MARK ?? "one", arn: context.invokedFunctionArn, id: context.awsRequestId, client: context.clientContext };
};`;

let platform: RunningPlatform;
let client: LambdaClient;

before(async () => {
  platform = await startPlatform();
  client = new LambdaClient({
    endpoint: platform.url,
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts: 1,
  });
});

after(async () => {
  client.destroy();
  await platform.stop();
});

const zip = (files: Readonly<Record<string, string>>): Buffer =>
  zipEntries(Object.entries(files).map(([path, content]) => ({ path, content })));
const named = (name: string) => (thrown: unknown) => thrown instanceof Error && thrown.name === name;
const json = (payload: Uint8Array | undefined): Record<string, unknown> =>
  JSON.parse(Buffer.from(payload ?? []).toString("utf8")) as Record<string, unknown>;

async function create(FunctionName: string, source: string = ECHO, more: object = {}): Promise<void> {
  const ZipFile = zip({ "index.js": source });
  await client.send(
    new CreateFunctionCommand({
      FunctionName,
      Role,
      Runtime: "nodejs22.x",
      Handler: "index.handler",
      Code: { ZipFile },
      ...more,
    }),
  );
  await waitUntilFunctionActiveV2({ client, maxWaitTime: 20, minDelay: 1 }, { FunctionName });
}

async function call(FunctionName: string, event: unknown = {}, more: object = {}) {
  return await client.send(new InvokeCommand({ FunctionName, Payload: Buffer.from(JSON.stringify(event)), ...more }));
}

test("a function is created, described as it was asked for, called, and its log told", async () => {
  const ZipFile = zip({ "index.js": ECHO });
  const input = {
    FunctionName: "described",
    Role,
    Runtime: "nodejs22.x",
    Handler: "index.handler",
    Code: { ZipFile },
  } as const;
  const made = await client.send(
    new CreateFunctionCommand({
      ...input,
      MemorySize: 256,
      Timeout: 5,
      Environment: { Variables: { MARK: "m" } },
      Tags: { team: "a" },
    }),
  );
  assert.equal(made.State, "Pending");
  assert.equal(made.FunctionArn, "arn:aws:lambda:us-east-1:000000000000:function:described");
  assert.equal(made.CodeSha256, createHash("sha256").update(ZipFile).digest("base64"));
  await waitUntilFunctionActiveV2({ client, maxWaitTime: 20, minDelay: 1 }, { FunctionName: "described" });
  const { Configuration, Code, Tags } = await client.send(new GetFunctionCommand({ FunctionName: "described" }));
  assert.equal(Configuration?.Version, "$LATEST");
  assert.equal(Configuration?.MemorySize, 256);
  assert.deepEqual(Tags, { team: "a" });
  const archive = Buffer.from(await (await fetch(Code?.Location ?? "")).arrayBuffer());
  assert.deepEqual(archive, Buffer.from(ZipFile));
  assert.equal((await fetch(`${Code?.Location ?? ""}x`)).status, 403);

  const context = Buffer.from(JSON.stringify({ custom: { a: 1 } })).toString("base64");
  const answer = await call("described", { hello: 1 }, { LogType: "Tail", ClientContext: context });
  assert.equal(answer.StatusCode, 200);
  assert.equal(answer.ExecutedVersion, "$LATEST");
  assert.equal(answer.FunctionError, undefined);
  const told = json(answer.Payload);
  assert.deepEqual(told["event"], { hello: 1 });
  assert.equal(told["version"], "m");
  assert.equal(told["arn"], made.FunctionArn);
  assert.deepEqual(told["client"], { custom: { a: 1 } });
  assert.match(Buffer.from(answer.LogResult ?? "", "base64").toString("utf8"), /seen {"hello":1}/);
  assert.equal((await call("described", {}, { InvocationType: "DryRun" })).StatusCode, 204);
});

test("what a handler throws, an exit and a timeout are answers with 200 and a function error", async () => {
  await create("failing", ECHO, { Timeout: 1 });
  const thrown = await call("failing", { fail: true });
  assert.equal(thrown.StatusCode, 200);
  assert.equal(thrown.FunctionError, "Unhandled");
  assert.equal(json(thrown.Payload)["errorType"], "TypeError");
  assert.equal(json(thrown.Payload)["errorMessage"], "as asked");
  assert.ok(Array.isArray(json(thrown.Payload)["trace"]));
  assert.equal(json((await call("failing", { exit: true })).Payload)["errorType"], "Runtime.ExitError");
  assert.match(
    String(json((await call("failing", { wait: 5_000 })).Payload)["errorMessage"]),
    /Task timed out after 1\.00 seconds/,
  );
});

test("bad input gets the errors that the SDKs know", async () => {
  await assert.rejects(call("nobody"), named("ResourceNotFoundException"));
  await create("strict");
  await assert.rejects(create("strict"), named("ResourceConflictException"));
  await assert.rejects(create("odd-runtime", ECHO, { Runtime: "cobol9" }), named("InvalidParameterValueException"));
  await assert.rejects(
    create("reserved", ECHO, { Environment: { Variables: { AWS_REGION: "x" } } }),
    named("InvalidParameterValueException"),
  );
  await assert.rejects(
    create("no-zip", ECHO, { Code: { ZipFile: Buffer.from("no zip") } }),
    named("InvalidParameterValueException"),
  );
  await assert.rejects(
    client.send(new InvokeCommand({ FunctionName: "strict", Payload: Buffer.from("{no json") })),
    named("InvalidRequestContentException"),
  );
  await assert.rejects(
    client.send(new UpdateFunctionConfigurationCommand({ FunctionName: "strict", RevisionId: "another", Timeout: 9 })),
    named("PreconditionFailedException"),
  );
  await assert.rejects(call("strict", { padding: "x".repeat(6 * 1024 * 1024) }), named("RequestTooLargeException"));
});

test("a request is of the protocol that its address says, whatever content type the tool put on it", async () => {
  const headers = { "content-type": "application/x-www-form-urlencoded" };
  const rest = await fetch(`${platform.url}/2015-03-31/functions`, { method: "POST", headers, body: "{bad" });
  assert.deepEqual([rest.status, rest.headers.get("x-amzn-errortype")], [400, "SerializationException"]);
  const target = { ...headers, "x-amz-target": "AmazonSQS.Nope" };
  const named = await fetch(platform.url, { method: "POST", headers: target, body: "{}" });
  assert.equal(((await named.json()) as { __type: string }).__type, "UnknownOperationException");
});

test("an asynchronous call is accepted, runs, and leaves an activation", async () => {
  await create("later");
  assert.equal((await call("later", { n: 1 }, { InvocationType: "Event" })).StatusCode, 202);
  const accepted = await client.send(
    new InvokeAsyncCommand({ FunctionName: "later", InvokeArgs: Buffer.from('{"n":2}') }),
  );
  assert.equal(accepted.Status, 202);
  await eventually("both runs", async () => {
    const answer = await fetch(`${platform.url}/v1/namespaces/default/activations?function=later&state=succeeded`);
    const { items } = (await answer.json()) as Page<ActivationView>;
    return items.length === 2 ? items : null;
  });
});

test("an answer that streams comes in pieces, then its end", async () => {
  await create(
    "streaming",
    `exports.handler = awslambda.streamifyResponse(async (event, stream) => {
      stream.write("first ");
      stream.write("second");
      stream.end();
    });`,
  );
  const { EventStream, ExecutedVersion } = await client.send(
    new InvokeWithResponseStreamCommand({ FunctionName: "streaming" }),
  );
  assert.equal(ExecutedVersion, "$LATEST");
  let text = "";
  let ended = false;
  for await (const event of EventStream ?? []) {
    if (event.PayloadChunk?.Payload !== undefined) text += Buffer.from(event.PayloadChunk.Payload).toString("utf8");
    if (event.InvokeComplete !== undefined) ended = true;
  }
  assert.equal(text, "first second");
  assert.ok(ended);
});

test("versions stay what they were, aliases move and split, and revisions guard changes", async () => {
  await create("versioned");
  const FunctionName = "versioned";
  const first = await client.send(new PublishVersionCommand({ FunctionName, Description: "one" }));
  assert.equal(first.Version, "1");
  assert.equal((await client.send(new PublishVersionCommand({ FunctionName }))).Version, "1");
  await client.send(
    new UpdateFunctionConfigurationCommand({ FunctionName, Environment: { Variables: { MARK: "two" } } }),
  );
  await waitUntilFunctionUpdatedV2({ client, maxWaitTime: 20, minDelay: 1 }, { FunctionName });
  const second = await client.send(
    new UpdateFunctionCodeCommand({ FunctionName, ZipFile: zip({ "index.js": `${ECHO}\n// 2` }), Publish: true }),
  );
  assert.equal(second.Version, "2");
  const markOf = async (Qualifier?: string): Promise<unknown> =>
    json((await call(FunctionName, {}, { Qualifier })).Payload)["version"];
  assert.equal(await markOf("1"), "one");
  assert.equal(await markOf("2"), "two");
  assert.equal(await markOf(), "two");
  assert.equal(
    (await client.send(new GetFunctionConfigurationCommand({ FunctionName, Qualifier: "1" }))).Description,
    "one",
  );
  const all = await client.send(new ListVersionsByFunctionCommand({ FunctionName }));
  assert.deepEqual(
    all.Versions?.map(({ Version }) => Version),
    ["$LATEST", "1", "2"],
  );

  const alias = await client.send(new CreateAliasCommand({ FunctionName, Name: "prod", FunctionVersion: "1" }));
  assert.equal(alias.AliasArn, "arn:aws:lambda:us-east-1:000000000000:function:versioned:prod");
  assert.equal(await markOf("prod"), "one");
  const routed = await client.send(
    new UpdateAliasCommand({
      FunctionName,
      Name: "prod",
      RoutingConfig: { AdditionalVersionWeights: { "2": 1 } },
      RevisionId: alias.RevisionId,
    }),
  );
  assert.equal((await call(FunctionName, {}, { Qualifier: "prod" })).ExecutedVersion, "2");
  await assert.rejects(
    client.send(
      new UpdateAliasCommand({ FunctionName, Name: "prod", FunctionVersion: "2", RevisionId: alias.RevisionId }),
    ),
    named("PreconditionFailedException"),
  );
  assert.notEqual(routed.RevisionId, alias.RevisionId);
  assert.equal((await client.send(new GetAliasCommand({ FunctionName, Name: "prod" }))).FunctionVersion, "1");
  assert.equal((await client.send(new ListAliasesCommand({ FunctionName }))).Aliases?.length, 1);
  await assert.rejects(
    client.send(new DeleteFunctionCommand({ FunctionName, Qualifier: "1" })),
    named("ResourceConflictException"),
  );
  await client.send(new DeleteAliasCommand({ FunctionName, Name: "prod" }));
  await client.send(new DeleteFunctionCommand({ FunctionName, Qualifier: "1" }));
  await assert.rejects(call(FunctionName, {}, { Qualifier: "1" }), named("ResourceNotFoundException"));
  await client.send(new DeleteFunctionCommand({ FunctionName }));
  await assert.rejects(client.send(new GetFunctionCommand({ FunctionName })), named("ResourceNotFoundException"));
});

test("functions are listed by pages, those deployed by other means too", async () => {
  for (const name of ["list-a", "list-b", "list-c"]) await create(name);
  const names: string[] = [];
  for (let Marker: string | undefined; ;) {
    const answer: ListFunctionsCommandOutput = await client.send(
      new ListFunctionsCommand({ MaxItems: 2, ...(Marker === undefined ? {} : { Marker }) }),
    );
    names.push(...(answer.Functions ?? []).map(({ FunctionName }) => FunctionName ?? ""));
    Marker = answer.NextMarker;
    if (Marker === undefined) break;
  }
  for (const name of ["list-a", "list-b", "list-c"]) assert.equal(names.filter((each) => each === name).length, 1);
  assert.ok(((await client.send(new GetAccountSettingsCommand({}))).AccountUsage?.FunctionCount ?? 0) >= 3);
});

test("settings of a function are kept, told again, and removed", async () => {
  await create("settings");
  const FunctionName = "settings";
  const arn = "arn:aws:lambda:us-east-1:000000000000:function:settings";
  await client.send(new PutFunctionConcurrencyCommand({ FunctionName, ReservedConcurrentExecutions: 3 }));
  assert.equal(
    (await client.send(new GetFunctionConcurrencyCommand({ FunctionName }))).ReservedConcurrentExecutions,
    3,
  );
  await client.send(new DeleteFunctionConcurrencyCommand({ FunctionName }));
  assert.equal(
    (await client.send(new GetFunctionConcurrencyCommand({ FunctionName }))).ReservedConcurrentExecutions,
    undefined,
  );

  await client.send(new PublishVersionCommand({ FunctionName }));
  const one = { FunctionName, Qualifier: "1" };
  await client.send(new PutProvisionedConcurrencyConfigCommand({ ...one, ProvisionedConcurrentExecutions: 2 }));
  assert.equal(
    (await client.send(new GetProvisionedConcurrencyConfigCommand(one))).RequestedProvisionedConcurrentExecutions,
    2,
  );
  assert.equal(
    (await client.send(new ListProvisionedConcurrencyConfigsCommand({ FunctionName }))).ProvisionedConcurrencyConfigs
      ?.length,
    1,
  );
  await client.send(new DeleteProvisionedConcurrencyConfigCommand(one));
  await assert.rejects(
    client.send(new GetProvisionedConcurrencyConfigCommand(one)),
    named("ProvisionedConcurrencyConfigNotFoundException"),
  );

  await client.send(new PutFunctionEventInvokeConfigCommand({ FunctionName, MaximumRetryAttempts: 1 }));
  await client.send(new UpdateFunctionEventInvokeConfigCommand({ FunctionName, MaximumEventAgeInSeconds: 120 }));
  const invoke = await client.send(new GetFunctionEventInvokeConfigCommand({ FunctionName }));
  assert.deepEqual([invoke.MaximumRetryAttempts, invoke.MaximumEventAgeInSeconds], [1, 120]);
  assert.ok(invoke.LastModified instanceof Date);
  assert.equal(
    (await client.send(new ListFunctionEventInvokeConfigsCommand({ FunctionName }))).FunctionEventInvokeConfigs?.length,
    1,
  );
  await client.send(new DeleteFunctionEventInvokeConfigCommand({ FunctionName }));
  await assert.rejects(
    client.send(new GetFunctionEventInvokeConfigCommand({ FunctionName })),
    named("ResourceNotFoundException"),
  );

  await client.send(new TagResourceCommand({ Resource: arn, Tags: { a: "1", b: "2" } }));
  await client.send(new UntagResourceCommand({ Resource: arn, TagKeys: ["a"] }));
  assert.deepEqual((await client.send(new ListTagsCommand({ Resource: arn }))).Tags, { b: "2" });

  const permission = {
    FunctionName,
    StatementId: "s",
    Action: "lambda:InvokeFunction",
    Principal: "sns.amazonaws.com",
    SourceArn: "arn:aws:sns:us-east-1:1:t",
  };
  const added = await client.send(new AddPermissionCommand(permission));
  assert.equal((JSON.parse(added.Statement ?? "") as { Sid: string }).Sid, "s");
  await assert.rejects(client.send(new AddPermissionCommand(permission)), named("ResourceConflictException"));
  assert.match((await client.send(new GetPolicyCommand({ FunctionName }))).Policy ?? "", /sns\.amazonaws\.com/);
  await client.send(new RemovePermissionCommand({ FunctionName, StatementId: "s" }));
  await assert.rejects(client.send(new GetPolicyCommand({ FunctionName })), named("ResourceNotFoundException"));

  await client.send(new PutRuntimeManagementConfigCommand({ FunctionName, UpdateRuntimeOn: "FunctionUpdate" }));
  assert.equal(
    (await client.send(new GetRuntimeManagementConfigCommand({ FunctionName }))).UpdateRuntimeOn,
    "FunctionUpdate",
  );
  await client.send(new PutFunctionRecursionConfigCommand({ FunctionName, RecursiveLoop: "Allow" }));
  assert.equal((await client.send(new GetFunctionRecursionConfigCommand({ FunctionName }))).RecursiveLoop, "Allow");
  const CodeSigningConfigArn = "arn:aws:lambda:us-east-1:000000000000:code-signing-config:csc-0123456789abcdef0";
  await client.send(new PutFunctionCodeSigningConfigCommand({ FunctionName, CodeSigningConfigArn }));
  assert.equal(
    (await client.send(new GetFunctionCodeSigningConfigCommand({ FunctionName }))).CodeSigningConfigArn,
    CodeSigningConfigArn,
  );
  await client.send(new DeleteFunctionCodeSigningConfigCommand({ FunctionName }));

  const url = await client.send(new CreateFunctionUrlConfigCommand({ FunctionName, AuthType: "NONE" }));
  assert.match(url.FunctionUrl ?? "", /^http:\/\/[a-z2-7]{32}\.lambda-url\.us-east-1\.localhost:\d+\/$/);
  await client.send(new UpdateFunctionUrlConfigCommand({ FunctionName, InvokeMode: "RESPONSE_STREAM" }));
  assert.equal((await client.send(new GetFunctionUrlConfigCommand({ FunctionName }))).InvokeMode, "RESPONSE_STREAM");
  assert.equal((await client.send(new ListFunctionUrlConfigsCommand({ FunctionName }))).FunctionUrlConfigs?.length, 1);
  await client.send(new DeleteFunctionUrlConfigCommand({ FunctionName }));
  await assert.rejects(
    client.send(new GetFunctionUrlConfigCommand({ FunctionName })),
    named("ResourceNotFoundException"),
  );
});

test("layers are published as versions, found by name and ARN, shared and removed", async () => {
  const Content = {
    ZipFile: zip({ "nodejs/node_modules/greet/index.js": "module.exports = () => 'hello from a layer';" }),
  };
  const LayerName = "greetings";
  const made = await client.send(
    new PublishLayerVersionCommand({ LayerName, Content, CompatibleRuntimes: ["nodejs22.x"], Description: "d" }),
  );
  assert.equal(made.Version, 1);
  assert.equal(made.LayerVersionArn, "arn:aws:lambda:us-east-1:000000000000:layer:greetings:1");
  assert.equal((await client.send(new PublishLayerVersionCommand({ LayerName, Content }))).Version, 2);
  assert.deepEqual(
    (await client.send(new ListLayerVersionsCommand({ LayerName }))).LayerVersions?.map(({ Version }) => Version),
    [2, 1],
  );
  assert.equal(
    (await client.send(new ListLayersCommand({ CompatibleRuntime: "nodejs22.x" }))).Layers?.[0]?.LatestMatchingVersion
      ?.Version,
    1,
  );
  assert.equal((await client.send(new GetLayerVersionCommand({ LayerName, VersionNumber: 1 }))).Description, "d");
  const byArn = await client.send(new GetLayerVersionByArnCommand({ Arn: made.LayerVersionArn }));
  const archive = Buffer.from(await (await fetch(byArn.Content?.Location ?? "")).arrayBuffer());
  assert.deepEqual(archive, Buffer.from(Content.ZipFile));
  const one = { LayerName, VersionNumber: 1 };
  await client.send(
    new AddLayerVersionPermissionCommand({
      ...one,
      StatementId: "s",
      Action: "lambda:GetLayerVersion",
      Principal: "*",
    }),
  );
  assert.match((await client.send(new GetLayerVersionPolicyCommand(one))).Policy ?? "", /lambda:GetLayerVersion/);
  await client.send(new RemoveLayerVersionPermissionCommand({ ...one, StatementId: "s" }));
  await assert.rejects(client.send(new GetLayerVersionPolicyCommand(one)), named("ResourceNotFoundException"));
  await client.send(new DeleteLayerVersionCommand(one));
  await assert.rejects(client.send(new GetLayerVersionCommand(one)), named("ResourceNotFoundException"));
});
