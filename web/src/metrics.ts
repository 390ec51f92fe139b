/** What a node counts, in the text form of Prometheus, and what became more of it between two looks. */

/** Values by name, then by the labels as they are written; those of shards added up. */
export type Sample = Map<string, Map<string, number>>;

export function parse(text: string): Sample {
  const sample: Sample = new Map();
  for (const line of text.split("\n")) {
    const parts = /^([a-z_]+)(?:\{([^}]*)\})? (\S+)$/.exec(line);
    if (parts === null) continue;
    const [, name = "", labels = "", value] = parts;
    const kept = labels
      .split(",")
      .filter((label) => !label.startsWith("shard="))
      .join(",");
    const values = sample.get(name) ?? new Map<string, number>();
    values.set(kept, (values.get(kept) ?? 0) + Number(value));
    sample.set(name, values);
  }
  return sample;
}

/** A value, or the sum of those with a label in them. */
export function total(sample: Sample, name: string, label = ""): number {
  let sum = 0;
  for (const [labels, value] of sample.get(name) ?? []) if (labels.includes(label)) sum += value;
  return sum;
}

/** The quantile of a histogram's increase, in its unit: the upper bound of the bucket in which it lies. */
export function quantile(before: Sample, after: Sample, name: string, part: number): number | undefined {
  const buckets = [...(after.get(`${name}_bucket`) ?? [])].map(([labels, value]) => {
    const bound = /le="([^"]+)"/.exec(labels)?.[1] ?? "";
    const old = before.get(`${name}_bucket`)?.get(labels) ?? 0;
    return { bound: bound === "+Inf" ? Infinity : Number(bound), count: value - old };
  });
  buckets.sort((a, b) => a.bound - b.bound);
  const all = buckets.at(-1)?.count ?? 0;
  return all === 0 ? undefined : buckets.find(({ count }) => count >= all * part)?.bound;
}
