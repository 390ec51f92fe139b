package sailfish.client;

import java.util.List;

/**
 * What the server says about the session or a packet; section 8 of the protocol has the codes. After one
 * below 100 the connection ends.
 */
public final class Notice {
    public static final int KICKED = 1;
    public static final int DRAINING = 2;
    public static final int RATE_LIMITED = 3;
    public static final int IDLE_TIMEOUT = 4;
    public static final int SLOW_READER = 5;
    public static final int BAD_MAGIC = 10;
    public static final int BAD_CODE = 11;
    public static final int BAD_LENGTH = 12;
    public static final int BAD_BODY = 13;
    public static final int LOGIN_REQUIRED = 20;
    public static final int LOGIN_TIMEOUT = 21;
    public static final int TOKEN_INVALID = 22;
    public static final int TOKEN_EXPIRED = 23;
    public static final int ALREADY_LOGGED_IN = 24;
    public static final int ADDRESS_LIMIT = 30;
    public static final int SERVER_FULL = 31;
    public static final int NOT_MEMBER = 100;
    public static final int NO_ROUTE = 101;
    public static final int ROOM_LIMIT = 102;
    public static final int BUSY = 103;
    public static final int TOO_LONG = 104;
    public static final int BAD_CONTENT = 105;

    private static final Object[] NAMES = {
        KICKED, "kicked", DRAINING, "draining", RATE_LIMITED, "rate_limited", IDLE_TIMEOUT, "idle_timeout",
        SLOW_READER, "slow_reader", BAD_MAGIC, "bad_magic", BAD_CODE, "bad_code", BAD_LENGTH, "bad_length",
        BAD_BODY, "bad_body", LOGIN_REQUIRED, "login_required", LOGIN_TIMEOUT, "login_timeout",
        TOKEN_INVALID, "token_invalid", TOKEN_EXPIRED, "token_expired", ALREADY_LOGGED_IN, "already_logged_in",
        ADDRESS_LIMIT, "address_limit", SERVER_FULL, "server_full", NOT_MEMBER, "not_member",
        NO_ROUTE, "no_route", ROOM_LIMIT, "room_limit", BUSY, "busy", TOO_LONG, "too_long",
        BAD_CONTENT, "bad_content",
    };

    public final int code;

    /**
     * The code's name in the protocol, such as {@code draining}; {@code notice 77} for one that is not known.
     */
    public final String name;

    /** How long to wait before the next connect; the client does. */
    public final long retryAfterMs;

    /** A line for people. */
    public final String text;

    /** Other nodes that take this one's clients, as {@code host:port}; the client tries them. */
    public final List<String> alternatives;

    Notice(int code, long retryAfterMs, String text, List<String> alternatives) {
        this.code = code;
        this.name = name(code);
        this.retryAfterMs = retryAfterMs;
        this.text = text;
        this.alternatives = alternatives;
    }

    boolean endsConnection() {
        return code < 100;
    }

    /** Returns whether this client did what no client should: trying again at once will hardly help. */
    boolean blamesClient() {
        return code >= BAD_MAGIC && code <= LOGIN_REQUIRED || code == ALREADY_LOGGED_IN;
    }

    private static String name(int code) {
        for (int i = 0; i < NAMES.length; i += 2) {
            if ((Integer) NAMES[i] == code) {
                return (String) NAMES[i + 1];
            }
        }
        return "notice " + code;
    }

    @Override
    public String toString() {
        return name + " (" + text + ")";
    }
}
