import {
  AddPermissionCommand,
  CreateAliasCommand,
  CreateFunctionCommand,
  CreateFunctionUrlConfigCommand,
  DeleteFunctionCommand,
  type FunctionUrlAuthType,
  type InvokeMode,
  LambdaClient,
  PublishVersionCommand,
  PutFunctionConcurrencyCommand,
  UpdateFunctionConfigurationCommand,
  UpdateFunctionUrlConfigCommand,
} from "@aws-sdk/client-lambda";
import { AttachUserPolicyCommand, CreateAccessKeyCommand, CreateUserCommand, IAMClient } from "@aws-sdk/client-iam";
import { SignatureV4 } from "@smithy/signature-v4";
import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import { request as httpRequest } from "node:http";
import { after, before, test } from "node:test";
import { zip } from "../api.ts";
import { type RunningPlatform, startPlatform } from "../platform.ts";

const Role = "arn:aws:iam::000000000000:role/any";
const ECHO = `exports.handler = async (event, context) => {
  if (event.rawPath === "/fail") throw new Error("as asked");
  if (event.rawPath === "/large") return { statusCode: 200, body: "x".repeat(6 * 1024 * 1024 + 1) };
  if (event.rawPath === "/cookies") return { statusCode: 201, cookies: ["a=1", "b=2"], headers: { "access-control-allow-origin": "mine" }, body: "made" };
  return { event, mark: process.env.MARK ?? "one", arn: context.invokedFunctionArn };
};`;

let platform: RunningPlatform;
let client: LambdaClient;

before(async () => {
  platform = await startPlatform();
  client = lambda("test", "test");
});

after(async () => {
  client.destroy();
  await platform.stop();
});

function lambda(accessKeyId: string, secretAccessKey: string): LambdaClient {
  const credentials = { accessKeyId, secretAccessKey };
  return new LambdaClient({ endpoint: platform.url, region: "us-east-1", credentials, maxAttempts: 1 });
}

async function create(
  FunctionName: string,
  source: string = ECHO,
  url: { readonly AuthType?: FunctionUrlAuthType; readonly InvokeMode?: InvokeMode; readonly Cors?: object } = {},
): Promise<string> {
  await client.send(
    new CreateFunctionCommand({
      FunctionName,
      Role,
      Runtime: "nodejs22.x",
      Handler: "index.handler",
      Code: { ZipFile: zip([{ path: "index.js", content: source }]) },
    }),
  );
  const { FunctionUrl = "" } = await client.send(
    new CreateFunctionUrlConfigCommand({ FunctionName, AuthType: url.AuthType ?? "NONE", ...url }),
  );
  return FunctionUrl;
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  readonly pieces: number;
  json(): { event: Record<string, unknown>; mark: string; arn: string };
}

/** As curl does with a name below localhost: to this machine, whatever the resolver says. */
async function ask(
  address: string,
  given: { readonly method?: string; readonly headers?: Record<string, string>; readonly body?: string | Buffer } = {},
): Promise<Answer> {
  const { host, pathname, search } = new URL(address);
  const { port } = new URL(platform.url);
  const { method = "GET", headers = {}, body } = given;
  return await new Promise((resolve, reject) => {
    const options = { host: "127.0.0.1", port, method, path: pathname + search, headers: { ...headers, host } };
    const sent = httpRequest(options, (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
      incoming.once("error", reject);
      incoming.once("end", () => {
        const text = Buffer.concat(chunks).toString("utf8");
        resolve({
          status: incoming.statusCode ?? 0,
          headers: incoming.headers,
          text,
          pieces: chunks.length,
          json: () => JSON.parse(text) as ReturnType<Answer["json"]>,
        });
      });
    });
    sent.once("error", reject);
    sent.end(body);
  });
}

class Sha256 {
  readonly #hash;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash = secret === undefined ? createHash("sha256") : createHmac("sha256", secret as Buffer);
  }

  update(part: string | ArrayBuffer | ArrayBufferView): void {
    this.#hash.update(part as Buffer);
  }

  async digest(): Promise<Uint8Array> {
    return this.#hash.digest();
  }
}

/** Signed as SDKs sign for an address. */
async function signed(
  address: string,
  key: { readonly accessKeyId: string; readonly secretAccessKey: string },
  body = "",
): Promise<Answer> {
  const { host, pathname } = new URL(address);
  const signer = new SignatureV4({ credentials: key, region: "us-east-1", service: "lambda", sha256: Sha256 });
  const { headers } = await signer.sign({
    method: "POST",
    protocol: "http:",
    hostname: host,
    path: pathname,
    headers: { host },
    body,
  });
  return await ask(address, { method: "POST", headers, body });
}

