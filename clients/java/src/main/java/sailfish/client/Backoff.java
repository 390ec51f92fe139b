package sailfish.client;

import java.util.Random;

/**
 * Waits that double up to twenty times the first one, each with chance in it, so that clients do not come all
 * at once.
 */
final class Backoff {
    private static final int STEPS_MAX = 20;

    private final long firstMs;
    private final Random random;
    private int failures;

    Backoff(long firstMs, Random random) {
        this.firstMs = firstMs;
        this.random = random;
    }

    void reset() {
        failures = 0;
    }

    /** Makes the next wait as long as waits get. */
    void exhaust() {
        failures = STEPS_MAX;
    }

    /** Returns a wait between 75 % and 125 % of the nominal one, which doubles with each call. */
    long nextMs() {
        long nominal = nominalMs(firstMs, failures);
        failures++;
        return (long) (nominal * (0.75 + 0.5 * random.nextDouble()));
    }

    /** Returns the nominal wait after that many failures. */
    static long nominalMs(long firstMs, int failures) {
        return firstMs * Math.min(STEPS_MAX, 1L << Math.min(failures, 10));
    }

    /** Returns the nominal wait and up to a quarter more. */
    static long atLeast(long nominalMs, Random random) {
        return (long) (nominalMs * (1 + 0.25 * random.nextDouble()));
    }
}
