/** A small function to begin with. */
export interface Template {
  readonly summary: string;
  /** Content by path; `%name%` stands for the function's name. */
  readonly files: Readonly<Record<string, string>>;
}

/** The files of a template for a function of this name. */
export function renderTemplate(template: Template, name: string): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries({ ...template.files, ".gitignore": GITIGNORE }).map(([path, text]) => [
      path,
      text.replaceAll("%name%", name),
    ]),
  );
}

const GITIGNORE = `node_modules/
__pycache__/
.venv/
.koine/
.env
`;

const readme = (what: string, test: string): string => `# %name%

${what}
Edit and watch: \`koine dev\`. Deploy: \`koine deploy\`. Call: \`curl 'http://127.0.0.1:4000/fn/%name%?name=you'\`.
Test: \`${test}\`. Output: \`koine logs %name% -f\`.
`;

const projectFile = (handler: string, runtime = "nodejs26.x"): string => `{
  "name": "%name%",
  "runtime": "${runtime}",
  "handler": "${handler}",
  "timeout": "10s"
}
`;

const PYTHON_TEST = "python3 -m unittest";

export const templates: Readonly<Record<string, Template>> = {
  node: {
    summary: "JavaScript: a function from Request to Response",
    files: {
      "koine.json": projectFile("index.mjs"),
      "index.mjs": `/** Answers an HTTP request; may be async. Whatever it writes with console.log is in 'koine logs'. */
export default function handler(request) {
  const name = new URL(request.url).searchParams.get("name") ?? "world";
  return Response.json({ message: \`Hello, \${name}!\` });
}
`,
      "index.test.mjs": `import assert from "node:assert/strict";
import { test } from "node:test";
import handler from "./index.mjs";

test("greets by name", async () => {
  const response = handler(new Request("http://localhost/?name=you"));
  assert.deepEqual(await response.json(), { message: "Hello, you!" });
});
`,
      "README.md": readme("A function in JavaScript: `index.mjs` turns a Request into a Response.", "node --test"),
    },
  },
  typescript: {
    summary: "TypeScript: the same with types; runs as it is, without a build",
    files: {
      "koine.json": projectFile("index.ts"),
      "index.ts": `interface Greeting {
  readonly message: string;
}

/** Answers an HTTP request; may be async. Whatever it writes with console.log is in 'koine logs'. */
export default function handler(request: Request): Response {
  const name = new URL(request.url).searchParams.get("name") ?? "world";
  const greeting: Greeting = { message: \`Hello, \${name}!\` };
  return Response.json(greeting);
}
`,
      "test.mjs": `import assert from "node:assert/strict";
import { test } from "node:test";
import handler from "./index.ts";

test("greets by name", async () => {
  const response = handler(new Request("http://localhost/?name=you"));
  assert.deepEqual(await response.json(), { message: "Hello, you!" });
});
`,
      "tsconfig.json": `{
  "compilerOptions": {
    "target": "esnext",
    "module": "nodenext",
    "lib": ["esnext", "dom"],
    "types": [],
    "strict": true,
    "noEmit": true,
    "erasableSyntaxOnly": true,
    "verbatimModuleSyntax": true,
    "allowImportingTsExtensions": true
  },
  "include": ["**/*.ts"]
}
`,
      "package.json": `{
  "name": "%name%",
  "private": true,
  "type": "module"
}
`,
      "README.md": readme(
        "A function in TypeScript: `index.ts` turns a Request into a Response; `koine dev` shows type errors.",
        "node --test test.mjs",
      ),
    },
  },
  python: {
    summary: "Python: a handler of events",
    files: {
      "koine.json": projectFile("app.py", "python3"),
      "app.py": `def handler(event, context):
    """Answers an HTTP request or an event; whatever it prints is in 'koine logs'."""
    query = event.get("queryStringParameters") or {}
    name = query.get("name") or event.get("name") or "world"
    return {"message": f"Hello, {name}!"}
`,
      "test_app.py": `import unittest

from app import handler


class Greeting(unittest.TestCase):
    def test_greets_by_name(self):
        self.assertEqual(handler({"name": "you"}, None), {"message": "Hello, you!"})
`,
      "README.md": readme("A function in Python: `app.py` has a handler of HTTP requests and events.", PYTHON_TEST),
    },
  },
  "python-web": {
    summary: "Python: a WSGI application",
    files: {
      "koine.json": projectFile("app.py", "python3"),
      "app.py": `from urllib.parse import parse_qs


def app(environ, start_response):
    """A WSGI application; frameworks such as Flask and Django make one too."""
    name = parse_qs(environ.get("QUERY_STRING", "")).get("name", ["world"])[0]
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"Hello, {name}!\\n".encode()]
`,
      "test_app.py": `import unittest

from app import app


class Greeting(unittest.TestCase):
    def test_greets_by_name(self):
        body = app({"QUERY_STRING": "name=you"}, lambda status, headers: None)
        self.assertEqual(b"".join(body), b"Hello, you!\\n")
`,
      "README.md": readme("A web application in Python: `app.py` speaks WSGI.", PYTHON_TEST),
    },
  },
  lambda: {
    summary: "JavaScript: a Lambda handler",
    files: {
      "koine.json": projectFile("index.handler"),
      "index.mjs": `/** Gets HTTP requests in API Gateway's form (payload 2.0), and events as they are. */
export const handler = async (event) => {
  const name = event.queryStringParameters?.name ?? event.name ?? "world";
  return {
    statusCode: 200,
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ message: \`Hello, \${name}!\` }),
  };
};
`,
      "index.test.mjs": `import assert from "node:assert/strict";
import { test } from "node:test";
import { handler } from "./index.mjs";

test("greets by name", async () => {
  const { body } = await handler({ name: "you" });
  assert.deepEqual(JSON.parse(body), { message: "Hello, you!" });
});
`,
      "README.md": readme("A Lambda handler: `index.mjs` exports `handler(event, context)`.", "node --test"),
    },
  },
  web: {
    summary: "JavaScript: a page, an API and a stream of server-sent events",
    files: {
      "koine.json": projectFile("index.mjs"),
      "index.mjs": `const page = \`<!doctype html>
<title>%name%</title>
<h1>%name%</h1>
<p id="time">…</p>
<script>
  new EventSource(location.pathname.replace(/\\\\/$/, "") + "/ticks").onmessage = (event) => {
    document.getElementById("time").textContent = event.data;
  };
</script>\`;

export default {
  /** \`context.signal\` aborts when the caller is gone. */
  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname.endsWith("/ticks")) return ticks(request.signal);
    if (pathname.endsWith("/api")) return Response.json({ message: \`Hello, \${searchParams.get("name") ?? "world"}!\` });
    return new Response(page, { headers: { "content-type": "text/html; charset=utf-8" } });
  },
};

/** Ten server-sent events, one a second. */
function ticks(signal) {
  const stream = new ReadableStream({
    async start(controller) {
      for (let count = 0; count < 10 && !signal.aborted; count++) {
        controller.enqueue(new TextEncoder().encode(\`data: \${new Date().toISOString()}\\n\\n\`));
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
      controller.close();
    },
  });
  return new Response(stream, { headers: { "content-type": "text/event-stream" } });
}
`,
      "index.test.mjs": `import assert from "node:assert/strict";
import { test } from "node:test";
import app from "./index.mjs";

test("greets by name", async () => {
  const response = await app.fetch(new Request("http://localhost/api?name=you"));
  assert.deepEqual(await response.json(), { message: "Hello, you!" });
});
`,
      "README.md": readme("A small web site: `index.mjs` has a page, `/api` and a stream at `/ticks`.", "node --test"),
    },
  },
};
