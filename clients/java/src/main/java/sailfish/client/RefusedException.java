package sailfish.client;

/** The client did not take a message. Nothing has been sent, and nothing will be. */
public final class RefusedException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** Why a message was not taken. */
    public enum Reason {
        /** As many messages as may be kept wait for their send-acks: slow down, and send it again later. */
        STORE_FULL,
        /** The payload or the client_msg_id is too long. */
        TOO_LONG,
        /** A message with the same client_msg_id waits for its send-ack. */
        SAME_ID
    }

    public final Reason reason;

    RefusedException(Reason reason, String message) {
        super(message);
        this.reason = reason;
    }
}
