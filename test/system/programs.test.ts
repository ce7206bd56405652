import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { WebSocket } from "ws";
import { activationOf, call, eventually, idOf, logsOf, send, showFunction } from "./api.ts";
import { type RunningPlatform, startPlatform } from "./platform.ts";

/** Programs of the user's as functions, deployed by the command line and called over HTTP. */
let platform: RunningPlatform;
let scratch: string;

before(async () => {
  scratch = mkdtempSync(join(tmpdir(), "koine-programs-"));
  platform = await startPlatform();
});

after(async () => {
  await platform?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

type Files = Readonly<Record<string, string>>;

function folderOf(name: string, files: Files): string {
  const folder = join(scratch, name);
  for (const [path, content] of Object.entries(files)) {
    const file = join(folder, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
    if (content.startsWith("#!")) chmodSync(file, 0o755);
  }
  return folder;
}

async function deployed(folder: string, ...flags: readonly string[]): Promise<void> {
  const { code, stderr } = await platform.koine(["deploy", folder, ...flags]);
  assert.equal(code, 0, stderr);
}

const SOCKETS = `
  import { createServer } from "node:http";
  import { WebSocketServer } from "./vendor/ws/wrapper.mjs";
  const server = createServer((request, response) => response.end("plain " + request.url));
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "shout" });
  server.on("upgrade", (request, socket, head) => {
    if (request.url === "/closed") return socket.end("HTTP/1.1 401 Unauthorized\\r\\nContent-Length: 2\\r\\n\\r\\nno");
    sockets.handleUpgrade(request, socket, head, (client) => {
      client.send("at " + request.url + " for " + request.headers["x-forwarded-prefix"]);
      client.on("message", (data, isBinary) => {
        if (String(data) === "bye") client.close(4001, "you said so");
        else client.send(data, { binary: isBinary });
      });
    });
  });
  server.listen(Number(process.env.PORT), "127.0.0.1");`;

function socketsFolder(name: string): string {
  const folder = folderOf(name, { "server.mjs": SOCKETS });
  const ws = dirname(createRequire(import.meta.url).resolve("ws/package.json"));
  cpSync(ws, join(folder, "vendor", "ws"), { recursive: true });
  return folder;
}

test("a WebSocket goes through the gateway to the program that accepts it, and its end comes back", async () => {
  await deployed(socketsFolder("sockets"), "--protocol", "http", "--command", "node server.mjs");
  assert.equal((await call(platform, "sockets/page")).text, "plain /page");
  const socket = new WebSocket(`${platform.url.replace("http", "ws")}/fn/sockets/chat?room=1`, ["shout", "whisper"]);
  const [welcome] = (await once(socket, "message")) as [Buffer];
  assert.equal(String(welcome), "at /chat?room=1 for /fn/sockets");
  assert.equal(socket.protocol, "shout");
  const large = Buffer.alloc(3_000_000, "large");
  socket.send(large);
  const [back, isBinary] = (await once(socket, "message")) as [Buffer, boolean];
  assert.ok(isBinary && back.equals(large));
  socket.send("bye");
  const [code, reason] = (await once(socket, "close")) as [number, Buffer];
  assert.deepEqual([code, String(reason)], [4001, "you said so"]);
});

test("a program may refuse an upgrade, and functions without such a program answer as ever", async () => {
  await deployed(folderOf("plain", { "index.mjs": "export default () => new Response('as ever');" }));
  const upgrade = {
    headers: { connection: "Upgrade", upgrade: "websocket", "sec-websocket-key": "eHh4eHh4eHh4eHh4eHh4eA==" },
  };
  const refused = await call(platform, "sockets/closed", upgrade);
  assert.deepEqual([refused.status, refused.text], [401, "no"]);
  const plain = await call(platform, "plain", upgrade);
  assert.deepEqual([plain.status, plain.text], [200, "as ever"]);
  assert.equal((await send(platform, "/healthz", upgrade)).text, "ok\n");
});

test("an open WebSocket keeps its instance; without one it stops, and the next call starts another", async () => {
  const flags = ["--protocol", "http", "--command", "node server.mjs", "--idle-timeout", "1s", "--timeout", "1s"];
  await deployed(socketsFolder("waits"), ...flags);
  const socket = new WebSocket(`${platform.url.replace("http", "ws")}/fn/waits/`);
  await once(socket, "message");
  // A second instance comes and goes meanwhile, since the first has one slot.
  assert.equal((await call(platform, "waits/x")).status, 200);
  const counts = async (): Promise<readonly number[]> => {
    const { idle, busy, frozen } = (await showFunction(platform, "waits")).instances;
    return [busy, idle + frozen];
  };
  await eventually("the idle instance to stop, and only that", async () => {
    const [busy, idle] = await counts();
    return busy === 1 && idle === 0 ? true : null;
  });
  socket.send("still there?");
  assert.equal(String(((await once(socket, "message")) as [Buffer])[0]), "still there?");
  socket.terminate();
  await eventually("the last instance to stop", async () =>
    (await counts()).every((count) => count === 0) ? true : null,
  );
  const cold = await call(platform, "waits/again");
  assert.deepEqual([cold.text, cold.headers["x-koine-start"]], ["plain /again", "cold"]);
});

test("an executable 'bootstrap' is taken for a custom runtime of Lambda, with its logs", async () => {
  const folder = folderOf("polls", {
    bootstrap: `#!/bin/sh
      base="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
      while :; do
        event=$(curl -sS -D /tmp/headers "$base/next")
        id=$(tr -d '\\r' </tmp/headers | sed -n 's/^lambda-runtime-aws-request-id: //Ip')
        echo "handling"
        case $event in
          *fail*) curl -sS "$base/$id/error" -d '{"errorType":"Shell.Error","errorMessage":"no"}' ;;
          *) curl -sS "$base/$id/response" -d "{\\"statusCode\\":201,\\"body\\":\\"$_HANDLER\\"}" ;;
        esac >/dev/null
      done`,
  });
  await deployed(folder, "--handler", "any.thing", "--runtime", "custom", "--protocol", "lambda-runtime-api");
  const answer = await call(platform, "polls");
  assert.deepEqual([answer.status, answer.text], [201, "any.thing"]);
  const lines = await eventually("its log", async () => {
    const records = await logsOf(platform, idOf(answer));
    return records.length > 0 ? records : null;
  });
  assert.equal(lines[0]?.line, "handling");
  const failed = await call(platform, "polls?fail");
  assert.equal(failed.status, 502);
  assert.match(failed.text, /Shell\.Error: no/);
  await deployed(folderOf("polls", {}), "--name", "recognised");
  assert.equal((await call(platform, "recognised")).text, "bootstrap");
});

test("a shell script is run for each call", async () => {
  const folder = folderOf("scripts", {
    "shout.sh": `#!/bin/sh
      [ "$Http_Path" = /fail ] && { echo "this went wrong" >&2; exit 3; }
      echo "$Http_Method $GREETING"; exec tr a-z A-Z`,
  });
  await deployed(join(folder, "shout.sh"), "--protocol", "stdio", "-e", "GREETING=hello");
  const answer = await call(platform, "shout/x", { method: "POST", body: "quiet" });
  assert.deepEqual([answer.status, answer.text], [200, "POST hello\nQUIET"]);
  const failed = await call(platform, "shout/fail");
  assert.match(failed.text, /exit status 3: this went wrong/);
  assert.equal((await activationOf(platform, idOf(failed))).state, "failed");
});

test("a static binary that speaks HTTP needs nothing beside it", async () => {
  const folder = folderOf("binary", { "server.c": SERVER_IN_C });
  const built = spawnSync("gcc", ["-static", "-O1", "-o", join(folder, "server"), join(folder, "server.c")]);
  assert.equal(built.status, 0, String(built.stderr));
  await deployed(folder, "--command", "./server $PORT", "--concurrency", "10");
  const answers = await Promise.all(Array.from({ length: 20 }, (_, index) => call(platform, `binary/${index}`)));
  assert.deepEqual(
    answers.map(({ status, text }) => [status, text]),
    Array.from({ length: 20 }, (_, index) => [200, `GET /${index}\n`]),
  );
});

test("what is wrong with a deploy of a program is told by it, and nothing goes live", async () => {
  const folder = folderOf("wrong", { "run.sh": "#!/bin/sh\necho 'I will not listen' >&2\nexit 4\n" });
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [["--protocol", "http", "--command", "./run.sh"], /exited with code 4.*I will not listen/s],
    [["--protocol", "http", "--command", "./missing"], /there is no program \/code\/missing/],
    [["--protocol", "stdio", "--command", "./missing"], /there is no program \/code\/missing/],
    [["--protocol", "http", "--runtime", "nodejs26.x"], /needs a command, such as 'node server.js'/],
    [["--runtime", "custom", "--handler", "x"], /runtime 'custom' needs a protocol/],
    [["--protocol", "gopher"], /'gopher' is invalid/],
    [["--command", "'half"], /quote in the command does not end/],
  ];
  for (const [flags, message] of cases) {
    const { code, stderr } = await platform.koine(["deploy", folder, "--name", "wrong", ...flags]);
    assert.notEqual(code, 0);
    assert.match(stderr, message);
  }
  assert.equal((await call(platform, "wrong")).status, 404);
});

const SERVER_IN_C = `
  #include <arpa/inet.h>
  #include <stdio.h>
  #include <stdlib.h>
  #include <string.h>
  #include <unistd.h>
  int main(int argc, char **argv) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) return 1;
    for (;;) {
      char request[4096], line[256], answer[512];
      int client = accept(listener, 0, 0);
      ssize_t length = read(client, request, sizeof request - 1);
      if (length > 0) {
        request[length] = 0;
        char *method = strtok(request, " "), *path = strtok(0, " ");
        int size = snprintf(line, sizeof line, "%s %s\\n", method, path);
        int all = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s", size, line);
        write(client, answer, all);
      }
      close(client);
    }
  }`;
