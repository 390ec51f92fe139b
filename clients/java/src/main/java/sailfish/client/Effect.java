package sailfish.client;

/** What {@link ClientCore} wants done by whoever drives it, in the order in which it comes. */
public abstract class Effect {
    private Effect() {}

    /**
     * Connect, and call {@link ClientCore#connected} or {@link ClientCore#disconnected}. There is no other
     * connection.
     */
    public static final class Connect extends Effect {
        public final Endpoint endpoint;

        Connect(Endpoint endpoint) {
            this.endpoint = endpoint;
        }

        @Override
        public String toString() {
            return "connect " + endpoint;
        }
    }

    /** Close the connection, or give up the attempt to make it. Nothing more is expected of it. */
    public static final class Disconnect extends Effect {
        @Override
        public String toString() {
            return "disconnect";
        }
    }

    /**
     * Ask the token provider, and call {@link ClientCore#token} or {@link ClientCore#noToken}. One is asked
     * for at a time.
     */
    public static final class FetchToken extends Effect {
        @Override
        public String toString() {
            return "fetch token";
        }
    }

    /**
     * Give the message to the application, then call {@link ClientCore#taken} or {@link ClientCore#notTaken}.
     */
    public static final class Deliver extends Effect {
        public final Message message;

        Deliver(Message message) {
            this.message = message;
        }

        @Override
        public String toString() {
            return message.toString();
        }
    }

    /** Tell the application. */
    public abstract static class Tell extends Effect {
        private final String text;

        Tell(String text) {
            this.text = text;
        }

        public abstract void to(Listener listener);

        /** Returns whether this is the last effect until the client is started again. */
        public boolean endsClient() {
            return false;
        }

        @Override
        public String toString() {
            return text;
        }
    }
}
