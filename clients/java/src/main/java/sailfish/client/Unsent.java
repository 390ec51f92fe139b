package sailfish.client;

import java.nio.charset.StandardCharsets;

/** A message that this client sends, and keeps until its send-ack. */
public final class Unsent {
    public final int bizCode;
    public final long target;
    public final String clientMsgId;
    public final byte[] payload;

    /** Its place among all that this client sent. */
    long number;
    /** When it was last written to the connection. */
    long writtenMs;
    /** How often the server said that this client is not in the room. */
    int notMember;

    Unsent(int bizCode, long target, String clientMsgId, byte[] payload) {
        this.bizCode = bizCode;
        this.target = target;
        this.clientMsgId = clientMsgId;
        this.payload = payload;
    }

    int bytes() {
        return payload.length + 2 * clientMsgId.length() + 64;
    }

    void write(Buffer out) {
        Wire.business(out, bizCode, target, clientMsgId.getBytes(StandardCharsets.UTF_8), payload);
    }
}
