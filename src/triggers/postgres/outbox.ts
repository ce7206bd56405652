import { z } from "zod";
import { KoineError } from "../../core/errors.ts";
import { type CloudEvent, PARTITION_KEY } from "../../core/event.ts";
import { limits } from "../../core/limits.ts";
import { Every } from "../connection/every.ts";
import { type Emit, type PullKind, pullKind, type SourceHost, type TriggerSource } from "../trigger.ts";
import { connect, connectionSettings, type Database, Nap, quoted, quotedWhole, sourceOf } from "./connect.ts";

const LAG_EVERY_MS = 10_000;
/** Rows that wait are counted up to here: counting more of a large table costs more than the figure is worth. */
const LAG_ROWS_MAX = 10_000;
const POLL_MS_DEFAULT = 1_000;
const BATCH_DEFAULT = 500;

const column = (description: string) =>
  z
    .string()
    .regex(/^[A-Za-z_][\w$]{0,62}$/, "must be the name of a column")
    .meta({ description });

const schema = z.strictObject({
  ...connectionSettings,
  table: z
    .string()
    .regex(/^[A-Za-z_][\w$]{0,62}(?:\.[A-Za-z_][\w$]{0,62})?$/, "must be the name of a table, maybe with its schema")
    .meta({ description: "The table, maybe with its schema; exactly as it is written in the catalogue." }),
  id: column("Its key, by which rows are taken in order.").default("id"),
  payload: column("The column that is the event's data; else data is the whole row.").optional(),
  type: column("The column that is the event's type.").optional(),
  subject: column("The column that is the event's subject.").optional(),
  key: column("The column that is the partitionkey; else all rows have the same.").optional(),
  time: column("The column with the time of the event.").optional(),
  done: column("A column of a time, which is set once a row is accepted; without it rows are deleted then.").optional(),
  channel: z
    .string()
    .min(1)
    .max(63)
    .optional()
    .meta({ description: "A channel whose notifications say that there are new rows: they wake, no more." }),
  pollMs: z
    .int()
    .min(50)
    .max(3_600_000)
    .default(POLL_MS_DEFAULT)
    .meta({ description: "Longest time between two looks at the table." }),
  batch: z
    .int()
    .min(1)
    .max(limits.triggerInFlightMax)
    .default(BATCH_DEFAULT)
    .meta({ description: "Most rows of one look, which are locked until they are accepted." }),
});

type Settings = z.output<typeof schema>;

interface Row {
  readonly id: string;
  readonly version: string;
  readonly row: Readonly<Record<string, unknown>>;
}

/** Rows of an outbox table, each deleted or marked once it is accepted. */
export function createPostgresOutboxKind(): PullKind {
  return pullKind({
    name: "postgres-outbox",
    summary: "rows of an outbox table in PostgreSQL",
    settings: schema,
    abilities: { ordering: true, replay: true },
    open: (settings, host) => new Outbox(settings, host),
    async check(settings, host, signal) {
      const database = await connect(settings, host, signal);
      try {
        await columnType(database, settings);
        await database.client.query(claim(settings), [0]);
      } finally {
        await database.close();
      }
    },
    sample: (settings) => {
      const { id, payload, type, subject, key } = settings;
      const row = {
        [id]: 1,
        ...(type === undefined ? {} : { [type]: "order.paid" }),
        ...(subject === undefined ? {} : { [subject]: "order 17" }),
        ...(key === undefined ? {} : { [key]: "17" }),
        [payload ?? "payload"]: { hello: "world" },
      };
      return rowEvent(settings, { id: "1", version: "1", row });
    },
  });
}

