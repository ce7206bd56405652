// What the table of operations in docs/dialects/aws.md is made of: the SDK's own lists, the source, and the tests.
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

interface DescribedService {
  readonly title: string;
  /** The SDK's package, whose commands are all operations that there are. */
  readonly client: string;
  /** Where ours are. */
  readonly folders: readonly string[];
}

export interface OperationState {
  readonly name: string;
  readonly state: "works" | "stored only" | "not there";
  /** Whether a test calls it with the SDK. */
  readonly called: boolean;
}

const services: readonly DescribedService[] = [
  { title: "Lambda", client: "@aws-sdk/client-lambda", folders: ["lambda", "mappings"] },
  { title: "SQS", client: "@aws-sdk/client-sqs", folders: ["sqs"] },
  { title: "IAM", client: "@aws-sdk/client-iam", folders: ["iam"] },
  { title: "STS", client: "@aws-sdk/client-sts", folders: ["sts"] },
  { title: "CloudWatch Logs", client: "@aws-sdk/client-cloudwatch-logs", folders: ["logs"] },
  { title: "CloudWatch", client: "@aws-sdk/client-cloudwatch", folders: ["monitoring"] },
];

/** Kept and told again; nothing on this platform changes by them. */
const STORED_ONLY = new Set([
  "CreateCodeSigningConfig",
  "DeleteCodeSigningConfig",
  "DeleteFunctionCodeSigningConfig",
  "GetCodeSigningConfig",
  "GetFunctionCodeSigningConfig",
  "GetFunctionRecursionConfig",
  "GetFunctionScalingConfig",
  "GetRuntimeManagementConfig",
  "ListCodeSigningConfigs",
  "ListFunctionsByCodeSigningConfig",
  "PutFunctionCodeSigningConfig",
  "PutFunctionRecursionConfig",
  "PutFunctionScalingConfig",
  "PutRuntimeManagementConfig",
  "UpdateCodeSigningConfig",
]);

/** Every operation of the services that are here, by the service's name. */
export function operationStates(): ReadonlyMap<string, readonly OperationState[]> {
  const tests = globSync("test/system/aws/*.test.ts", { cwd: root }).map(read);
  return new Map(
    services.map((service) => {
      const ours = operationsIn(service.folders);
      const called = new Set(tests.flatMap((text) => calledIn(text, service.client)));
      const states = namesOf(service.client).map((name): OperationState => {
        const state = !ours.has(name) ? "not there" : STORED_ONLY.has(name) ? "stored only" : "works";
        return { name, state, called: called.has(name) };
      });
      return [service.title, states];
    }),
  );
}

const BEGIN = "<!-- operations: made by `npm run docs` -->";
const END = "<!-- end of operations -->";

/** The page with its table made anew; the text above it is written by hand. */
export function operationsPage(path: string): string {
  const text = read(path);
  const [from, to] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (from < 0 || to < from) throw new Error(`${path} has no place for the table of operations`);
  return `${text.slice(0, from)}${BEGIN}\n\n${tables()}\n${text.slice(to)}`;
}

function tables(): string {
  const sections = [...operationStates()].map(([title, states]) => {
    const there = states.filter(({ state }) => state !== "not there");
    const missing = states.filter(({ state }) => state === "not there").map(({ name }) => name);
    const rows = there.map(({ name, state }) => `| ${name} | ${state} |`);
    const rest = missing.length === 0 ? "" : `\nNot there (${missing.length}): ${missing.join(", ")}.\n`;
    return [
      `### ${title}`,
      "",
      `${there.length} of ${states.length} operations.`,
      "",
      "| Operation | |",
      "| --- | --- |",
      ...rows,
      rest,
    ].join("\n");
  });
  return sections.join("\n");
}

function namesOf(client: string): readonly string[] {
  return globSync(`node_modules/${client}/dist-types/commands/*Command.d.ts`, { cwd: root })
    .map((path) => path.replace(/^.*\/(\w+)Command\.d\.ts$/, "$1"))
    .sort();
}

function operationsIn(folders: readonly string[]): ReadonlySet<string> {
  const files = folders.flatMap((folder) => globSync(`src/dialects/aws/${folder}/**/*.ts`, { cwd: root }));
  const names = files.flatMap((path) =>
    [...read(path).matchAll(/\boperation\(\s*["`]([\w${}]+)["`]/g)].map(([, name = ""]) => name),
  );
  // The same operations under two names.
  return new Set(names.flatMap((name) => ["User", "Role"].map((what) => name.replace("${what}", what))));
}

function calledIn(text: string, client: string): readonly string[] {
  const imports = [...text.matchAll(/import \{([^}]*)\} from "([^"]+)"/g)].flatMap(([, names = "", from]) =>
    from === client ? names.split(",").map((name) => name.trim()) : [],
  );
  return imports.flatMap((name) => {
    const [, operation] = /^(\w+)Command$/.exec(name) ?? [];
    return operation !== undefined && text.includes(`new ${name}(`) ? [operation] : [];
  });
}

function read(path: string): string {
  return readFileSync(join(root, path), "utf8");
}