test("a function answers at its own address, with the event of payload format 2.0", async () => {
  const url = await create("at-url");
  const answer = await ask(`${url}some/path?a=1&a=2&b=%20x`, {
    method: "POST",
    headers: { cookie: "k=v; l=w", "content-type": "text/plain", "x-custom": "yes" },
    body: "hello",
  });
  assert.equal(answer.status, 200);
  const { event, arn } = answer.json();
  assert.equal(arn, "arn:aws:lambda:us-east-1:000000000000:function:at-url");
  assert.equal(event["version"], "2.0");
  assert.equal(event["rawPath"], "/some/path");
  assert.equal(event["rawQueryString"], "a=1&a=2&b=%20x");
  assert.deepEqual(event["queryStringParameters"], { a: "1,2", b: " x" });
  assert.deepEqual(event["cookies"], ["k=v", "l=w"]);
  assert.equal(event["body"], "hello");
  const headers = event["headers"] as Record<string, string>;
  assert.equal(headers["x-custom"], "yes");
  assert.equal(headers["x-forwarded-for"], "127.0.0.1");
  assert.match(headers["x-amzn-trace-id"] ?? "", /^Root=1-/);
  const context = event["requestContext"] as Record<string, unknown>;
  const id = new URL(url).host.split(".")[0];
  assert.equal(context["apiId"], id);
  assert.equal(context["domainPrefix"], id);
  assert.equal(context["accountId"], "anonymous");
  assert.equal(context["authorizer"], undefined);
});

test("paths of the platform belong to the function at its address, its failures are 502, its cookies several headers", async () => {
  const url = await create("everything");
  for (const path of ["healthz", "metrics", "v1/namespaces", "fn/everything", "2015-03-31/functions"])
    assert.equal((await ask(url + path)).json().event["rawPath"], `/${path}`, path);
  const failed = await ask(`${url}fail`);
  assert.deepEqual([failed.status, failed.text], [502, "Internal Server Error"]);
  assert.equal((await ask(`${url}large`)).status, 502);
  const made = await ask(`${url}cookies`);
  assert.equal(made.status, 201);
  assert.deepEqual(made.headers["set-cookie"], ["a=1", "b=2"]);
  assert.equal((await ask(url, { method: "POST", body: Buffer.alloc(6 * 1024 * 1024 + 1) })).status, 413);
});

test("the address of an alias splits by weight, and one of a function that is gone is 404", async () => {
  await create("split");
  const FunctionName = "split";
  await client.send(new PublishVersionCommand({ FunctionName }));
  await client.send(
    new UpdateFunctionConfigurationCommand({ FunctionName, Environment: { Variables: { MARK: "two" } } }),
  );
  await client.send(new PublishVersionCommand({ FunctionName }));
  await client.send(
    new CreateAliasCommand({
      FunctionName,
      Name: "live",
      FunctionVersion: "1",
      RoutingConfig: { AdditionalVersionWeights: { "2": 0.5 } },
    }),
  );
  const { FunctionUrl = "" } = await client.send(
    new CreateFunctionUrlConfigCommand({ FunctionName, Qualifier: "live", AuthType: "NONE" }),
  );
  const seen = new Set<string>();
  for (let call = 0; call < 64 && seen.size < 2; call++) {
    const { mark, arn } = (await ask(FunctionUrl)).json();
    assert.match(arn, /:split:live$/);
    seen.add(mark);
  }
  assert.deepEqual([...seen].sort(), ["one", "two"]);
  await client.send(new DeleteFunctionCommand({ FunctionName }));
  assert.equal((await ask(FunctionUrl)).status, 404);
});

test("browsers are told what the settings say, and the function's own words on it are left out", async () => {
  const url = await create("shared", ECHO, {
    Cors: {
      AllowOrigins: ["https://app.example.com"],
      AllowMethods: ["GET", "PUT"],
      AllowHeaders: ["x-one", "x-two"],
      ExposeHeaders: ["x-seen"],
      AllowCredentials: true,
      MaxAge: 60,
    },
  });
  const preflight = await ask(url, {
    method: "OPTIONS",
    headers: { origin: "https://app.example.com", "access-control-request-method": "PUT" },
  });
  assert.equal(preflight.status, 200);
  assert.equal(preflight.headers["access-control-allow-origin"], "https://app.example.com");
  assert.equal(preflight.headers["access-control-allow-methods"], "GET,PUT");
  assert.equal(preflight.headers["access-control-allow-headers"], "x-one,x-two");
  assert.equal(preflight.headers["access-control-max-age"], "60");
  assert.equal(preflight.headers["access-control-allow-credentials"], "true");
  const answer = await ask(`${url}cookies`, { headers: { origin: "https://app.example.com" } });
  assert.equal(answer.headers["access-control-allow-origin"], "https://app.example.com");
  assert.equal(answer.headers["access-control-expose-headers"], "x-seen");
  const stranger = await ask(`${url}cookies`, { headers: { origin: "https://other.example.com" } });
  assert.equal(stranger.headers["access-control-allow-origin"], undefined);
});

