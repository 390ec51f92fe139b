package sailfish.client;

/** The times and bounds of a client. The defaults fit a server with default configuration. */
public final class Options {
    int storeCountMax = 1024;
    long storeBytesMax = 4 << 20;
    int seenMax = 8192;
    int payloadBytesMax = 60 << 10;
    long repeatMs = 65_000;
    long busyMs = 1_000;
    long backoffMs = 250;
    long connectMs = 10_000;
    long loginMs = 15_000;

    /** How many messages without a send-ack are kept (1024), and how many bytes of them (4 MiB). */
    public Options store(int countMax, long bytesMax) {
        storeCountMax = countMax;
        storeBytesMax = bytesMax;
        return this;
    }

    /** How many messages are remembered to drop their repeats (8192). */
    public Options seen(int max) {
        seenMax = max;
        return this;
    }

    /** How long a payload may be (60 KiB); the server takes frames up to 64 KiB by default. */
    public Options payloadBytes(int max) {
        payloadBytesMax = max;
        return this;
    }

    /** How long a message waits for its send-ack before it is sent again (65 s). */
    public Options repeatMs(long ms) {
        repeatMs = ms;
        return this;
    }

    /** The first wait after {@code busy} (1 s); it doubles each time up to 20 times as much. */
    public Options busyMs(long ms) {
        busyMs = ms;
        return this;
    }

    /** The first wait before a reconnect (250 ms); it doubles each time up to 20 times as much. */
    public Options backoffMs(long ms) {
        backoffMs = ms;
        return this;
    }

    /** How long a connect may take, with TLS and the WebSocket's handshake (10 s). */
    public Options connectMs(long ms) {
        connectMs = ms;
        return this;
    }

    /** How long the answer to a login may take (15 s). */
    public Options loginMs(long ms) {
        loginMs = ms;
        return this;
    }
}
