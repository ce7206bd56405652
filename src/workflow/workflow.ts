import type { FunctionRef } from "../core/function.ts";
import type { Outcome } from "../core/invocation.ts";

/**
 * The contract of workflows: a Run is the fold of its history, and what happens next is decided purely from that fold. `fold.ts`,
 * `decide.ts` and `engine.ts` stand beside this file; the engine receives `invoke` as a parameter, so that this folder knows no engine of instances.
 */
export type WorkflowEvent =
  | { readonly kind: "runStarted"; readonly atMs: number; readonly input: unknown }
  | { readonly kind: "stepStarted"; readonly atMs: number; readonly step: string; readonly attempt: number }
  | {
      readonly kind: "stepEnded";
      readonly atMs: number;
      readonly step: string;
      readonly attempt: number;
      readonly outcome: Outcome;
      readonly output: unknown;
    }
  | { readonly kind: "runEnded"; readonly atMs: number; readonly output: unknown; readonly failed: boolean };

export type WorkflowDecision =
  | { readonly kind: "invoke"; readonly step: string; readonly ref: FunctionRef; readonly input: unknown }
  | { readonly kind: "waitUntil"; readonly atMs: number }
  | { readonly kind: "endRun"; readonly output: unknown; readonly failed: boolean };
