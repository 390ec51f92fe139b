package sailfish.client;

/**
 * What carries frames between the protocol and a byte stream: nothing, on TCP, or WebSocket. It does no I/O.
 */
interface Carrier {
    /** Begins a connection; writes to the wire what has to be said before frames. */
    void open(Buffer wire);

    /** Whether frames may be sent. */
    boolean isOpen();

    /**
     * Takes bytes off the wire; appends those of frames to {@code frames}, and answers of the carrier's own
     * to {@code wire}.
     */
    void receive(Buffer in, Buffer frames, Buffer wire) throws ProtocolException;

    /** Wraps whole frames for the wire. */
    void send(byte[] frames, Buffer wire);

    /** Returns what the server said when it closed, or null if it has not. */
    CloseFrame closed();

    /** The code and reason of WebSocket's Close frame. */
    final class CloseFrame {
        final int code;
        final String reason;

        CloseFrame(int code, String reason) {
            this.code = code;
            this.reason = reason;
        }
    }

    /** Frames as they are. */
    final class Plain implements Carrier {
        @Override
        public void open(Buffer wire) {}

        @Override
        public boolean isOpen() {
            return true;
        }

        @Override
        public void receive(Buffer in, Buffer frames, Buffer wire) {
            frames.put(in.takeAll());
        }

        @Override
        public void send(byte[] frames, Buffer wire) {
            wire.put(frames);
        }

        @Override
        public CloseFrame closed() {
            return null;
        }
    }
}
