package sailfish.client;

/**
 * How fast this client sends by itself: a token bucket. The server closes a connection that sends more frames
 * than it may (1,000 a second and 2,000 at once by default), so this stays below that, with room for acks and
 * heartbeats.
 */
final class Pace {
    private static final double PER_SECOND_MIN = 50;

    private double perSecond = 800;
    private double burst = 1000;
    private double tokens = burst;
    private long filledMs;

    /** A fresh connection has a fresh budget. */
    void restart(long nowMs) {
        tokens = burst;
        filledMs = nowMs;
    }

    /** The server said that this was too fast. */
    void slowDown() {
        perSecond = Math.max(PER_SECOND_MIN, perSecond / 2);
        burst = Math.max(PER_SECOND_MIN, burst / 2);
        tokens = Math.min(tokens, burst);
    }

    boolean take(long nowMs) {
        tokens = Math.min(burst, tokens + (nowMs - filledMs) * perSecond / 1000);
        filledMs = nowMs;
        if (tokens < 1) {
            return false;
        }
        tokens--;
        return true;
    }

    /** Returns when the next frame may be sent. */
    long wakeAt() {
        return filledMs + (long) Math.ceil(Math.max(0, 1 - tokens) * 1000 / perSecond);
    }
}
