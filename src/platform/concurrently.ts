/**
 * Runs a task for every item, a few at a time. After the first failure no further item is begun; the promise settles only when all that
 * had begun are over, so that what they worked on can be removed.
 */
export async function concurrently<Item>(
  items: readonly Item[],
  tasksMax: number,
  task: (item: Item) => Promise<void>,
): Promise<void> {
  let next = 0;
  let failure: { readonly thrown: unknown } | null = null;
  const lane = async (): Promise<void> => {
    while (failure === null) {
      const item = items[next++];
      if (item === undefined) return;
      try {
        await task(item);
      } catch (thrown) {
        failure ??= { thrown };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(tasksMax, items.length) }, lane));
  const ended = failure as { readonly thrown: unknown } | null;
  if (ended !== null) throw ended.thrown;
}
