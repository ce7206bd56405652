import {
  CreateCapacityProviderCommand,
  CreateCodeSigningConfigCommand,
  CreateFunctionCommand,
  DeleteCodeSigningConfigCommand,
  GetCodeSigningConfigCommand,
  GetFunctionScalingConfigCommand,
  LambdaClient,
  ListCodeSigningConfigsCommand,
  ListDurableExecutionsByFunctionCommand,
  ListFunctionsByCodeSigningConfigCommand,
  PutFunctionCodeSigningConfigCommand,
  PutFunctionScalingConfigCommand,
  UpdateCodeSigningConfigCommand,
} from "@aws-sdk/client-lambda";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { zip } from "../api.ts";
import { type RunningPlatform, startPlatform } from "../platform.ts";

let platform: RunningPlatform;
let client: LambdaClient;
const FunctionName = "kept";
const TOKEN = "a-token-of-the-operator-0123456789";

before(async () => {
  platform = await startPlatform();
  client = new LambdaClient({
    endpoint: platform.url,
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts: 1,
  });
  await client.send(
    new CreateFunctionCommand({
      FunctionName,
      Role: "arn:aws:iam::000000000000:role/any",
      Runtime: "nodejs22.x",
      Handler: "index.handler",
      Code: { ZipFile: zip([{ path: "index.js", content: "exports.handler = async () => 1;" }]) },
    }),
  );
});

after(async () => {
  client.destroy();
  await platform.stop();
});

test("code signing configurations are kept, listed with their functions, and not deleted while one is used", async () => {
  const made = await client.send(
    new CreateCodeSigningConfigCommand({
      Description: "first",
      AllowedPublishers: { SigningProfileVersionArns: ["arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/v"] },
    }),
  );
  const CodeSigningConfigArn = made.CodeSigningConfig?.CodeSigningConfigArn ?? "";
  assert.match(CodeSigningConfigArn, /:code-signing-config:csc-[0-9a-f]{17}$/);
  await client.send(new UpdateCodeSigningConfigCommand({ CodeSigningConfigArn, Description: "second" }));
  const { CodeSigningConfig } = await client.send(new GetCodeSigningConfigCommand({ CodeSigningConfigArn }));
  assert.equal(CodeSigningConfig?.Description, "second");
  assert.equal(CodeSigningConfig.CodeSigningPolicies?.UntrustedArtifactOnDeployment, "Warn");
  await client.send(new PutFunctionCodeSigningConfigCommand({ FunctionName, CodeSigningConfigArn }));
  const { FunctionArns } = await client.send(new ListFunctionsByCodeSigningConfigCommand({ CodeSigningConfigArn }));
  assert.deepEqual(FunctionArns, ["arn:aws:lambda:us-east-1:000000000000:function:kept"]);
  const gone = new DeleteCodeSigningConfigCommand({ CodeSigningConfigArn });
  await assert.rejects(client.send(gone), /Functions use the configuration/);
  assert.equal((await client.send(new ListCodeSigningConfigsCommand({}))).CodeSigningConfigs?.length, 1);
});

test("a scaling configuration is told again, and what is not there says so", async () => {
  const Qualifier = "$LATEST.PUBLISHED";
  const FunctionScalingConfig = { MinExecutionEnvironments: 1, MaxExecutionEnvironments: 4 };
  await assert.rejects(client.send(new PutFunctionScalingConfigCommand({ FunctionName, Qualifier })), /not found/);
  await client.send(new PutFunctionScalingConfigCommand({ FunctionName, Qualifier: "$LATEST", FunctionScalingConfig }));
  const told = await client.send(new GetFunctionScalingConfigCommand({ FunctionName, Qualifier: "$LATEST" }));
  assert.deepEqual(told.AppliedFunctionScalingConfig, FunctionScalingConfig);
  const notThere = (thrown: unknown): boolean =>
    thrown instanceof Error &&
    thrown.name === "UnknownOperationException" &&
    /There is no operation/.test(thrown.message);
  await assert.rejects(
    client.send(
      new CreateCapacityProviderCommand({
        CapacityProviderName: "any",
        VpcConfig: { SubnetIds: ["subnet-0"], SecurityGroupIds: ["sg-0"] },
        PermissionsConfig: { CapacityProviderOperatorRoleArn: "arn:aws:iam::000000000000:role/any" },
      }),
    ),
    notThere,
  );
  await assert.rejects(client.send(new ListDurableExecutionsByFunctionCommand({ FunctionName })), notThere);
});

test("where callers need a token, its holder makes the first access key, and only who has one is served", async () => {
  await using guarded = await startPlatform({ env: { KOINE_TOKEN: TOKEN } });
  const ask = async (token: string, form: string): Promise<{ readonly status: number; readonly text: string }> => {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/x-www-form-urlencoded" };
    const answer = await fetch(`${guarded.url}/`, { method: "POST", headers, body: `${form}&Version=2010-05-08` });
    return { status: answer.status, text: await answer.text() };
  };
  const whoIs = async (accessKeyId: string, secretAccessKey: string): Promise<string | undefined> => {
    const credentials = { accessKeyId, secretAccessKey };
    const sts = new STSClient({ endpoint: guarded.url, region: "us-east-1", credentials, maxAttempts: 1 });
    return (await sts.send(new GetCallerIdentityCommand({})).finally(() => sts.destroy())).Arn;
  };
  assert.equal((await ask("another-token-0123456789", "Action=CreateUser&UserName=admin")).status, 403);
  await assert.rejects(whoIs("test", "test"), /security token included in the request is invalid/);
  assert.equal((await ask(TOKEN, "Action=CreateUser&UserName=admin")).status, 200);
  const { text } = await ask(TOKEN, "Action=CreateAccessKey&UserName=admin");
  const [, id = ""] = /<AccessKeyId>(.+)<\/AccessKeyId>/.exec(text) ?? [];
  const [, secret = ""] = /<SecretAccessKey>(.+)<\/SecretAccessKey>/.exec(text) ?? [];
  assert.equal(await whoIs(id, secret), "arn:aws:iam::000000000000:user/admin");
});
