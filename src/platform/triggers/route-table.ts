/** A route's address, in the form that `TriggerRoute` has it. */
export interface RouteAddress {
  readonly host?: string;
  readonly methods: readonly string[];
  readonly path: string;
}

export interface RouteMatch<Entry> {
  readonly entry: Entry;
  readonly parameters: Readonly<Record<string, string>>;
}

interface Placed<Entry> extends RouteAddress {
  readonly entry: Entry;
  readonly names: readonly string[];
}

interface Node<Entry> {
  readonly children: Map<string, Node<Entry>>;
  any: Node<Entry> | null;
  /** Routes that end here, and those whose last parameter takes all that is left. */
  readonly ends: Placed<Entry>[];
  readonly rests: Placed<Entry>[];
}

const PARAMETER = /^\{([A-Za-z_][A-Za-z0-9_]*)(\+?)\}$/;

/** Routes by host, path and method: exact hosts before patterns before every host; fixed segments before parameters before the rest of a path. */
export class RouteTable<Entry> {
  readonly #exact = new Map<string, Node<Entry>>();
  /** `*.example.com` as `.example.com`, the longest first. */
  #suffixes: { readonly suffix: string; readonly root: Node<Entry> }[] = [];
  readonly #everywhere = emptyNode<Entry>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Whether some route is bound to this host. */
  knowsHost(host: string): boolean {
    return this.#exact.has(host) || this.#suffixes.some(({ suffix }) => host.endsWith(suffix));
  }

  add(address: RouteAddress, entry: Entry): void {
    const segments = address.path.split("/").slice(1);
    const names: string[] = [];
    let node = this.#rootFor(address.host);
    let rest = false;
    for (const segment of segments) {
      const [, name, plus] = PARAMETER.exec(segment) ?? [];
      if (name === undefined) node = childOf(node, segment);
      else {
        names.push(name);
        if (plus === "+") rest = true;
        else node = node.any ??= emptyNode();
      }
    }
    (rest ? node.rests : node.ends).push({ ...address, entry, names });
    this.#size++;
  }

  /** The first route that another one of the same methods would hide, or be hidden by. */
  conflictOf(address: RouteAddress): Entry | null {
    const shape = shapeOf(address);
    for (const placed of this.#all())
      if (shapeOf(placed) === shape && overlap(placed.methods, address.methods)) return placed.entry;
    return null;
  }

  /** The route of a request; the methods that are possible where only the method is wrong; null where nothing is. `OPTIONS` fits every route. */
  match(host: string, method: string, path: string): RouteMatch<Entry> | readonly string[] | null {
    const allowed = new Set<string>();
    const segments = path.split("/").slice(1);
    for (const root of this.#rootsOf(host)) {
      for (const { placed, values } of find(root, segments, 0, [])) {
        if (placed.methods.length > 0 && method !== "OPTIONS" && !placed.methods.includes(method)) {
          for (const possible of placed.methods) allowed.add(possible);
          continue;
        }
        return {
          entry: placed.entry,
          parameters: Object.fromEntries(placed.names.map((name, index) => [name, values[index] ?? ""])),
        };
      }
    }
    return allowed.size === 0 ? null : [...allowed];
  }

  *#rootsOf(host: string): Iterable<Node<Entry>> {
    const exact = this.#exact.get(host);
    if (exact !== undefined) yield exact;
    for (const { suffix, root } of this.#suffixes) if (host.endsWith(suffix)) yield root;
    yield this.#everywhere;
  }

  #rootFor(host: string | undefined): Node<Entry> {
    if (host === undefined) return this.#everywhere;
    if (!host.startsWith("*.")) {
      const root = this.#exact.get(host) ?? emptyNode<Entry>();
      this.#exact.set(host, root);
      return root;
    }
    const suffix = host.slice(1);
    const known = this.#suffixes.find((other) => other.suffix === suffix);
    if (known !== undefined) return known.root;
    const made = { suffix, root: emptyNode<Entry>() };
    this.#suffixes = [...this.#suffixes, made].sort((a, b) => b.suffix.length - a.suffix.length);
    return made.root;
  }

  *#all(): Iterable<Placed<Entry>> {
    const nodes = [this.#everywhere, ...this.#exact.values(), ...this.#suffixes.map(({ root }) => root)];
    for (let node = nodes.pop(); node !== undefined; node = nodes.pop()) {
      yield* node.ends;
      yield* node.rests;
      nodes.push(...node.children.values(), ...(node.any === null ? [] : [node.any]));
    }
  }
}

function* find<Entry>(
  node: Node<Entry>,
  segments: readonly string[],
  at: number,
  values: readonly string[],
): Iterable<{ readonly placed: Placed<Entry>; readonly values: readonly string[] }> {
  const segment = segments[at];
  if (segment === undefined) {
    for (const placed of node.ends) yield { placed, values };
    return;
  }
  const child = node.children.get(segment);
  if (child !== undefined) yield* find(child, segments, at + 1, values);
  const value = decoded(segment);
  if (node.any !== null && segment !== "" && value !== null)
    yield* find(node.any, segments, at + 1, [...values, value]);
  const rest = decoded(segments.slice(at).join("/"));
  if (rest !== null) for (const placed of node.rests) yield { placed, values: [...values, rest] };
}

function emptyNode<Entry>(): Node<Entry> {
  return { children: new Map(), any: null, ends: [], rests: [] };
}

function childOf<Entry>(node: Node<Entry>, segment: string): Node<Entry> {
  const child = node.children.get(segment) ?? emptyNode<Entry>();
  node.children.set(segment, child);
  return child;
}

function shapeOf({ host = "", path }: RouteAddress): string {
  return `${host} ${path.replaceAll(/\{[^}]*\+\}/g, "{+}").replaceAll(/\{[^}+]+\}/g, "{}")}`;
}

function overlap(a: readonly string[], b: readonly string[]): boolean {
  return a.length === 0 || b.length === 0 || a.some((method) => b.includes(method));
}

function decoded(segment: string): string | null {
  try {
    return decodeURIComponent(segment);
  } catch {
    return null;
  }
}
