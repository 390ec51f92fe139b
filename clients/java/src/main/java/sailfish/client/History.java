package sailfish.client;

/**
 * What a first join asks of a room's history. Joins after a reconnect ask for what has been missed, by
 * themselves.
 */
public final class History {
    /** Nothing: only what is said from now on. */
    public static final History NONE = new History(0, 0);

    final int want;
    final long value;

    private History(int want, long value) {
        this.want = want;
        this.value = value;
    }

    /** The room's last messages, up to that many. */
    public static History last(long count) {
        return count > 0 ? new History(Wire.WANT_LAST, count) : NONE;
    }

    /** All after a sequence, such as one that the application remembered when it ended. */
    public static History since(long sequence) {
        return new History(Wire.WANT_SINCE, sequence);
    }
}
