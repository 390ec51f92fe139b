/**
 * Waits that grow twofold with each failure, up to 20 times the first, each of them between 75 % and 125 % of
 * that by chance.
 */
export class Backoff {
  private failures = 0;

  constructor(
    private readonly firstMs: number,
    private readonly random: () => number,
  ) {}

  next(): number {
    const nominal = nominalMs(this.firstMs, this.failures);
    this.failures += 1;
    return nominal * (0.75 + this.random() / 2);
  }

  reset(): void {
    this.failures = 0;
  }
}

/** The wait after so many failures before this one, without chance. */
export function nominalMs(firstMs: number, failures: number): number {
  return Math.min(firstMs * 2 ** Math.min(failures, 10), firstMs * 20);
}
