package sailfish.client;

import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import javax.net.ssl.SSLSocketFactory;

/**
 * A session with Sailfish that keeps itself alive. It logs in, stays in its rooms, sends what it was given
 * until the server has said what became of it, and comes back by itself when the connection goes.
 *
 * <pre>{@code
 * Client client = Client.builder("tcp://127.0.0.1:5346").token("...").build();
 * client.join(7);
 * client.start(new Listener() {
 *     public void onMessage(Message message) {
 *         System.out.println(message.sender + ": " + message.text());
 *     }
 * });
 * client.sendToRoom(7, "hello");
 * }</pre>
 *
 * <p>All methods may be called from any thread, Android's main thread included: none but {@link #run} and
 * {@link #awaitSent} blocks.
 */
public final class Client {
    /** The business code of a room's chat in the server's default route table. */
    public static final int ROOM_CHAT = 5555;
    /** The business code of a message to a user in the server's default route table. */
    public static final int USER_MESSAGE = 6001;
    /** The business code of a hint to a user, such as typing, in the server's default route table. */
    public static final int USER_HINT = 6002;

    /** While so many bytes wait to be looked at, no more are read from the connection. */
    private static final int INBOX_BYTES_MAX = 256 << 10;
    /** A timer that is so late was not late by chance. */
    private static final long LATE_MS = 500;
    /** How long the reading thread gets then. */
    private static final long READ_MS = 100;

    private final ClientCore core;
    private final Options options;
    private final TokenProvider tokens;
    private final SSLSocketFactory sslSocketFactory;
    private final boolean daemon;

    /** Guards all that follows, the core included. */
    private final Object lock = new Object();
    private final ArrayDeque<Runnable> inbox = new ArrayDeque<>();
    private int inboxBytes;
    private Connection connection;
    /** Whether the connection is made and has written what it was given. */
    private boolean writable;
    private boolean running;
    private boolean poked;
    private long userId;

    private Client(Builder builder) {
        core = new ClientCore(builder.endpoints, builder.options, new SecureRandom());
        options = builder.options;
        tokens = builder.tokens;
        sslSocketFactory = builder.sslSocketFactory;
        daemon = builder.daemon;
    }

    /**
     * Begins to describe a client.
     *
     * @param addresses of gateways, in order of preference; {@link Endpoint} says how they look
     */
    public static Builder builder(String... addresses) {
        return new Builder(addresses);
    }

    /** Starts the client on a thread of its own. */
    public void start(final Listener listener) {
        begin();
        Thread thread = new Thread(new Runnable() {
            @Override
            public void run() {
                loop(listener);
            }
        }, "sailfish");
        thread.setDaemon(daemon);
        thread.start();
    }

    /** Runs the client on the caller's thread until it has ended. */
    public void run(Listener listener) {
        begin();
        loop(listener);
    }

    /**
     * Joins a room and stays in it through all reconnects; missed messages that the server still has are
     * fetched.
     */
    public void join(long room) {
        join(room, History.NONE);
    }

    /** Joins a room, with what has been said in it before. */
    public void join(long room, History history) {
        synchronized (lock) {
            core.join(room, history, now());
            poke();
        }
    }

    public void leave(long room) {
        synchronized (lock) {
            core.leave(room, now());
            poke();
        }
    }

    /** Says something in a room that has been joined, or is being joined. Returns its client_msg_id. */
    public String sendToRoom(long room, String text) {
        return send(ROOM_CHAT, room, text.getBytes(StandardCharsets.UTF_8));
    }

    /** Sends a message to a user. Returns its client_msg_id. */
    public String sendToUser(long user, String text) {
        return send(USER_MESSAGE, user, text.getBytes(StandardCharsets.UTF_8));
    }

    /**
     * Sends a business packet until its send-ack comes, which {@link Listener#onOutcome} tells. The server
     * gives none for a lossy code that goes to a user: use {@link #hint} for those.
     *
     * @param target the user or room that the server's route table wants for this code; 0 for none
     * @return its client_msg_id
     * @throws RefusedException if the client cannot take it, above all if too many wait for their send-acks
     */
    public String send(int bizCode, long target, byte[] payload) {
        String clientMsgId = UUID.randomUUID().toString();
        send(bizCode, target, payload, clientMsgId);
        return clientMsgId;
    }

    /**
     * The same, under a client_msg_id of the application's own: so a message that it has kept over its own
     * end is sent again, and shown once. Ids have to be unique for each sender.
     */
    public void send(int bizCode, long target, byte[] payload, String clientMsgId) {
        synchronized (lock) {
            core.send(new Unsent(bizCode, target, clientMsgId, payload.clone()), now());
            poke();
        }
    }

