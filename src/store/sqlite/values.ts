import type { DatabaseSync } from "node:sqlite";
import { KoineError } from "../../core/errors.ts";
import type { Counters } from "./counters.ts";
import { integer, Statements, text, type Row, type Writes } from "./database.ts";

export const valuesSchema = `
  CREATE TABLE entries (
    collection TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, json TEXT NOT NULL,
    PRIMARY KEY (collection, key)) WITHOUT ROWID`;

/** A value as it travels between the threads: its JSON text. */
export interface StoredValue {
  readonly key: string;
  readonly json: string;
  readonly revision: number;
}

export interface StoredChange {
  readonly collection: string;
  readonly key: string;
  /** Null deletes. */
  readonly json: string | null;
  readonly expect: number | "absent" | "any";
}

export type ValuesOperations = ReturnType<typeof valuesOperations>;

export function valuesOperations(database: DatabaseSync, writes: Writes, counters: Counters) {
  const select = database.prepare("SELECT key, json, revision FROM entries WHERE collection = ? AND key = ?");
  const put = writes.prepare("INSERT OR REPLACE INTO entries (collection, key, revision, json) VALUES (?, ?, ?, ?)");
  const remove = writes.prepare("DELETE FROM entries WHERE collection = ? AND key = ?");
  const statements = new Statements(database);

  return {
    valueGet(collection: string, key: string): StoredValue | null {
      const row = select.get(collection, key);
      return row === undefined ? null : toValue(row);
    },

    valueList(collection: string, prefix: string, after: string | null, limit: number): StoredValue[] {
      const end = endOfPrefix(prefix);
      const rows = statements.all(
        `SELECT key, json, revision FROM entries WHERE collection = ? AND key >= ?
         ${after === null ? "" : "AND key > ?"} ${end === null ? "" : "AND key < ?"} ORDER BY key LIMIT ?`,
        [collection, prefix, ...(after === null ? [] : [after]), ...(end === null ? [] : [end]), limit],
      );
      return rows.map(toValue);
    },

    valueCommit(changes: readonly StoredChange[]): number[] {
      for (const { collection, key, expect } of changes) {
        if (expect === "any") continue;
        const row = select.get(collection, key);
        const found = row === undefined ? "absent" : integer(row, "revision");
        if (found !== expect) throw new KoineError("conflict", { name: key });
      }
      return changes.map(({ collection, key, json }) => {
        if (json === null) {
          remove.run(collection, key);
          return 0;
        }
        const revision = counters.next("revision");
        put.run(collection, key, revision, json);
        return revision;
      });
    },
  };
}

function toValue(row: Row): StoredValue {
  return { key: text(row, "key"), json: text(row, "json"), revision: integer(row, "revision") };
}

const CODE_POINT_MAX = 0x10_ff_ff;
const SURROGATES_FIRST = 0xd8_00;
const SURROGATES_END = 0xe0_00;

/** The smallest text greater than all that begin with the prefix, in the order of UTF-8 bytes; null: there is none. */
function endOfPrefix(prefix: string): string | null {
  const codePoints = Array.from(prefix, (character) => character.codePointAt(0) ?? 0);
  while (codePoints.at(-1) === CODE_POINT_MAX) codePoints.pop();
  const last = codePoints.pop();
  if (last === undefined) return null;
  const next = last + 1 === SURROGATES_FIRST ? SURROGATES_END : last + 1;
  return String.fromCodePoint(...codePoints, next);
}
