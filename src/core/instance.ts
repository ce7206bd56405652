/**
 * The life of an Instance as one value. Edges act (boot, kill, stop); this file says what may follow what.
 *
 *   starting ──ready──► idle ⇄ busy          idle ⇄ frozen
 *       │                 │      │
 *       └──── stop ───────┴──────┴─► draining ──► stopped
 */
export type InstanceState =
  | { readonly kind: "starting"; readonly sinceMs: number }
  | { readonly kind: "idle"; readonly sinceMs: number }
  | { readonly kind: "busy"; readonly slotsTaken: number; readonly sinceMs: number }
  | { readonly kind: "frozen"; readonly sinceMs: number; readonly idleSinceMs: number }
  | { readonly kind: "draining"; readonly slotsTaken: number; readonly sinceMs: number }
  | { readonly kind: "stopped"; readonly sinceMs: number };

export type InstanceEvent =
  | { readonly kind: "ready" }
  | { readonly kind: "acquired" }
  | { readonly kind: "released" }
  | { readonly kind: "froze" }
  | { readonly kind: "thawed" }
  | { readonly kind: "drain" }
  | { readonly kind: "ended" };

/** @throws Error for a transition that cannot happen: that is a defect of the platform. */
export function transition(state: InstanceState, event: InstanceEvent, nowMs: number): InstanceState {
  const sinceMs = nowMs;
  switch (event.kind) {
    case "ready":
      if (state.kind === "starting") return { kind: "idle", sinceMs };
      break;
    case "acquired":
      if (state.kind === "idle") return { kind: "busy", slotsTaken: 1, sinceMs };
      if (state.kind === "busy") return { ...state, slotsTaken: state.slotsTaken + 1 };
      break;
    case "released":
      if (state.kind === "busy" && state.slotsTaken === 1) return { kind: "idle", sinceMs };
      if (state.kind === "busy") return { ...state, slotsTaken: state.slotsTaken - 1 };
      if (state.kind === "draining" && state.slotsTaken > 0) return { ...state, slotsTaken: state.slotsTaken - 1 };
      if (state.kind === "stopped") return state;
      break;
    case "froze":
      if (state.kind === "idle") return { kind: "frozen", sinceMs, idleSinceMs: state.sinceMs };
      break;
    case "thawed":
      if (state.kind === "frozen") return { kind: "idle", sinceMs: state.idleSinceMs };
      break;
    case "drain":
      if (state.kind === "busy") return { kind: "draining", slotsTaken: state.slotsTaken, sinceMs };
      if (state.kind === "draining" || state.kind === "stopped") return state;
      return { kind: "draining", slotsTaken: 0, sinceMs };
    case "ended":
      return state.kind === "stopped" ? state : { kind: "stopped", sinceMs };
    default:
      return event satisfies never;
  }
  throw new Error(`an instance that is ${state.kind} cannot be ${event.kind}`);
}

/** Slots that are taken in a state. */
export function slotsTaken(state: InstanceState): number {
  return state.kind === "busy" || state.kind === "draining" ? state.slotsTaken : 0;
}

/** Since when nobody has used an instance; null while somebody does, and when it cannot be used any more. */
export function idleSinceMs(state: InstanceState): number | null {
  if (state.kind === "frozen") return state.idleSinceMs;
  return state.kind === "idle" ? state.sinceMs : null;
}
