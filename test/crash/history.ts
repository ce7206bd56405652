import type { Ending, FinalWord, Mark, Noted, Told } from "./evidence.ts";

/** One time that an event was given to a function. */
export interface Visit {
  readonly note: Noted;
  /** Where its beginning stands among all notes. */
  readonly at: number;
  /** Number of the platform's life in which it began. */
  readonly life: number;
  /** Null: it was cut short. */
  readonly outcome: "end" | "fail" | null;
  /** Where its end stands; Infinity without one. */
  readonly endedAt: number;
}

/** All visits of one event under one activation, in order. */
export interface Delivery {
  readonly at: string;
  readonly activation: string;
  readonly event: string;
  readonly visits: readonly Visit[];
}

export interface Sent {
  readonly told: Extract<Told, { kind: "sent" }>;
  readonly accepted: Extract<Told, { kind: "accepted" }> | null;
  readonly refused: boolean;
}

/** What the evidence says, by what the rules ask for. Nothing here comes from the platform's own code. */
export interface History {
  readonly deliveries: readonly Delivery[];
  readonly byActivation: ReadonlyMap<string, readonly Delivery[]>;
  readonly byEvent: ReadonlyMap<string, readonly Delivery[]>;
  readonly sent: ReadonlyMap<string, Sent>;
  readonly lives: ReadonlyMap<number, Ending>;
  readonly dead: ReadonlyMap<string, FinalWord["deadLetters"][number]>;
  readonly final: FinalWord;
}

export interface Material {
  readonly notes: readonly (Noted | Mark)[];
  readonly clients: readonly Told[];
  readonly final: FinalWord;
}

export function readHistory({ notes, clients, final }: Material): History {
  const lives = new Map<number, Ending>();
  const visits = new Map<
    string,
    { note: Noted; at: number; life: number; outcome: "end" | "fail" | null; endedAt: number }[]
  >();
  let life = 0;
  for (const [at, note] of notes.entries()) {
    switch (note.kind) {
      case "started":
        life = note.life;
        break;
      case "ended":
        lives.set(note.life, note.how);
        break;
      case "begin": {
        const known = visits.get(keyOf(note)) ?? [];
        known.push({ note, at, life, outcome: null, endedAt: Infinity });
        visits.set(keyOf(note), known);
        break;
      }
      case "end":
      case "fail": {
        const visit = visits.get(keyOf(note))?.findLast((one) => one.note.attempt === note.attempt);
        if (visit === undefined) throw new Error(`a note of an end without a beginning: ${JSON.stringify(note)}`);
        visit.outcome = note.kind;
        visit.endedAt = at;
        break;
      }
      default:
        note satisfies never;
    }
  }
  const deliveries = [...visits.values()].map((list): Delivery => {
    const [{ note } = { note: null }] = list;
    return { at: note?.at ?? "", activation: note?.activation ?? "", event: note?.event ?? "", visits: list };
  });
  return {
    deliveries,
    byActivation: Map.groupBy(deliveries, ({ activation }) => activation),
    byEvent: Map.groupBy(deliveries, ({ at, event }) => `${at} ${event}`),
    sent: sentOf(clients),
    lives,
    dead: new Map(final.deadLetters.map((letter) => [letter.id, letter])),
    final,
  };
}

function keyOf({ at, activation, event }: Noted): string {
  return `${at} ${activation} ${event}`;
}

function sentOf(clients: readonly Told[]): ReadonlyMap<string, Sent> {
  const sent = new Map<string, Sent>();
  for (const told of clients) {
    const known = sent.get(told.event);
    if (told.kind === "sent") sent.set(told.event, { told, accepted: null, refused: false });
    else if (known === undefined) throw new Error(`an answer for what was not sent: ${told.event}`);
    else if (told.kind === "accepted") sent.set(told.event, { ...known, accepted: told });
    else sent.set(told.event, { ...known, refused: true });
  }
  return sent;
}