    /**
     * Sends a packet that is worth nothing later, once and without an outcome.
     *
     * @return false if it was dropped, as the client is not online or has sent too much
     */
    public boolean hint(int bizCode, long target, byte[] payload) {
        synchronized (lock) {
            boolean sent = core.hint(bizCode, target, payload, now());
            poke();
            return sent;
        }
    }

    /**
     * For an app that hears of the network's return, or comes to the foreground: connects now, or checks the
     * connection.
     */
    public void networkChanged() {
        synchronized (lock) {
            core.check(now());
            poke();
        }
    }

    /**
     * Logs out and ends. It returns at once: the client has ended when {@link #run} returns or {@link
     * Listener#onEnded} is called. Messages without a send-ack stay in {@link #unsent}; {@link #awaitSent}
     * waits for them.
     */
    public void close() {
        synchronized (lock) {
            core.close(now());
            poke();
        }
    }

    /** Returns the messages without a send-ack, in the order in which they were sent. */
    public List<Unsent> unsent() {
        synchronized (lock) {
            return core.unsent();
        }
    }

    /**
     * Waits until each message has its outcome; returns false if some have none in time. Not for the
     * listener's thread.
     */
    public boolean awaitSent(long timeoutMs) throws InterruptedException {
        long end = now() + timeoutMs;
        synchronized (lock) {
            while (core.hasUnsent()) {
                long left = end - now();
                if (left <= 0) {
                    return false;
                }
                lock.wait(left);
            }
            return true;
        }
    }

    public boolean isOnline() {
        synchronized (lock) {
            return core.isOnline();
        }
    }

    /**
     * Returns the user whom the latest token names, or 0 if there was no token yet, or one that cannot be
     * read.
     */
    public long userId() {
        synchronized (lock) {
            return userId;
        }
    }

    // The thread.

    private void begin() {
        synchronized (lock) {
            if (running) {
                throw new IllegalStateException("the client runs already");
            }
            running = true;
            core.start(now());
            poke();
        }
    }

    private void loop(Listener listener) {
        List<Effect> effects = new ArrayList<>();
        boolean ended = false;
        try {
            while (!ended) {
                effects.clear();
                synchronized (lock) {
                    awaitWork();
                    takeInputs();
                    core.tick(now());
                    takeEffects(effects);
                    writeOutput();
                }
                for (Effect effect : effects) {
                    ended |= perform(effect, listener);
                }
            }
        } finally {
            if (!ended) {
                disconnect();
            }
        }
    }

    private void awaitWork() {
        long left = untilWake();
        while (inbox.isEmpty() && !poked && left > 0) {
            waitFor(left);
            left = untilWake();
        }
        // A process that stood still finds its deadlines past while what the server said in time is not read
        // yet.
        if (inbox.isEmpty() && left < -LATE_MS) {
            waitFor(READ_MS);
        }
        poked = false;
    }

    private long untilWake() {
        long wake = core.wakeAt();
        return wake == Long.MAX_VALUE ? Long.MAX_VALUE : wake - now();
    }

    private void waitFor(long ms) {
        try {
            lock.wait(ms == Long.MAX_VALUE ? 0 : ms);
        } catch (InterruptedException e) {
            // Whoever interrupts this thread wants it to end.
            core.close(now());
            poked = true;
        }
    }

    private void takeInputs() {
        Runnable input = inbox.poll();
        while (input != null) {
            input.run();
            input = inbox.poll();
        }
    }

    private void takeEffects(List<Effect> effects) {
        Effect effect = core.poll();
        while (effect != null) {
            effects.add(effect);
            effect = core.poll();
        }
    }

    private void writeOutput() {
        if (connection != null && writable) {
            byte[] bytes = core.output(now());
            if (bytes.length > 0) {
                writable = false;
                connection.write(bytes);
            }
        }
    }

    /** Returns true when the client has ended. */
    private boolean perform(Effect effect, Listener listener) {
        if (effect instanceof Effect.Connect) {
            open(((Effect.Connect) effect).endpoint);
        } else if (effect instanceof Effect.Disconnect) {
            disconnect();
        } else if (effect instanceof Effect.FetchToken) {
            fetchToken();
        } else if (effect instanceof Effect.Deliver) {
            deliver(((Effect.Deliver) effect).message, listener);
        } else {
            return tell((Effect.Tell) effect, listener);
        }
        return false;
    }

    private void deliver(Message message, Listener listener) {
        boolean taken = true;
        try {
            listener.onMessage(message);
        } catch (Exception e) {
            taken = false;
            listener.onError(e);
        }
        synchronized (lock) {
            if (taken) {
                core.taken(message, now());
            } else {
                core.notTaken(message);
            }
            poked = true;
        }
    }