class Outbox implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;

  constructor(settings: Settings, host: SourceHost) {
    this.#settings = settings;
    this.#host = host;
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    const { channel, pollMs, batch } = this.#settings;
    await using opened = new AsyncDisposableStack();
    const rows = opened.adopt(await connect(this.#settings, this.#host, signal), (database) => database.close());
    const nap = new Nap();
    const losses = [rows.lost];
    if (channel !== undefined) {
      // Of its own, because notifications wait while their connection is in a transaction.
      const news = opened.adopt(await connect(this.#settings, this.#host, signal), (database) => database.close());
      news.client.on("notification", () => nap.wake());
      await news.client.query(`LISTEN ${quotedWhole(channel)}`);
      losses.push(news.lost);
    }
    const done = finish(this.#settings, await columnType(rows, this.#settings));
    this.#host.report({ state: "connected", detail: `table ${this.#settings.table}` });
    const lag = new Every(this.#host.clock, LAG_EVERY_MS);
    for (;;) {
      signal.throwIfAborted();
      if (lag.isDue()) await this.#reportLag(rows);
      const taken = await this.#take(rows, emit, done);
      if (taken < batch) await Promise.race([nap.take(this.#host, pollMs, signal), ...losses]);
    }
  }

  /**
   * Takes what is there: rows stay locked until they are accepted, so that others of the same table take other ones, and none is deleted that was not
   * accepted. A crash in between unlocks them, and they come again, under the same ids.
   */
  async #take({ client }: Database, emit: Emit, done: string): Promise<number> {
    await client.query("BEGIN");
    try {
      const { rows } = await client.query<Row>(claim(this.#settings), [this.#settings.batch]);
      if (rows.length > 0) {
        await Promise.all(rows.map((row) => emit(rowEvent(this.#settings, row))));
        await client.query(done, [rows.map(({ id }) => id)]);
      }
      await client.query("COMMIT");
      return rows.length;
    } catch (thrown) {
      await client.query("ROLLBACK").catch(() => {});
      throw thrown;
    }
  }

  async #reportLag({ client }: Database): Promise<void> {
    const { table, time } = this.#settings;
    const oldest = time === undefined ? "NULL" : "extract(epoch FROM min(at)) * 1000";
    const at = time === undefined ? "NULL" : quoted(time);
    const first = `SELECT ${at} AS at FROM ${quoted(table)} ${waiting(this.#settings)} LIMIT ${LAG_ROWS_MAX}`;
    const text = `SELECT count(*)::int AS events, ${oldest} AS oldest FROM (${first}) AS waiting`;
    const { rows } = await client.query<{ readonly events: number; readonly oldest: string | null }>(text);
    const [found] = rows;
    const oldestMs = found?.oldest === undefined || found.oldest === null ? null : Number(found.oldest);
    const ms = oldestMs === null ? null : Math.max(0, this.#host.clock.nowMs() - oldestMs);
    this.#host.report({ lag: { events: found?.events ?? null, ms: found?.events === 0 ? 0 : ms } });
  }
}

/** At most `$1` rows that wait, in order, none that another has locked. The row's version tells keys apart that are used anew after a TRUNCATE. */
function claim(settings: Settings): string {
  const { table, id } = settings;
  const columns = `waiting.${quoted(id)}::text AS id, waiting.xmin::text AS version, to_jsonb(waiting) AS row`;
  const order = `ORDER BY waiting.${quoted(id)} LIMIT $1`;
  return `SELECT ${columns} FROM ${quoted(table)} AS waiting ${waiting(settings)} ${order} FOR UPDATE SKIP LOCKED`;
}

function waiting({ done }: Settings): string {
  return done === undefined ? "" : `WHERE ${quoted(done)} IS NULL`;
}

/** What makes rows not wait any more, by their keys. */
function finish({ table, id, done }: Settings, type: string): string {
  const which = `WHERE ${quoted(id)} = ANY($1::${type}[])`;
  return done === undefined
    ? `DELETE FROM ${quoted(table)} ${which}`
    : `UPDATE ${quoted(table)} SET ${quoted(done)} = now() ${which}`;
}

/** The key's type as the catalogue writes it. @throws KoineError `source-failed` when there is no such table or column */
async function columnType({ client }: Database, { table, id }: Settings): Promise<string> {
  const text = `SELECT format_type(atttypid, NULL) AS type FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2`;
  const { rows } = await client.query<{ readonly type: string }>(text, [quoted(table), id]);
  if (rows[0] !== undefined) return rows[0].type;
  throw new KoineError("source-failed", { detail: `there is no table '${table}' with a column '${id}'` });
}

function rowEvent(settings: Settings, { id, version, row }: Row): CloudEvent {
  const { url, table, payload, type, subject, key, time } = settings;
  const text = (name: string | undefined): string | null => {
    const value = name === undefined ? null : (row[name] ?? null);
    if (value === null) return null;
    return typeof value === "string" ? value : JSON.stringify(value);
  };
  const at = Date.parse(text(time) ?? "");
  const about = text(subject);
  return {
    specversion: "1.0",
    id: `${id}:${version}`,
    source: `${sourceOf(url)}/${table}`,
    type: text(type) ?? "koine.postgres.row",
    ...(about === null ? {} : { subject: about }),
    ...(Number.isNaN(at) ? {} : { time: new Date(at).toISOString() }),
    datacontenttype: "application/json",
    data: payload === undefined ? row : (row[payload] ?? null),
    extensions: { [PARTITION_KEY]: text(key) ?? table },
  };
}
