package sailfish.client;

/**
 * What a client tells its application. All calls come one after the other on the client's own thread, so a
 * call that blocks holds up all that the client does, heartbeats included: hand long work to another thread.
 * The client's methods may be called from here.
 */
public interface Listener {
    /**
     * A login on a new connection was answered. Rooms are joined again and unsent messages sent again from
     * here on.
     */
    default void onOnline() {}

    /**
     * A connection was lost or could not be made, or there is no token; the next try comes after {@code
     * retryMs}.
     */
    default void onOffline(String reason, long retryMs) {}

    /**
     * A message came, for the first time. When this returns, the message counts as safe and is acked if the
     * server wants that. After an exception it is not: the server sends it again.
     */
    default void onMessage(Message message) throws Exception {}

    /** What has become of a message that this client sent. It comes once for each. */
    default void onOutcome(Outcome outcome) {}

    /**
     * A join was answered: the first one, or one after a reconnect. The answer to a join by which the client
     * asked for messages that it missed on a live connection comes only if it is {@link Recovery#TOO_OLD}.
     * After {@code TOO_OLD} messages of the room are missing that this client cannot get by itself. Kept
     * messages follow.
     */
    default void onJoined(long room, long sequence, Recovery recovery) {}

    /**
     * Messages of a room with sequences above {@code after}, up to {@code sequence}, may be missing, because
     * the server does not have all of them any more. Those that it has kept still come. The difference is not
     * how many are missing: sequences leap when a room gets another owner, and {@code sequence} may even be
     * the lower one. This comes after {@link #onJoined}.
     */
    default void onGap(long room, long after, long sequence) {}

    /** The client has left a room that it was asked to leave. */
    default void onLeft(long room) {}

    /**
     * The session is in as many rooms as it may be, so it is not in this one, and the client does not try
     * again.
     */
    default void onJoinRefused(long room, Notice notice) {}

    /** The server said something; the client does by itself what is to be done. */
    default void onNotice(Notice notice) {}

    /**
     * A method of this listener threw. The client goes on; this prints it, unless the application has a
     * better place.
     */
    default void onError(Exception error) {
        System.err.println("a listener of Sailfish threw:");
        error.printStackTrace();
    }

    /** The client has ended, and its thread with it. {@link Client#start} begins again. */
    default void onEnded(Ended reason) {}
}
