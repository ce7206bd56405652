import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../core/clock.ts";
import { KoineError } from "../core/errors.ts";
import { PARTITION_KEY } from "../core/event.ts";
import {
  type DeliveredEvent,
  type Durable,
  durable,
  eventsIn,
  openTriggers,
  target,
} from "../platform/triggers/testing/hosted.ts";
import { stateOf, type Triggers } from "../platform/triggers/triggers.ts";
import { type PullKind, secretsIn } from "./trigger.ts";

/** One place for events at a real server: a topic, a queue, a folder of the suite's own. */
export interface SourceUnderTest {
  /** Settings of a trigger that gets what `publish` sends. Credentials are references to `secrets`. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly secrets?: Readonly<Record<string, string>>;
  /** Sends events one after the other; each text must come back by `textOf`. With a key, those of one key must stay in order. */
  publish(texts: readonly string[], key?: string): Promise<void>;
  /** What was sent as the text of this event; null for an event that the suite did not send. */
  textOf(event: DeliveredEvent): string | null;
  /** Settings with which nothing can be reached, such as a port where nobody listens; absent where there is no server. */
  readonly unreachable?: Readonly<Record<string, unknown>>;
  /** Ends and starts the server, with what it had durably; absent where there is no server. */
  restartServer?(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface SourceSuite {
  readonly name: string;
  readonly kind: PullKind;
  /** A new, empty place each time. */
  open(): Promise<SourceUnderTest>;
  /** Settings that cannot be meant, and a part of what the error must say. */
  readonly wrongSettings: readonly (readonly [Readonly<Record<string, unknown>>, RegExp])[];
  /** Whether what is sent before a trigger first runs is delivered: a stored log or queue does, a broadcast does not. */
  readonly startsAtBeginning?: boolean;
  /** How long an event may take, in milliseconds; real servers on a busy machine. */
  readonly patienceMs?: number;
}

const PATIENCE_MS = 30_000;
const LOOK_MS = 10;

/** What every pulling source must do, told against its real server through the host that the platform uses. */
export function sourceConformance(suite: SourceSuite): void {
  const { name, kind, patienceMs = PATIENCE_MS } = suite;
  const story = (what: string, tell: (stage: Stage) => Promise<void>): void => {
    test(`${name}: ${what}`, async () => {
      await using source = await suite.open();
      await using stage = new Stage(suite, source, patienceMs);
      await tell(stage);
    });
  };

  story("events arrive with their content and the attributes of a CloudEvent", async (stage) => {
    await stage.begin();
    await stage.source.publish(["one", "two"]);
    await stage.until(() => stage.texts().length >= 2);
    assert.deepEqual([...stage.texts()].sort(), ["one", "two"]);
    for (const { id, source, type, specversion } of stage.events()) {
      assert.equal(specversion, "1.0");
      assert.ok(id !== "" && source !== "" && type !== "");
    }
    assert.equal(stage.state(), "connected");
  });

  if (kind.abilities.replay) {
    story(
      "what is sent while the platform is down is delivered afterwards, and nothing of before again",
      async (stage) => {
        await stage.begin();
        await stage.source.publish(numbered(0, 20));
        await stage.until(() => stage.texts().length >= 20);
        await stage.settled();
        await stage.end();
        await stage.source.publish(numbered(20, 40));
        await stage.begin();
        await stage.until(() => stage.texts().length >= 40);
        assert.deepEqual([...stage.texts()].sort(), [...numbered(0, 40)].sort());
      },
    );

    story("nothing is lost that was on its way when the platform vanished before it was accepted", async (stage) => {
      await stage.begin();
      const opened = Promise.withResolvers<void>();
      stage.durable.queue.gate = opened.promise;
      stage.durable.queue.refusal = new KoineError("shutting-down");
      await stage.source.publish(numbered(0, 10));
      await stage.until(() => stage.received() > 0);
      const ended = stage.end();
      opened.resolve();
      await ended;
      assert.deepEqual(stage.texts(), []);
      stage.durable.queue.refusal = null;
      await stage.begin();
      await stage.until(() => new Set(stage.texts()).size >= 10);
      assert.deepEqual([...new Set(stage.texts())].sort(), [...numbered(0, 10)].sort());
    });

    story("a paused trigger gets nothing, and on resuming what came meanwhile", async (stage) => {
      await stage.begin();
      await stage.source.publish(["before"]);
      await stage.until(() => stage.texts().length >= 1);
      await stage.settled();
      await stage.triggers.setPaused("default", "t", true);
      await stage.source.publish(numbered(0, 5));
      await sleep(300);
      assert.equal(stage.texts().length, 1);
      await stage.triggers.setPaused("default", "t", false);
      await stage.until(() => stage.texts().length >= 6);
      assert.equal(new Set(stage.texts()).size, 6);
    });
  }

  if (suite.startsAtBeginning === true) {
    story("what was there before the trigger is delivered", async (stage) => {
      await stage.source.publish(numbered(0, 3));
      await stage.begin();
      await stage.until(() => stage.texts().length >= 3);
    });
  }

  story("what the filter does not let through is passed over and does not come again", async (stage) => {
    await stage.begin({ filter: { type: ["nothing has this type"] } });
    await stage.source.publish(numbered(0, 5));
    await stage.until(() => stage.triggers.get("default", "t").counts.all().filtered >= 5);
    await stage.settled();
    await stage.end();
    await stage.begin();
    await sleep(300);
    assert.deepEqual(stage.texts(), []);
  });

  story("a batch fills: several events come as one invocation, none twice", async (stage) => {
    await stage.begin({ batch: { size: 5, windowMs: 200 } });
    await stage.source.publish(numbered(0, 12));
    await stage.until(() => stage.texts().length >= 12);
    assert.deepEqual([...stage.texts()].sort(), [...numbered(0, 12)].sort());
    const sizes = stage.durable.queue.accepted.map(({ events }) => events.length);
    assert.ok(Math.max(...sizes) <= 5 && sizes.length < 12, `batches of ${sizes.join(", ")}`);
  });

  if (kind.abilities.ordering) {
    story("events of one key come in the order in which they were sent", async (stage) => {
      await stage.begin({ ordering: "key" });
      await stage.source.publish(numbered(0, 30), "a");
      await stage.until(() => stage.texts().length >= 30);
      assert.deepEqual(stage.texts(), numbered(0, 30));
      assert.ok(stage.events().every((event) => event[PARTITION_KEY] !== undefined));
      assert.equal(new Set(stage.durable.queue.accepted.map(({ item }) => item.options?.orderingKey)).size, 1);
    });
  }

  story("while nothing can be accepted the source waits and loses nothing", async (stage) => {
    await stage.begin();
    stage.durable.queue.refusal = new KoineError("too-many-requests", { name: "f" });
    await stage.source.publish(numbered(0, 10));
    await stage.until(() => stage.received() > 0);
    await sleep(200);
    assert.deepEqual(stage.texts(), []);
    stage.durable.queue.refusal = null;
    await stage.until(() => new Set(stage.texts()).size >= 10);
  });

  restartStories(suite, story);
  settingsStories(suite);
}

function restartStories(
  { kind }: SourceSuite,
  story: (what: string, tell: (stage: Stage) => Promise<void>) => void,
): void {
  story("credentials are in nothing that is shown or written to the log", async (stage) => {
    await stage.begin();
    const values = Object.values(stage.source.secrets ?? {});
    const shown =
      JSON.stringify([...stage.triggers.list("default")].map(({ trigger, runner }) => [trigger, runner?.status])) +
      stage.messages.join("\n");
    assert.deepEqual(
      values.filter((value) => shown.includes(value)),
      [],
    );
    assert.deepEqual([...secretsIn(stage.source.settings)].sort(), Object.keys(stage.source.secrets ?? {}).sort());
  });

  story(
    "a server that cannot be reached is an error that is shown, without secrets, and tried again",
    async (stage) => {
      if (stage.source.unreachable === undefined) return;
      await stage.begin({ settings: stage.source.unreachable, wait: false });
      await stage.until(() => stage.triggers.get("default", "t").runner?.status.error !== null);
      const { runner } = stage.triggers.get("default", "t");
      assert.ok((runner?.status.error?.message ?? "").length > 10);
      const shown = JSON.stringify(runner?.status) + stage.messages.join("\n");
      assert.deepEqual(
        Object.values(stage.source.secrets ?? {}).filter((value) => shown.includes(value)),
        [],
      );
      await stage.until(() => (stage.triggers.get("default", "t").runner?.status.restarts ?? 0) > 1);
    },
  );

  story("the connection is looked at by a test of the trigger", async (stage) => {
    if (kind.check === undefined) return;
    await stage.begin();
    const result = await stage.triggers.test("default", "t", { deliver: false, signal: AbortSignal.timeout(20_000) });
    assert.deepEqual(result.connection, { ok: true, detail: "" });
    if (stage.source.unreachable === undefined) return;
    await stage.triggers.put("default", "t", {
      kind: kind.name,
      target,
      settings: stage.source.unreachable,
      paused: true,
    });
    const failed = await stage.triggers.test("default", "t", { deliver: false, signal: AbortSignal.timeout(20_000) });
    assert.equal(failed.connection?.ok, false);
  });

  story("when the server restarts the source goes on, without loss where the server has none", async (stage) => {
    const { restartServer } = stage.source;
    if (restartServer === undefined) return;
    await stage.begin();
    await stage.source.publish(numbered(0, 10));
    await stage.until(() => stage.texts().length >= 10);
    await restartServer.call(stage.source);
    if (!kind.abilities.replay) await stage.until(() => stage.state() === "connected");
    await stage.source.publish(numbered(10, 20));
    await stage.until(() => new Set(stage.texts()).size >= 20);
  });
}

function settingsStories({ name, kind, wrongSettings }: SourceSuite): void {
  test(`${name}: settings that cannot be meant are refused in words`, () => {
    for (const [settings, says] of wrongSettings) {
      assert.throws(
        () => kind.parse(settings),
        (error) => error instanceof KoineError && error.code === "invalid-trigger" && says.test(error.message),
        `${JSON.stringify(settings)} must be refused with ${says}`,
      );
    }
    assert.throws(() => kind.parse({ surelyNoSetting: 1 }), KoineError);
  });
}

interface Beginning {
  readonly settings?: Readonly<Record<string, unknown>>;
  readonly filter?: unknown;
  readonly batch?: { readonly size: number; readonly windowMs: number };
  readonly ordering?: "none" | "key" | "all";
  /** Whether to wait until the source says that it is connected; default true. */
  readonly wait?: boolean;
}

/** A trigger on its source, on a store that outlives each platform. */
class Stage implements AsyncDisposable {
  readonly source: SourceUnderTest;
  readonly durable: Durable = durable();
  messages: string[] = [];
  readonly #suite: SourceSuite;
  readonly #patienceMs: number;
  #triggers: Triggers | null = null;

  constructor(suite: SourceSuite, source: SourceUnderTest, patienceMs: number) {
    this.#suite = suite;
    this.source = source;
    this.#patienceMs = patienceMs;
  }

  /** Starts a platform; the first makes the trigger, another one finds it stored, and changes it when it is told something. */
  async begin({ settings, filter, batch, ordering, wait = true }: Beginning = {}): Promise<void> {
    const { triggers, secrets, messages } = openTriggers([this.#suite.kind], this.durable, { clock: systemClock });
    this.#triggers = triggers;
    this.messages = messages;
    for (const [name, value] of Object.entries(this.source.secrets ?? {})) await secrets.put("default", name, value, 0);
    await triggers.load();
    await triggers.start();
    const { kind } = this.#suite;
    await triggers.put("default", "t", {
      kind: kind.name,
      target,
      settings: settings ?? this.source.settings,
      filter: filter ?? null,
      ...(batch === undefined ? {} : { batch }),
      ...(ordering === undefined ? {} : { ordering }),
    });
    if (wait) await this.until(() => this.state() === "connected");
  }

  async end(): Promise<void> {
    const triggers = this.#triggers;
    this.#triggers = null;
    await triggers?.stop();
  }

  get triggers(): Triggers {
    if (this.#triggers === null) throw new Error("no platform runs");
    return this.#triggers;
  }

  state(): string {
    return stateOf(this.triggers.get("default", "t"));
  }

  received(): number {
    return this.triggers.get("default", "t").counts.all().received;
  }

  events(): readonly DeliveredEvent[] {
    return eventsIn(this.durable.queue);
  }

  /** The texts of the events that the suite sent, in order of acceptance. */
  texts(): readonly string[] {
    return this.events().flatMap((event) => this.source.textOf(event) ?? []);
  }

  async until(holds: () => boolean): Promise<void> {
    const deadlineMs = performance.now() + this.#patienceMs;
    while (!holds()) {
      if (performance.now() > deadlineMs) {
        const status = JSON.stringify(this.#triggers?.get("default", "t").runner?.status);
        throw new Error(`it did not happen within ${this.#patienceMs} ms; ${this.texts().length} events; ${status}`);
      }
      await sleep(LOOK_MS);
    }
  }

  /** Gives acknowledgements and checkpoints, which follow acceptance, the time to arrive. */
  async settled(): Promise<void> {
    await sleep(200);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.durable.queue.refusal = null;
    await this.end();
  }
}

function numbered(from: number, to: number): readonly string[] {
  return Array.from({ length: to - from }, (_, index) => `n${String(from + index).padStart(4, "0")}`);
}
