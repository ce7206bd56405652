import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

interface Module {
  readonly name: string;
  /** Without its imports of others, and `export` taken off. */
  readonly text: string;
  readonly imports: readonly { readonly names: string; readonly from: string }[];
  readonly exports: readonly string[];
}

const IMPORT = /^import \{([^}]*)\} from "\.\/([\w-]+\.mjs)";\n/gm;
const EXPORT = /^export (?=(?:async )?(?:function|class|const) (\w+))/gm;
const NOT_UNDERSTOOD = /^(?:import|export)\b.*$/m;

/**
 * One text of an ES module and all that it imports from its own folder: every file that Node loads costs half a millisecond. A file that
 * others in the folder import too, which are not joined, stays apart, so that there is one of it.
 * @throws Error for files not written as ours are: imports by name, at the top; `export` before a function, a class or a constant
 */
export async function joinModules(folder: string, entry: string): Promise<string> {
  const files = (await readdir(folder)).filter((name) => name.endsWith(".mjs"));
  const importsOf = new Map<string, readonly string[]>();
  const texts = new Map<string, string>();
  for (const name of files) {
    const text = await readFile(join(folder, name), "utf8");
    texts.set(name, text);
    importsOf.set(
      name,
      [...text.matchAll(IMPORT)].map((found) => found[2] ?? ""),
    );
  }
  const reached = reach(importsOf, [entry]);
  const apart = reach(
    importsOf,
    files.filter((name) => !reached.has(name)),
  );
  const joined: string[] = [];
  const standing = new Set<string>();
  const add = (name: string): void => {
    if (standing.has(name)) return;
    standing.add(name);
    if (apart.has(name)) {
      joined.push(`import * as ${variableOf(name)} from "./${name}";\n`);
      return;
    }
    const module = read(name, texts.get(name) ?? "");
    for (const { from } of module.imports) add(from);
    joined.push(textOf(module));
  };
  add(entry);
  return joined.join("");
}

/** Those, and everything that they import. */
function reach(importsOf: ReadonlyMap<string, readonly string[]>, from: readonly string[]): Set<string> {
  const reached = new Set(from);
  for (const name of reached) for (const imported of importsOf.get(name) ?? []) reached.add(imported);
  return reached;
}

function read(name: string, source: string): Module {
  const imports = [...source.matchAll(IMPORT)].map((found) => ({ names: found[1] ?? "", from: found[2] ?? "" }));
  const exports = [...source.matchAll(EXPORT)].map((found) => found[1] ?? "");
  const text = source.replaceAll(IMPORT, "").replaceAll(EXPORT, "");
  const odd = NOT_UNDERSTOOD.exec(text);
  if (odd !== null) throw new Error(`${name} cannot be joined: ${odd[0]}`);
  return { name, text, imports, exports };
}

function textOf({ name, text, imports, exports }: Module): string {
  const given = imports.map(({ names, from }) => `const {${names}} = ${variableOf(from)};\n`).join("");
  return `const ${variableOf(name)} = (() => {\n${given}${text}\nreturn { ${exports.join(", ")} };\n})();\n`;
}

function variableOf(name: string): string {
  return `$${name.replace(/\.mjs$/, "").replaceAll("-", "_")}`;
}
