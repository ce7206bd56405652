import { type Delivery, type History, type Material, readHistory } from "./history.ts";

/** A promise of the platform that the evidence contradicts. */
export interface Violation {
  readonly rule: string;
  readonly what: string;
}

export interface Verdict {
  readonly violations: readonly Violation[];
  readonly figures: Readonly<Record<string, number>>;
}

export interface Terms {
  /** Attempts of an event, as the functions were deployed. */
  readonly attemptsMax: number;
  /** Whether the clock has jumped: then times say nothing, and what is too old by the clock may die. */
  readonly clockJumped: boolean;
  /** Whether the disk was full: then the record of a run may be lost with a crash, though not the run. */
  readonly diskWasFull: boolean;
}

/**
 * Judges a run of the crash harness by what functions noted, what clients were told, and the platform's final word: everything that was accepted was
 * delivered or is a dead letter, nothing else was delivered, and what came twice had the right to.
 */
export function judge(material: Material, terms: Terms): Verdict {
  const history = readHistory(material);
  const violations: Violation[] = [];
  const figures = figuresOf(history);
  for (const [rule, find] of Object.entries(rules))
    for (const what of find(history, terms)) violations.push({ rule, what });
  return { violations, figures };
}

/** What the schedule of the scene fires in. */
const SLOT_MS = 1_000;

type Rule = (history: History, terms: Terms) => Iterable<string>;

const rules: Readonly<Record<string, Rule>> = {
  "accepted but lost": lost,
  "delivered but never sent": phantoms,
  "delivered damaged": damaged,
  "repeated without right": repeats,
  "run after it was settled": afterSettled,
  "out of order": disorder,
  "one key, several activations": keys,
  "before its time": early,
  "a slot twice, or none": slots,
  "destination lost or invented": destinations,
  "dead without reason": deaths,
  "final state": finalStates,
};

function* lost({ sent, byActivation, byEvent, dead }: History): Iterable<string> {
  for (const [event, { told, accepted }] of sent) {
    if (accepted === null) continue;
    if (told.to === "topic") {
      // Each of the two subscriptions has an activation of its own; a batch that died is a dead letter of them all.
      for (const at of ["topic", "batch"])
        if (
          !(byEvent.get(`${at} ${event}`) ?? []).some(({ activation, ...one }) => hasEnded(one) || dead.has(activation))
        )
          yield `event ${event} was published and never got to '${at}'`;
      continue;
    }
    const { activation } = accepted;
    const ended = (byActivation.get(activation) ?? []).some((one) => one.at === "work" && hasEnded(one));
    const letter = dead.get(activation);
    if (!ended && letter === undefined) yield `event ${event} was accepted as ${activation}`;
    if (letter?.reason === "") yield `event ${event} is a dead letter without a reason`;
  }
}

function* phantoms({ sent, deliveries, byEvent }: History): Iterable<string> {
  for (const { at, event, activation } of deliveries) {
    if (at === "schedule" || at === "audit") continue;
    const known = sent.get(event);
    if (known === undefined) yield `'${at}' was given ${event}, which nobody sent`;
    else if (known.refused) yield `'${at}' was given ${event}, which was refused`;
    else if (at === "work" && known.accepted !== null && known.accepted.activation !== activation)
      yield `${event} was accepted as ${known.accepted.activation} and ran as ${activation}`;
  }
  for (const [event, list] of byEvent)
    if (!event.startsWith("schedule") && list.length > 1)
      yield `${event} ran as ${list.map(({ activation }) => activation).join(" and ")}`;
}

function* damaged({ deliveries }: History): Iterable<string> {
  for (const { event, visits } of deliveries)
    if (visits.some(({ note }) => note.whole === false)) yield `the payload of ${event}`;
}

