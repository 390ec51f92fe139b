package sailfish.client;

/** Unsigned 64-bit numbers in decimal, which Android's Long cannot print before API level 26. */
final class Unsigned {
    private Unsigned() {}

    static String text(long value) {
        if (value >= 0) {
            return Long.toString(value);
        }
        long tenth = (value >>> 1) / 5;
        return Long.toString(tenth) + (value - tenth * 10);
    }
}
