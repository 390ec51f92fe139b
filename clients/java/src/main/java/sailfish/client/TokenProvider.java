package sailfish.client;

/**
 * Where login tokens come from. The client asks when it has none, when the one it has is about to end, and
 * after the server has refused one.
 */
public interface TokenProvider {
    /**
     * Returns a token. It runs on a thread of its own, so it may block, for example on a request to the
     * application's backend. After an exception, or null, the client asks again later.
     */
    Token token() throws Exception;
}