    private boolean tell(Effect.Tell effect, Listener listener) {
        boolean ended = effect.endsClient();
        synchronized (lock) {
            running = running && !ended;
            lock.notifyAll();
        }
        try {
            effect.to(listener);
        } catch (RuntimeException e) {
            listener.onError(e);
        }
        return ended;
    }

    private void fetchToken() {
        Thread thread = new Thread(new Runnable() {
            @Override
            public void run() {
                askForToken();
            }
        }, "sailfish-token");
        thread.setDaemon(true);
        thread.start();
    }

    private void askForToken() {
        Token token = null;
        String failure = "the provider gave none";
        try {
            token = tokens.token();
        } catch (Throwable e) {
            // An error, too: nobody else would tell the client that no token comes.
            failure = e.toString();
        }
        synchronized (lock) {
            if (token == null) {
                core.noToken(failure, now());
            } else {
                userId = token.user();
                core.token(token.text, token.lifetimeMs(System.currentTimeMillis()), now());
            }
            poke();
        }
    }

    private void open(Endpoint endpoint) {
        Connection fresh = new Connection(endpoint, sslSocketFactory, options.connectMs, new Inputs());
        synchronized (lock) {
            connection = fresh;
            writable = false;
        }
        fresh.open();
    }

    private void disconnect() {
        Connection old;
        synchronized (lock) {
            old = connection;
            connection = null;
            // Readers that wait for space belong to connections that are gone.
            lock.notifyAll();
        }
        if (old != null) {
            old.close();
        }
    }

    private void poke() {
        poked = true;
        lock.notifyAll();
    }

    private static long now() {
        return System.nanoTime() / 1_000_000;
    }

    /**
     * Brings what a connection says to the client's thread. What a connection says that has been replaced is
     * dropped.
     */
    private final class Inputs implements Connection.Owner {
        @Override
        public void onConnected(final Connection from) {
            put(from, 0, new Runnable() {
                @Override
                public void run() {
                    writable = true;
                    core.connected(now());
                }
            });
        }

        @Override
        public void onBytes(Connection from, byte[] bytes, int length) throws InterruptedException {
            final byte[] copy = new byte[length];
            System.arraycopy(bytes, 0, copy, 0, length);
            synchronized (lock) {
                while (inboxBytes > INBOX_BYTES_MAX && from == connection) {
                    lock.wait();
                }
            }
            put(from, length, new Runnable() {
                @Override
                public void run() {
                    core.received(copy, 0, copy.length, now());
                }
            });
        }

        @Override
        public void onWritten(Connection from) {
            put(from, 0, new Runnable() {
                @Override
                public void run() {
                    writable = true;
                }
            });
        }

        @Override
        public void onEnd(Connection from, final String reason) {
            put(from, 0, new Runnable() {
                @Override
                public void run() {
                    core.disconnected(reason, now());
                }
            });
        }

        private void put(final Connection from, final int bytes, final Runnable input) {
            synchronized (lock) {
                inboxBytes += bytes;
                inbox.add(new Runnable() {
                    @Override
                    public void run() {
                        inboxBytes -= bytes;
                        lock.notifyAll();
                        if (from == connection) {
                            input.run();
                        }
                    }
                });
                lock.notifyAll();
            }
        }
    }

    /** Describes a client. */
    public static final class Builder {
        private final List<Endpoint> endpoints = new ArrayList<>();
        private Options options = new Options();
        private TokenProvider tokens;
        private SSLSocketFactory sslSocketFactory;
        private boolean daemon;

        private Builder(String[] addresses) {
            for (String address : addresses) {
                endpoints.add(Endpoint.parse(address));
            }
        }

        /** Where login tokens come from. */
        public Builder token(TokenProvider provider) {
            tokens = provider;
            return this;
        }

        /** One token for as long as it is good: for trials and tools. */
        public Builder token(final String token) {
            return token(new TokenProvider() {
                @Override
                public Token token() {
                    return Token.of(token);
                }
            });
        }

        public Builder options(Options options) {
            this.options = options;
            return this;
        }

        /**
         * Whom to trust in TLS, if not those whom the platform trusts. The host's name is checked in any
         * case.
         */
        public Builder sslSocketFactory(SSLSocketFactory factory) {
            sslSocketFactory = factory;
            return this;
        }

        /**
         * Lets the process end while the client runs. Without this, it keeps the process alive until it has
         * ended.
         */
        public Builder daemon(boolean daemon) {
            this.daemon = daemon;
            return this;
        }

        /**
         * Makes the client; {@link Client#start} begins.
         *
         * @throws IllegalStateException if no token provider was given
         */
        public Client build() {
            if (tokens == null) {
                throw new IllegalStateException("a client needs a token or a token provider");
            }
            return new Client(this);
        }
    }
}