test("an answer that streams arrives in pieces, with the status and headers that the function chose", async () => {
  const source = `exports.handler = awslambda.streamifyResponse(async (event, stream) => {
    const out = awslambda.HttpResponseStream.from(stream, { statusCode: 203, headers: { "x-kind": "streamed" } });
    out.write("first ");
    await new Promise((resolve) => setTimeout(resolve, 100));
    out.write("second");
    out.end();
  });`;
  const url = await create("flowing", source, { InvokeMode: "RESPONSE_STREAM" });
  const answer = await ask(url);
  assert.equal(answer.status, 203);
  assert.equal(answer.headers["x-kind"], "streamed");
  assert.equal(answer.text, "first second");
  assert.ok(answer.pieces > 1);
});

test("a function without room answers 429", async () => {
  const url = await create("stopped");
  await client.send(new PutFunctionConcurrencyCommand({ FunctionName: "stopped", ReservedConcurrentExecutions: 0 }));
  const answer = await ask(url);
  assert.equal(answer.status, 429);
  assert.match(answer.text, /ReservedFunctionConcurrentInvocationLimitExceeded/);
});

test("a page of another site cannot use a local operator's rights at an address that asks for signatures", async () => {
  const url = await create("guarded", ECHO, { AuthType: "AWS_IAM" });
  assert.equal((await signed(url, { accessKeyId: "any", secretAccessKey: "any" })).status, 200);
  const key = { accessKeyId: "any", secretAccessKey: "any" };
  const elsewhere = url.replace(/localhost/, "rebound.example.com");
  assert.equal((await signed(elsewhere, key)).status, 403);
});

// The last one: from here on signatures are verified.
test("AWS_IAM wants a signature of somebody who may; once there are keys, NONE wants a statement that says so", async () => {
  const open = await create("open");
  const closed = await create("closed", ECHO, { AuthType: "AWS_IAM" });
  const iam = new IAMClient({
    endpoint: platform.url,
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
  });
  const keyOf = async (UserName: string) => {
    await iam.send(new CreateUserCommand({ UserName }));
    const { AccessKey } = await iam.send(new CreateAccessKeyCommand({ UserName }));
    return { accessKeyId: AccessKey?.AccessKeyId ?? "", secretAccessKey: AccessKey?.SecretAccessKey ?? "" };
  };
  await iam.send(new CreateUserCommand({ UserName: "admin" }));
  await iam.send(
    new AttachUserPolicyCommand({ UserName: "admin", PolicyArn: "arn:aws:iam::aws:policy/AdministratorAccess" }),
  );
  const { AccessKey } = await iam.send(new CreateAccessKeyCommand({ UserName: "admin" }));
  const admin = { accessKeyId: AccessKey?.AccessKeyId ?? "", secretAccessKey: AccessKey?.SecretAccessKey ?? "" };
  client.destroy();
  client = lambda(admin.accessKeyId, admin.secretAccessKey);
  iam.config.credentials = () => Promise.resolve(admin);
  const guest = await keyOf("guest");

  const allowed = await signed(closed, admin, "body");
  assert.equal(allowed.status, 200);
  const context = allowed.json().event["requestContext"] as { authorizer: { iam: { userArn: string } } };
  assert.equal(context.authorizer.iam.userArn, "arn:aws:iam::000000000000:user/admin");
  assert.equal((await signed(closed, { ...admin, secretAccessKey: "wrong" })).status, 403);
  assert.equal((await ask(closed)).status, 403);
  const refused = await signed(closed, guest);
  assert.equal(refused.status, 403);
  assert.match(refused.text, /Forbidden/);
  await client.send(
    new AddPermissionCommand({
      FunctionName: "closed",
      StatementId: "guest",
      Action: "lambda:InvokeFunctionUrl",
      Principal: "arn:aws:iam::000000000000:user/guest",
      FunctionUrlAuthType: "AWS_IAM",
    }),
  );
  assert.equal((await signed(closed, guest)).status, 200);

  assert.equal((await ask(open)).status, 403);
  await client.send(
    new AddPermissionCommand({
      FunctionName: "open",
      StatementId: "everybody",
      Action: "lambda:InvokeFunctionUrl",
      Principal: "*",
      FunctionUrlAuthType: "NONE",
    }),
  );
  assert.equal((await ask(open)).status, 200);
  await client.send(new UpdateFunctionUrlConfigCommand({ FunctionName: "open", AuthType: "AWS_IAM" }));
  assert.equal((await ask(open)).status, 403);
  iam.destroy();
});
