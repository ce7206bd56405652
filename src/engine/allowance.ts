import type { Clock } from "../core/clock.ts";

/** What an engine tells whoever divides things among engines. */
export type ShareRequest =
  /** It wants `want` of at most `max` altogether; 0: no more than it has. */
  | { readonly kind: "ask"; readonly key: string; readonly max: number; readonly want: number }
  | { readonly kind: "give"; readonly key: string; readonly amount: number };

/** And what it is told. Amounts are differences, so that messages may cross on their way. */
export type ShareAnswer =
  | { readonly kind: "grant"; readonly key: string; readonly amount: number }
  /** Others want so much: it goes when nobody here uses it; while somebody waits here, down to `keep` and in turns. */
  | { readonly kind: "recall"; readonly key: string; readonly amount: number; readonly keep: number };

/** What an allowance must know of those who use it. */
export interface AllowanceUse {
  used(): number;
  /** Whether somebody waits here for more than there is. */
  starving(): boolean;
  /** The engine may now use this much; who waits may try again when it `grew`. */
  changed(granted: number, grew: boolean): void;
  /** So much that is in use here is wanted elsewhere, and nobody here waits: what can be freed should be. May be told again and again. */
  wantedElsewhere?(amount: number): void;
}

/** An engine that others wait for may serve those who wait with itself for so long before it passes a slot on. */
const TURN_MS = 5;

/** One engine's part of something that the engines of a platform share, such as a function's ReservedConcurrency. */
export class Allowance {
  readonly key: string;
  #max: number;
  #granted = 0;
  #asked = 0;
  #owed = 0;
  #keep = 0;
  #grantedAtMs = 0;
  #cancelTurn: (() => void) | null = null;
  readonly #use: AllowanceUse;
  readonly #owner: AllowanceOwner;

  constructor(owner: AllowanceOwner, of: { readonly key: string; readonly max: number; readonly use: AllowanceUse }) {
    this.#owner = owner;
    this.key = of.key;
    this.#max = of.max;
    this.#use = of.use;
  }

  /** Of all engines together. */
  get max(): number {
    return this.#max;
  }

  get granted(): number {
    return this.#granted;
  }

  /** There is another total to divide. */
  setMax(max: number): void {
    if (max === this.#max) return;
    this.#max = max;
    this.#ask(this.#asked);
  }

  /** Asks for what is missing to `total`. */
  need(total: number): void {
    const want = Math.min(total, this.#max);
    if (want <= this.#granted || want <= this.#asked) return;
    this.#ask(want);
  }

  /** Gives back what is owed as far as it is free. To be called when something was freed or somebody stopped waiting. */
  settle(): void {
    const starving = this.#asked > 0 || this.#owed > 0 ? this.#use.starving() : false;
    if (this.#asked > 0 && !starving) this.#ask(0);
    if (this.#owed === 0) return;
    const free = Math.min(this.#granted - this.#use.used(), starving ? this.#granted - this.#keep : this.#granted);
    const amount = Math.min(this.#owed, free);
    if (amount > 0) {
      if (starving && this.#isTurn()) return;
      this.#give(amount);
      this.#owed -= amount;
      // What was granted to the earlier request may just be what went back.
      if (this.#asked > 0) this.#ask(this.#asked);
    }
    if (this.#owed > 0 && !starving) this.#use.wantedElsewhere?.(this.#owed);
  }

  /** More was granted. */
  grant(amount: number): void {
    this.#granted += amount;
    this.#grantedAtMs = this.#owner.clock.monotonicMs();
    if (this.#granted >= this.#asked) this.#asked = 0;
    this.#use.changed(this.#granted, true);
  }

  recall(amount: number, keep: number): void {
    this.#owed += amount;
    this.#keep = keep;
    this.settle();
  }

  /** Gives everything back: nothing of it is used any more. */
  close(): void {
    this.#cancelTurn?.();
    if (this.#asked > 0) this.#ask(0);
    if (this.#granted > 0) this.#give(this.#granted);
    this.#owner.closed(this);
  }

  #ask(want: number): void {
    this.#asked = want;
    // Whoever asks for more has nothing to give back, and the ledger takes it so.
    if (want > 0) this.#owed = 0;
    this.#owner.send({ kind: "ask", key: this.key, max: this.#max, want });
  }

  #give(amount: number): void {
    this.#granted -= amount;
    this.#owner.send({ kind: "give", key: this.key, amount });
    this.#use.changed(this.#granted, false);
  }

  /** Whether it is still this engine's turn; asks itself again when that is over. */
  #isTurn(): boolean {
    const leftMs = this.#grantedAtMs + TURN_MS - this.#owner.clock.monotonicMs();
    if (leftMs <= 0) return false;
    this.#cancelTurn ??= this.#owner.clock.after(leftMs, () => {
      this.#cancelTurn = null;
      this.settle();
    });
    return true;
  }
}

interface AllowanceOwner {
  readonly clock: Clock;
  send(request: ShareRequest): void;
  closed(allowance: Allowance): void;
}

/** All of one engine's allowances. */
export class Allowances implements AllowanceOwner {
  readonly clock: Clock;
  readonly #send: (request: ShareRequest) => void;
  readonly #byKey = new Map<string, Allowance>();

  /** @param send must not answer before it returns */
  constructor(clock: Clock, send: (request: ShareRequest) => void) {
    this.clock = clock;
    this.#send = send;
  }

  /** Takes part in dividing `max` of something, with nothing at first. */
  open(key: string, { max, use }: { readonly max: number; readonly use: AllowanceUse }): Allowance {
    const allowance = new Allowance(this, { key, max, use });
    this.#byKey.set(key, allowance);
    return allowance;
  }

  answered(answer: ShareAnswer): void {
    const allowance = this.#byKey.get(answer.key);
    switch (answer.kind) {
      case "grant":
        if (allowance !== undefined) allowance.grant(answer.amount);
        // Nobody wants it any more.
        else this.#send({ kind: "give", key: answer.key, amount: answer.amount });
        return;
      case "recall":
        allowance?.recall(answer.amount, answer.keep);
        return;
      default:
        return answer satisfies never;
    }
  }

  // AllowanceOwner

  send(request: ShareRequest): void {
    this.#send(request);
  }

  closed(allowance: Allowance): void {
    if (this.#byKey.get(allowance.key) === allowance) this.#byKey.delete(allowance.key);
  }
}
