import type { ShareAnswer, ShareRequest } from "../engine/allowance.ts";

interface Part {
  /** What the engine may use, at most: what it gives back counts as its own until it is here. */
  granted: number;
  /** Of that, what was asked back and has not come. */
  recalled: number;
  /** What it wants altogether; 0: it is content. */
  wanted: number;
}

interface Share {
  readonly key: string;
  max: number;
  readonly parts: Map<number, Part>;
  /** Engines that want more, in the order in which they asked. */
  readonly waiting: Set<number>;
}

/**
 * Divides things among the engines of a platform: slots of functions that have a ReservedConcurrency, memory. Never more than there is. An
 * engine keeps what it was granted until another one wants it; where all want more than there is, they get equal parts, and turns
 * where there is less than one for each.
 */
export class Ledger {
  readonly #shares = new Map<string, Share>();
  readonly #send: (engine: number, answer: ShareAnswer) => void;

  constructor(send: (engine: number, answer: ShareAnswer) => void) {
    this.#send = send;
  }

  /** Things that are divided now. */
  get size(): number {
    return this.#shares.size;
  }

  /** What an engine holds of something. */
  granted(engine: number, key: string): number {
    return this.#shares.get(key)?.parts.get(engine)?.granted ?? 0;
  }

  /** Grants an engine a part that it has not asked for, or as much of it as is free. */
  hold(engine: number, of: { readonly key: string; readonly max: number; readonly amount: number }): void {
    const { key, max } = of;
    const share = this.#share(key, max);
    const amount = Math.min(of.amount, max - sum(share.parts.values(), (part) => part.granted));
    if (amount <= 0) return;
    partOf(share, engine).granted += amount;
    this.#send(engine, { kind: "grant", key, amount });
  }

  asked(engine: number, request: ShareRequest): void {
    switch (request.kind) {
      case "ask": {
        const share = this.#share(request.key, request.max);
        share.max = request.max;
        const part = partOf(share, engine);
        part.wanted = request.want;
        if (request.want > 0) {
          part.recalled = 0;
          share.waiting.add(engine);
        } else share.waiting.delete(engine);
        this.#balance(share);
        return;
      }
      case "give": {
        const share = this.#shares.get(request.key);
        const part = share?.parts.get(engine);
        if (share === undefined || part === undefined) return;
        part.granted -= request.amount;
        part.recalled = Math.max(0, Math.min(part.recalled - request.amount, part.granted));
        this.#balance(share);
        return;
      }
      default:
        return request satisfies never;
    }
  }

  /** An engine is gone, and nothing of it runs any more: what it held is free. */
  left(engine: number): void {
    for (const share of this.#shares.values()) {
      share.waiting.delete(engine);
      if (share.parts.delete(engine)) this.#balance(share);
    }
  }

  #share(key: string, max: number): Share {
    const existing = this.#shares.get(key);
    if (existing !== undefined) return existing;
    const share: Share = { key, max, parts: new Map(), waiting: new Set() };
    this.#shares.set(key, share);
    return share;
  }

  #balance(share: Share): void {
    for (const [engine, part] of share.parts)
      if (part.granted === 0 && !share.waiting.has(engine)) share.parts.delete(engine);
    if (share.parts.size === 0) {
      this.#shares.delete(share.key);
      return;
    }
    this.#grantFree(share);
    this.#recallMissing(share);
  }

  #grantFree(share: Share): void {
    const { key, max, parts, waiting } = share;
    let free = max - sum(parts.values(), (part) => part.granted);
    const equal = Math.floor(max / parts.size);
    for (const engine of waiting) {
      const part = partOf(share, engine);
      const missing = missingTo(part, max);
      // Up to an equal part at once: it will want that soon, and others can have it back.
      const amount = Math.min(free, missing > 0 ? Math.max(missing, equal - part.granted) : 0);
      if (amount > 0) {
        part.granted += amount;
        free -= amount;
        this.#send(engine, { kind: "grant", key, amount });
      }
      if (missing > amount) continue;
      part.wanted = 0;
      waiting.delete(engine);
    }
  }

  /** From those who are content whatever is missing, from those who want more themselves what they have more than an equal part. */
  #recallMissing(share: Share): void {
    const { key, max, parts, waiting } = share;
    const keep = Math.floor(max / parts.size);
    const onTheWay = sum(parts.values(), (part) => part.recalled);
    const excess = Math.max(0, sum(parts.values(), (part) => part.granted) - max);
    const wanting = [...waiting].map((engine) => partOf(share, engine));
    let missing = sum(wanting, (part) => missingTo(part, max)) + excess - onTheWay;
    let missingToEqual = sum(wanting, (part) => Math.max(0, Math.max(1, keep) - part.granted)) + excess - onTheWay;
    const richest = [...parts].toSorted(([, a], [, b]) => b.granted - b.recalled - (a.granted - a.recalled));
    for (const [engine, part] of richest) {
      if (missing <= 0) return;
      const held = part.granted - part.recalled;
      const spare = waiting.has(engine) ? Math.min(held - keep, missingToEqual) : held;
      const amount = Math.min(spare, missing);
      if (amount <= 0) continue;
      part.recalled += amount;
      missing -= amount;
      missingToEqual -= amount;
      this.#send(engine, { kind: "recall", key, amount, keep });
    }
  }
}

function partOf(share: Share, engine: number): Part {
  const existing = share.parts.get(engine);
  if (existing !== undefined) return existing;
  const part: Part = { granted: 0, recalled: 0, wanted: 0 };
  share.parts.set(engine, part);
  return part;
}

function missingTo(part: Part, max: number): number {
  return Math.max(0, Math.min(part.wanted, max) - part.granted);
}

function sum<Item>(items: Iterable<Item>, of: (item: Item) => number): number {
  let total = 0;
  for (const item of items) total += of(item);
  return total;
}
