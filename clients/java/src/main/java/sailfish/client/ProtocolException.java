package sailfish.client;

/** The server sent what the protocol does not have. The connection cannot go on. */
final class ProtocolException extends Exception {
    private static final long serialVersionUID = 1L;

    ProtocolException(String message) {
        super(message);
    }
}
