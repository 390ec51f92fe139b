package sailfish.client;

import java.nio.charset.StandardCharsets;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A login token: a JSON Web Token that the application's backend signs. The client reads its claims without
 * checking the signature, which is the server's to check.
 */
public final class Token {
    public final String text;
    private final String claims;
    private final long lifetimeMs;

    private Token(String text, long lifetimeMs) {
        this.text = text;
        this.lifetimeMs = lifetimeMs;
        this.claims = claims(text);
    }

    /** A token whose end is its {@code exp}, by the clock of this device. */
    public static Token of(String text) {
        return new Token(text, -1);
    }

    /**
     * A token that the backend said to be good for so long from now on: this does not depend on the device's
     * clock.
     */
    public static Token of(String text, long lifetimeMs) {
        return new Token(text, lifetimeMs);
    }

    /** Returns the user whom the token names, or 0 if it cannot be read. */
    public long user() {
        return claim("user");
    }

    /** Returns how long the token is good, or -1 if nothing says so. */
    long lifetimeMs(long wallClockMs) {
        long expires = claim("exp");
        if (lifetimeMs >= 0 || expires <= 0) {
            return lifetimeMs;
        }
        return Math.max(0, expires * 1000 - wallClockMs);
    }

    private long claim(String name) {
        Matcher matcher = Pattern.compile("\"" + name + "\"\\s*:\\s*(\\d{1,18})").matcher(claims);
        return matcher.find() ? Long.parseLong(matcher.group(1)) : 0;
    }

    private static String claims(String text) {
        String[] parts = text.split("\\.");
        byte[] decoded = parts.length == 3 ? Base64.decodeUrl(parts[1]) : null;
        return decoded == null ? "" : new String(decoded, StandardCharsets.UTF_8);
    }
}
