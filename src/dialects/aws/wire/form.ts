import { AwsError } from "./error.ts";

/** What a form of the query protocol says, as a tree: text, lists and structures. */
export type FormValue = string | readonly FormValue[] | { readonly [name: string]: FormValue };

interface Branch {
  text: string | null;
  readonly children: Map<string, Branch>;
}

const PARAMETERS_MAX = 10_000;
const DEPTH_MAX = 16;

/**
 * Reads `Attribute.1.Name=VisibilityTimeout&Attribute.1.Value=30`: dots lead into structures, whole numbers from 1 make lists, with or without a
 * `member` in front, as `Tags.member.1.Key`.
 * @throws AwsError `MalformedInput`
 */
export function readForm(text: string): Readonly<Record<string, FormValue>> {
  const root: Branch = { text: null, children: new Map() };
  let count = 0;
  for (const [name, value] of new URLSearchParams(text)) {
    if (++count > PARAMETERS_MAX) throw new AwsError("MalformedInput", "The request has too many parameters.");
    const path = name.split(".");
    if (path.length > DEPTH_MAX) throw new AwsError("MalformedInput", `The parameter ${name} is nested too deep.`);
    let branch = root;
    for (const step of path) {
      let next = branch.children.get(step);
      if (next === undefined) {
        next = { text: null, children: new Map() };
        branch.children.set(step, next);
      }
      branch = next;
    }
    branch.text = value;
  }
  return structureOf(root);
}

function structureOf(branch: Branch): Readonly<Record<string, FormValue>> {
  // Without a prototype no parameter's name means anything else than itself.
  const structure = Object.create(null) as Record<string, FormValue>;
  for (const [name, child] of branch.children) structure[name] = valueOf(child);
  return structure;
}

function valueOf(branch: Branch): FormValue {
  if (branch.children.size === 0) return branch.text ?? "";
  const member =
    branch.children.size === 1 ? (branch.children.get("member") ?? branch.children.get("entry")) : undefined;
  const listed = member !== undefined && isList(member) ? member : branch;
  if (!isList(listed)) return structureOf(branch);
  return [...listed.children]
    .map(([name, child]) => [Number(name), child] as const)
    .sort(([a], [b]) => a - b)
    .map(([, child]) => valueOf(child));
}

function isList(branch: Branch): boolean {
  return branch.children.size > 0 && [...branch.children.keys()].every((name) => /^[1-9][0-9]{0,5}$/.test(name));
}
