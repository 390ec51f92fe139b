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

/** The quantile of a histogram's increase, in its unit, as far as its buckets tell; of those with a label. */
export function quantile(
  before: Sample,
  after: Sample,
  name: string,
  part: number,
  label = "",
): number | undefined {
  const increase = new Map<number, number>();
  for (const [labels, value] of after.get(`${name}_bucket`) ?? []) {
    if (!labels.includes(label)) continue;
    const le = /le="([^"]+)"/.exec(labels)?.[1] ?? "";
    const bound = le === "+Inf" ? Infinity : Number(le);
    // A node that began anew counts from 0.
    const more = Math.max(value - (before.get(`${name}_bucket`)?.get(labels) ?? 0), 0);
    increase.set(bound, (increase.get(bound) ?? 0) + more);
  }
  const buckets = [...increase].sort(([a], [b]) => a - b);
  const wanted = (buckets.at(-1)?.[1] ?? 0) * part;
  if (wanted === 0) return undefined;
  let [lower, below] = [0, 0];
  for (const [bound, count] of buckets) {
    if (count >= wanted) {
      return bound === Infinity ? bound : lower + ((bound - lower) * (wanted - below)) / (count - below);
    }
    [lower, below] = [bound, count];
  }
  return undefined;
}
