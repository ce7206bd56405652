/** The functions that are measured, as files of a code package. */
export type Source = Readonly<Record<string, string>>;

/** What every contender answers: a greeting to GET, the parsed and newly written JSON to POST. */
export const helloJs: Source = {
  "index.mjs": `export default async function hello(request) {
  if (request.method !== "POST") return new Response("Hello, world!\\n");
  return Response.json(await request.json());
}
`,
};

/** Answers with its nonce, which no other code has, and the time its process began; on \`/evidence\` with where it runs. */
export function coldJs(nonce: string): Source {
  return {
    "index.mjs": `import { readFileSync, readlinkSync } from "node:fs";
const nonce = ${JSON.stringify(nonce)};
export default function cold(request) {
  if (!request.url.endsWith("/evidence")) return new Response(nonce + " " + performance.timeOrigin);
  const status = readFileSync("/proc/self/status", "utf8");
  const field = (name) => new RegExp("^" + name + ":\\\\s*(.*)$", "m").exec(status)?.[1] ?? "";
  const namespaces = {};
  for (const kind of ["cgroup", "ipc", "mnt", "pid", "user", "uts"]) namespaces[kind] = readlinkSync("/proc/self/ns/" + kind);
  const began = readFileSync("/proc/self/stat", "utf8").split(" ").at(21);
  return Response.json({ nonce, began: performance.timeOrigin + " " + began, pid: process.pid, namespaces,
    noNewPrivs: field("NoNewPrivs"), seccomp: field("Seccomp") });
}
`,
  };
}

export function coldPython(nonce: string): Source {
  return {
    "app.py": `import json, os, time
NONCE = ${JSON.stringify(nonce)}
BEGAN = repr(time.time())
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if not environ["PATH_INFO"].endswith("/evidence"):
        return [(NONCE + " " + BEGAN).encode()]
    fields = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    namespaces = {kind: os.readlink("/proc/self/ns/" + kind) for kind in ("cgroup", "ipc", "mnt", "pid", "user", "uts")}
    return [json.dumps({"nonce": NONCE, "began": BEGAN, "pid": os.getpid(), "namespaces": namespaces,
        "noNewPrivs": fields["NoNewPrivs"].strip(), "seccomp": fields["Seccomp"].strip()}).encode()]
`,
  };
}

/** Answers at once, with what tells its process from others, and keeps its slot for a while, so that every request needs an instance of its own. */
export function holdingJs(holdMs: number): Source {
  return {
    "index.mjs": `import { readlinkSync } from "node:fs";
const process = readlinkSync("/proc/self/ns/pid") + " " + performance.timeOrigin;
export default function hold() {
  const body = new ReadableStream({
    start(controller) {
      controller.enqueue(new TextEncoder().encode("held"));
      setTimeout(() => controller.close(), ${holdMs});
    },
  });
  return new Response(body, { headers: { "x-process": process } });
}
`,
  };
}

/** Answers at once; between calls a timer uses a little processor time, as caches and metrics of libraries do. */
export const tickingJs: Source = {
  "index.mjs": `let ticks = 0;
setInterval(() => {
  for (let turn = 0; turn < 20_000; turn++) ticks += turn % 2;
}, 10);
export default () => new Response(String(ticks));
`,
};

/** Uses the processor for so long and answers. */
export function busyJs(busyMs: number): Source {
  return {
    "index.mjs": `export default function busy() {
  const endMs = performance.now() + ${busyMs};
  while (performance.now() < endMs);
  return new Response("done\\n");
}
`,
  };
}
