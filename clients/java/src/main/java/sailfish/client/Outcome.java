package sailfish.client;

/**
 * What has become of a message that this client sent: the server's send-ack. It comes once for each message.
 */
public final class Outcome {
    /** What is true of the message. */
    public enum Kind {
        /** A client of the receiver has acked the message. */
        DELIVERED,
        /** No client of the receiver has acked it; the backend keeps it for the receiver. */
        STORED,
        /** The message has its place in the room's order. */
        SEQUENCED,
        /** The backend took the packet. */
        ANSWERED,
        /** See {@link #reason}. */
        FAILED
    }

    /** Why a message failed. */
    public enum Reason {
        /** The receiver has no live session. */
        OFFLINE,
        /** The receiver's client did not ack in time; it may have seen the message all the same. */
        UNACKED,
        /** The receiver's connection ended before its ack; it may have seen the message all the same. */
        DISCONNECTED,
        /** The receiver reads too slowly, or its server is full. */
        OVERFLOW,
        /** This client is not in that room: join it first. */
        NOT_MEMBER,
        /** The server has no route for that business code, or the target is missing. */
        NO_ROUTE,
        /** Never told to applications: the client sends again by itself. */
        BUSY,
        /** The frame that would deliver it could be too long. */
        TOO_LONG,
        /** A value in the packet is of no use. */
        BAD_CONTENT,
        /** A reason that this version of the library does not know. */
        UNKNOWN;

        static Reason of(long number) {
            return number >= 1 && number <= 9 ? values()[(int) number - 1] : UNKNOWN;
        }
    }

    public final String clientMsgId;

    public final Kind kind;

    /** Why it failed; null if it did not. */
    public final Reason reason;

    /** The server's name of the message, an unsigned number; 0 if it got none. */
    public final long messageId;

    /** The message's place in the room's order if it was sequenced, else 0. */
    public final long sequence;

    Outcome(String clientMsgId, Kind kind, Reason reason, long messageId, long sequence) {
        this.clientMsgId = clientMsgId;
        this.kind = kind;
        this.reason = reason;
        this.messageId = messageId;
        this.sequence = sequence;
    }

    /** Returns whether the message is where it was to go. */
    public boolean succeeded() {
        return kind != Kind.FAILED;
    }

    @Override
    public String toString() {
        String detail = kind == Kind.FAILED ? " " + reason : kind == Kind.SEQUENCED ? " " + sequence : "";
        return "outcome of " + clientMsgId + ": " + kind + detail;
    }
}
