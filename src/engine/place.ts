/** What is known about one version and its node at the moment an invocation arrives. */
export interface PlaceView {
  /** Slots of ready instances that nobody holds. */
  readonly freeSlots: number;
  /** Invocations of the version that wait already. */
  readonly waiting: number;
  /** Slots that instances now starting will bring. */
  readonly startingSlots: number;
  /** Slots that all versions of the function hold. */
  readonly functionSlotsTaken: number;
  /** Most slots the function may hold; null: no bound of its own. */
  readonly functionSlotsMax: number | null;
  readonly nodeInstances: number;
  /** Memory that the node's instances are expected to need, and one more of this version. */
  readonly nodeMemoryBytes: number;
  readonly instanceMemoryBytes: number;
}

export interface NodeBounds {
  readonly instancesMax: number;
  readonly memoryBytesMax: number;
  readonly waitQueueLengthMax: number;
}

/**
 * The answer for an Invocation. `start` and `makeRoom` imply that it waits in the queue meanwhile; `makeRoom` asks to stop an idle
 * instance of another version first.
 */
export type Placement = "reuse" | "start" | "makeRoom" | "queue" | "reject";

/** Decides in constant time; capacity is checked before the queue so that a full queue never starts instances. */
export function place(view: PlaceView, bounds: NodeBounds): Placement {
  const mayRun = view.functionSlotsMax === null || view.functionSlotsTaken < view.functionSlotsMax;
  if (mayRun && view.freeSlots > 0 && view.waiting === 0) return "reuse";
  if (view.waiting >= bounds.waitQueueLengthMax) return "reject";
  const ahead = view.waiting + 1;
  if (!wantsStart(view, ahead)) return "queue";
  return hasRoom(view, bounds) ? "start" : "makeRoom";
}

/** Whether those who wait need one more instance than is starting, within what the function may hold. */
export function wantsStart(view: PlaceView, waiting: number): boolean {
  if (waiting <= view.startingSlots + view.freeSlots) return false;
  if (view.functionSlotsMax === null) return true;
  return view.functionSlotsTaken + view.startingSlots + view.freeSlots < view.functionSlotsMax;
}

export function hasRoom(
  view: Pick<PlaceView, "nodeInstances" | "nodeMemoryBytes" | "instanceMemoryBytes">,
  bounds: NodeBounds,
): boolean {
  return (
    view.nodeInstances < bounds.instancesMax && view.nodeMemoryBytes + view.instanceMemoryBytes <= bounds.memoryBytesMax
  );
}
