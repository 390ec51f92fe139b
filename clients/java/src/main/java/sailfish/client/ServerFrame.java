package sailfish.client;

/** A decoded frame of the server; which fields have a value, the code says. */
final class ServerFrame {
    final int code;
    long heartbeatMs;
    long room;
    long sequence;
    Recovery recovery;
    Message message;
    Outcome outcome;
    Notice notice;

    ServerFrame(int code) {
        this.code = code;
    }
}