/** Within one life only what failed may come again; after a crash what was open. Each time has a higher attempt number. */
function* repeats({ deliveries, lives }: History): Iterable<string> {
  for (const { at, activation, event, visits } of deliveries) {
    for (const [index, next] of visits.entries()) {
      const before = visits[index - 1];
      if (before === undefined) continue;
      const what = `${event} of '${at}' as ${activation}, attempt ${before.note.attempt} and then ${next.note.attempt}`;
      if (next.note.attempt <= before.note.attempt) yield `${what}: the number did not grow`;
      if (before.outcome === "fail") continue;
      if (next.life === before.life)
        yield `${what}: in the same life, though the first ${before.outcome ?? "still ran"}`;
      else if (lives.get(before.life) === "stopped") yield `${what}: though the platform was stopped in order`;
    }
  }
}

/** An outcome that got to its destination is a proof that its invocation was settled. */
function* afterSettled({ deliveries, byActivation }: History): Iterable<string> {
  for (const { at, event: subject, visits } of deliveries) {
    const told = visits[0];
    if (at !== "audit" || told === undefined) continue;
    for (const one of byActivation.get(subject) ?? [])
      if (one.visits.some((visit) => visit.at > told.at)) yield `${one.event} as ${subject}`;
  }
}

function* disorder({ deliveries }: History): Iterable<string> {
  const keyed = deliveries.filter(({ at, visits }) => at === "work" && visits[0]?.note.key !== null);
  for (const [key, list] of Map.groupBy(keyed, ({ visits }) => visits[0]?.note.key)) {
    const visits = list.flatMap((one) => one.visits).toSorted((a, b) => a.at - b.at);
    for (const [index, next] of visits.entries()) {
      const before = visits[index - 1];
      if (before === undefined) continue;
      const what = `${key}: ${before.note.event} (${before.note.n}) and then ${next.note.event} (${next.note.n})`;
      if (next.note.n < before.note.n) yield what;
      else if (next.life === before.life && before.endedAt > next.at)
        yield `${what}, which began before the other had ended`;
    }
  }
}

function* keys({ sent }: History): Iterable<string> {
  const keyed = [...sent.values()].filter(({ told }) => told.idempotencyKey !== null);
  for (const [key, list] of Map.groupBy(keyed, ({ told }) => told.idempotencyKey)) {
    const activations = new Set(list.flatMap(({ accepted }) => (accepted === null ? [] : [accepted.activation])));
    if (activations.size > 1) yield `key ${key}: ${[...activations].join(", ")}`;
    const first = list.filter(({ accepted }) => accepted?.duplicate === false);
    if (first.length > 1) yield `key ${key} was accepted ${first.length} times as new`;
  }
}

function* early({ sent, byEvent }: History, { clockJumped }: Terms): Iterable<string> {
  if (clockJumped) return;
  for (const [event, { told }] of sent) {
    if (told.delayMs === 0) continue;
    const begun = byEvent.get(`work ${event}`)?.[0]?.visits[0]?.note.atMs;
    if (begun !== undefined && begun < told.atMs + told.delayMs)
      yield `${event}: ${told.atMs + told.delayMs - begun} ms early`;
  }
}

function* slots({ deliveries, byEvent }: History, { clockJumped }: Terms): Iterable<string> {
  for (const [event, list] of byEvent)
    if (event.startsWith("schedule") && list.length > 1)
      yield `${event} ran as ${list.map(({ activation }) => activation).join(" and ")}`;
  if (clockJumped) return;
  const times = deliveries
    .filter(({ at }) => at === "schedule")
    .map(({ event }) => Date.parse(event))
    .toSorted((a, b) => a - b);
  for (const [index, time] of times.entries()) {
    const before = times[index - 1];
    if (before !== undefined && time - before !== SLOT_MS)
      yield `after ${new Date(before).toISOString()} came ${new Date(time).toISOString()}`;
  }
}

