package sailfish.client;

/** RFC 4648, as far as it is needed: Android has java.util.Base64 from API level 26 on only. */
final class Base64 {
    private static final String ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    private Base64() {}

    /** Returns the standard form, padded. */
    static String encode(byte[] bytes) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < bytes.length; i += 3) {
            int left = Math.min(3, bytes.length - i);
            int group = 0;
            for (int j = 0; j < 3; j++) {
                group = group << 8 | (j < left ? bytes[i + j] & 0xff : 0);
            }
            for (int j = 0; j < 4; j++) {
                text.append(j <= left ? ALPHABET.charAt(group >> 18 - 6 * j & 63) : '=');
            }
        }
        return text.toString();
    }

    /** Reads the form for URLs, padded or not; returns null for what is none. */
    static byte[] decodeUrl(String text) {
        Buffer out = new Buffer(text.length());
        int bits = 0;
        int count = 0;
        for (char c : text.toCharArray()) {
            int value = c == '-' ? 62 : c == '_' ? 63 : c == '=' || c == '+' || c == '/' ? -1 : ALPHABET.indexOf(c);
            if (c == '=') {
                continue;
            }
            if (value < 0) {
                return null;
            }
            bits = bits << 6 | value;
            count += 6;
            if (count >= 8) {
                count -= 8;
                out.u8(bits >> count);
            }
        }
        return out.takeAll();
    }
}