/** Exactly one activation tells of each end, and tells it right. */
function* destinations({ deliveries, byActivation, byEvent, dead }: History): Iterable<string> {
  const worked = deliveries.filter(({ at }) => at === "work");
  for (const { activation, event } of worked) {
    const told = byEvent.get(`audit ${activation}`) ?? [];
    const [first] = told;
    if (first === undefined && !dead.has(activation)) yield `nobody was told how ${event} ended, ${activation}`;
    const type = first?.visits[0]?.note.key;
    const right = dead.has(activation) ? "koine.invocation.failed" : "koine.invocation.succeeded";
    if (first !== undefined && type !== right) yield `${activation} was told as ${type}`;
    if (first === undefined && dead.has(activation)) yield `nobody was told that ${event} died, ${activation}`;
  }
  for (const { at, event: subject } of deliveries)
    if (at === "audit" && !byActivation.has(subject) && !dead.has(subject)) yield `of ${subject}, which never ran`;
}

/** What was to succeed in time did; what is dead was to die, after all its attempts. */
function* deaths({ dead, byActivation, sent }: History, { attemptsMax, clockJumped }: Terms): Iterable<string> {
  for (const letter of dead.values()) {
    if (clockJumped && letter.reason.startsWith("not done within")) continue;
    const what = `${letter.id} of ${letter.name} (${letter.code}: ${letter.reason})`;
    const work = (byActivation.get(letter.id) ?? []).find(({ at }) => at === "work");
    const told = work === undefined ? undefined : sent.get(work.event)?.told;
    if (told === undefined) yield what;
    else if (told.vain) continue;
    else if (told.failures === 0) yield `${what} was not to fail`;
    else if (letter.attempts < attemptsMax) yield `${what} had ${letter.attempts} attempts only`;
  }
  for (const [event, { told, accepted }] of sent)
    if (
      accepted?.duplicate === false &&
      (told.vain || told.failures >= attemptsMax) &&
      !dead.has(accepted.activation)
    ) {
      // An attempt that a crash cut short counts; so one that fails at first may get beyond its failures, one that always fails may not.
      const visits = byActivation.get(accepted.activation)?.[0]?.visits ?? [];
      if (told.vain || (visits.at(-1)?.note.attempt ?? 0) <= told.failures)
        yield `${event} was to die and is no dead letter`;
    }
}

function* finalStates({ final, dead }: History, { diskWasFull }: Terms): Iterable<string> {
  for (const [id, { state, queued, deadLetter }] of Object.entries(final.runs)) {
    const right = dead.has(id) ? "failed" : "succeeded";
    if (state !== right && !diskWasFull) yield `${id} is '${state}' and not '${right}'`;
    if (deadLetter !== dead.has(id) || queued) yield `${id}: dead letter ${deadLetter}, in the queue ${queued}`;
  }
}

function hasEnded({ visits }: Pick<Delivery, "visits">): boolean {
  return visits.some(({ outcome }) => outcome === "end");
}

function figuresOf({ sent, deliveries, lives, dead, final }: History): Record<string, number> {
  const all = [...sent.values()];
  const endings = [...lives.values()];
  const repeated = deliveries.flatMap(({ visits }) => visits.slice(0, -1));
  return {
    lives: lives.size,
    killed: endings.filter((how) => how === "killed").length,
    "power cuts": endings.filter((how) => how === "power-cut").length,
    sent: all.length,
    accepted: all.filter(({ accepted }) => accepted !== null).length,
    "without answer": all.filter(({ accepted, refused }) => accepted === null && !refused).length,
    refused: all.filter(({ refused }) => refused).length,
    delivered: deliveries.filter(hasEnded).length,
    "dead letters": dead.size,
    "retries after failures": repeated.filter(({ outcome }) => outcome === "fail").length,
    "duplicates of what had ended": repeated.filter(({ outcome }) => outcome === "end").length,
    "repeats of what was cut short": repeated.filter(({ outcome }) => outcome === null).length,
    slots: deliveries.filter(({ at }) => at === "schedule").length,
    outcomes: deliveries.filter(({ at }) => at === "audit").length,
    "runs looked at": Object.keys(final.runs).length,
    "runs whose last record was lost": Object.entries(final.runs).filter(
      ([id, { state }]) => state !== (dead.has(id) ? "failed" : "succeeded"),
    ).length,
  };
}
