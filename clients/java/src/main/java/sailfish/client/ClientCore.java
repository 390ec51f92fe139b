package sailfish.client;

import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/**
 * The rules of a client (docs/PROTOCOL.md, section 10) as a state machine without I/O. Bytes, the time and
 * the application's wishes go in; bytes, effects and the time of the next timer come out. {@link Client}
 * drives it; so may any other I/O.
 *
 * <p>After any call: take {@link #poll} until it returns null, write {@link #output} whenever the connection
 * takes bytes, and call {@link #tick} at {@link #wakeAt} at the latest. Hand in all bytes that have come
 * before a tick, so that a server is not taken for silent while its bytes wait to be read. Times are
 * milliseconds of any clock that only goes forward. Nothing here is safe for several threads.
 */
public final class ClientCore {
    /**
     * The application's messages wait while so many bytes wait to be written, which bounds what a slow
     * connection costs.
     */
    private static final int OUTPUT_BYTES_MAX = 64 << 10;
    private static final long ACKS_EVERY_MS = 10;
    private static final long LOGOUT_MS = 2_000;
    private static final long TOKEN_MARGIN_MS = 1_000;
    private static final long RENEW_BEFORE_MS_MAX = 60_000;
    private static final long DEFAULT_HEARTBEAT_MS = 30_000;
    /** A server cannot send a client away for longer. */
    private static final long RETRY_AFTER_MS_MAX = 600_000;
    /** How long a connection may be silent after {@link #check}. */
    private static final long CHECK_MS = 5_000;
    private static final int NOT_MEMBER_TRIES = 3;
    /** On WebSocket, a Close frame carries the number of a notice above this. */
    private static final int CLOSE_CODE_NOTICE = 4000;
    private static final byte[] NO_ECHO = {};
    private static final long NEVER = Long.MAX_VALUE;

    private enum Phase {
        /** Not started, or ended. */
        IDLE,
        WAITING,
        FETCHING_TOKEN,
        CONNECTING,
        OPENING,
        LOGGING_IN,
        ONLINE,
        LOGGING_OUT
    }

    private final Options options;
    private final Random random;
    private final Route route;
    private final Outbox outbox;
    private final Rooms rooms;
    private final Seen seen;
    private final Backoff backoff;
    private final Pace pace = new Pace();
    private final ArrayDeque<Effect> effects = new ArrayDeque<>();

    private Phase phase = Phase.IDLE;
    /** When the phase has lasted too long, or the wait is over. */
    private long phaseUntilMs = NEVER;

    private Carrier carrier;
    private final Buffer wireIn = new Buffer(4096);
    private final Buffer framesIn = new Buffer(4096);
    private final Buffer framesOut = new Buffer(4096);
    private final Buffer wireOut = new Buffer(4096);

    private long heartbeatMs = DEFAULT_HEARTBEAT_MS;
    private long sentMs;
    private long receivedMs;
    /** Until when any frame has to come, as a heartbeat asks for one; NEVER if none does. */
    private long answerUntilMs = NEVER;

    private String token;
    private long tokenEndsMs = NEVER;
    private boolean fetching;
    private long renewMs = NEVER;
    private boolean renewing;
    private int renewalFailures;

    private final List<Long> acks = new ArrayList<>();
    private long acksMs;

    private long workedMs;
    /** Whether messages wait because the client may not send faster. */
    private boolean paceHolds;

    /**
     * Makes a client that is not started.
     *
     * @param endpoints where to connect, in order of preference
     * @param random chance in waits; for WebSocket it has to be a SecureRandom outside of tests
     */
    public ClientCore(List<Endpoint> endpoints, Options options, Random random) {
        this.options = options;
        this.random = random;
        this.route = new Route(endpoints);
        this.outbox = new Outbox(options.storeCountMax, options.storeBytesMax, options.busyMs, random);
        this.rooms = new Rooms(options.busyMs, random);
        this.seen = new Seen(options.seenMax);
        this.backoff = new Backoff(options.backoffMs, random);
    }

    // What the application wants.

    /** Connects and stays connected, until {@link #close} or a kick. */
    public void start(long now) {
        if (phase == Phase.IDLE) {
            backoff.reset();
            attempt(now);
        }
    }

    /** Logs out and ends. */
    public void close(long now) {
        if (phase == Phase.ONLINE) {
            writeAcks(now);
            Wire.logout(framesOut);
            enter(Phase.LOGGING_OUT, now + LOGOUT_MS);
        } else if (phase != Phase.IDLE && phase != Phase.LOGGING_OUT) {
            end(Ended.LOGOUT, now);
        }
    }

    /**
     * Takes a message and sends it until its send-ack comes.
     *
     * @throws RefusedException if it cannot be taken
     */
    public void send(Unsent message, long now) {
        int idBytes = message.clientMsgId.getBytes(StandardCharsets.UTF_8).length;
        if (idBytes == 0 || idBytes > Wire.CLIENT_MSG_ID_BYTES_MAX) {
            throw new RefusedException(RefusedException.Reason.TOO_LONG, "a client_msg_id has 1 to 64 bytes");
        }
        checkPayload(message.payload);
        if (outbox.contains(message.clientMsgId)) {
            throw new RefusedException(RefusedException.Reason.SAME_ID,
                    "a message " + message.clientMsgId + " waits for its send-ack");
        }
        if (!outbox.add(message)) {
            throw new RefusedException(RefusedException.Reason.STORE_FULL,
                    "as many messages as may be kept wait for their send-acks");
        }
        work(now);
    }

    /**
     * Sends a packet without a client_msg_id, if that can be done at once: for what is worth nothing later,
     * such as typing.
     *
     * @return false if it was dropped
     */
    public boolean hint(int bizCode, long target, byte[] payload, long now) {
        checkPayload(payload);
        boolean can = phase == Phase.ONLINE && framesOut.size() < OUTPUT_BYTES_MAX && !rooms.holds(target);
        if (!can || !pace.take(now)) {
            return false;
        }
        Wire.business(framesOut, bizCode, target, NO_ECHO, payload);
        return true;
    }

    /** Joins a room and stays in it, whatever becomes of connections. */
    public void join(long room, History history, long now) {
        rooms.add(room, history, now);
        work(now);
    }

    /** Leaves a room. */
    public void leave(long room, long now) {
        if (rooms.remove(room) && phase == Phase.ONLINE) {
            Wire.leave(framesOut, room);
        }
        work(now);
    }

    /**
     * Something speaks for a change of the network: ends a wait at once, and finds out whether the connection
     * lives.
     */
    public void check(long now) {
        if (phase == Phase.WAITING) {
            attempt(now);
        } else if (phase == Phase.ONLINE && answerUntilMs > now + CHECK_MS) {
            Wire.heartbeat(framesOut, NO_ECHO);
            answerUntilMs = now + CHECK_MS;
        }
    }

    /** Returns the messages without a send-ack, in the order in which they were sent. */
    public List<Unsent> unsent() {
        return outbox.list();
    }

    public boolean hasUnsent() {
        return !outbox.isEmpty();
    }

    /** Returns whether a login has been answered on a connection that lives. */
    public boolean isOnline() {
        return phase == Phase.ONLINE;
    }

    // What the driver has to say.

    /**
     * The token provider gave a token; {@code lifetimeMs} is how long it is good, -1 if that is not known.
     */
    public void token(String text, long lifetimeMs, long now) {
        fetching = false;
        boolean changed = !text.equals(token);
        token = text;
        tokenEndsMs = lifetimeMs < 0 ? NEVER : now + lifetimeMs;
        if (phase == Phase.FETCHING_TOKEN) {
            connect(now);
        } else if (phase == Phase.ONLINE && changed && !renewing) {
            renewing = true;
            Wire.login(framesOut, token);
        } else if (phase == Phase.ONLINE) {
            renewalFailed(now);
        }
        work(now);
    }

    /** The token provider failed. */
    public void noToken(String reason, long now) {
        fetching = false;
        if (phase == Phase.FETCHING_TOKEN) {
            offline("no token: " + reason, 0, now);
        } else if (phase == Phase.ONLINE) {
            renewalFailed(now);
        }
    }

    /** The connection is made. */
    public void connected(long now) {
        if (phase != Phase.CONNECTING) {
            return;
        }
        Endpoint endpoint = route.current();
        carrier = endpoint.isWebSocket() ? new WebSocket(endpoint, random) : new Carrier.Plain();
        carrier.open(wireOut);
        enter(Phase.OPENING, phaseUntilMs);
        opened(now);
    }

    /** The connection could not be made, or has ended. */
    public void disconnected(String reason, long now) {
        if (carrier != null || phase == Phase.CONNECTING) {
            lost(reason, 0, now);
        }
    }

    /** Bytes came. */
    public void received(byte[] bytes, int offset, int length, long now) {
        if (carrier == null) {
            return;
        }
        wireIn.put(bytes, offset, length);
        try {
            carrier.receive(wireIn, framesIn, wireOut);
            opened(now);
            ServerFrame frame = Wire.next(framesIn);
            while (frame != null) {
                receivedMs = now;
                answerUntilMs = NEVER;
                onFrame(frame, now);
                if (carrier == null) {
                    return;
                }
                frame = Wire.next(framesIn);
            }
            if (carrier.closed() != null) {
                onClose(carrier.closed(), now);
            }
        } catch (ProtocolException e) {
            lost(e.getMessage(), 0, now);
        }
        work(now);
    }

    /** The application has the message. */
    public void taken(Message message, long now) {
        for (Message copy : seen.taken(message)) {
            ack(copy);
        }
        work(now);
    }

    /** The application could not take the message: the server is to send it again. */
    public void notTaken(Message message) {
        seen.forget(message);
    }

    /** Time has passed. */
    public void tick(long now) {
        if (phaseUntilMs <= now) {
            phaseEnded(now);
        }
        if (phase == Phase.ONLINE) {
            heartbeat(now);
        }
        if (phase == Phase.ONLINE && renewMs <= now && !fetching && !renewing) {
            fetchToken();
        }
        rooms.tick(now);
        work(now);
    }

    /** Returns when {@link #tick} is wanted at the latest; the largest long if nothing is waited for. */
    public long wakeAt() {
        long wake = phaseUntilMs;
        if (phase == Phase.ONLINE) {
            wake = Math.min(wake, answerUntilMs != NEVER ? answerUntilMs : Math.min(sentMs, receivedMs) + heartbeatMs);
            wake = Math.min(wake, fetching || renewing ? NEVER : renewMs);
            wake = Math.min(wake, acks.isEmpty() ? NEVER : acksMs + ACKS_EVERY_MS);
            // While the connection takes no bytes, it is output() that goes on with these.
            if (framesOut.size() < OUTPUT_BYTES_MAX) {
                wake = Math.min(wake, rooms.wakeAt());
                wake = Math.min(wake, outbox.wakeAt(workedMs, options.repeatMs));
                wake = Math.min(wake, paceHolds ? pace.wakeAt() : NEVER);
            }
        }
        return wake;
    }

    /** Returns the next thing to do; null if there is none. */
    public Effect poll() {
        return effects.poll();
    }

    /** Returns bytes to write to the connection; empty if there are none. What it returns counts as sent. */
    public byte[] output(long now) {
        if (carrier != null && carrier.isOpen()) {
            work(now);
            if (!framesOut.isEmpty()) {
                carrier.send(framesOut.takeAll(), wireOut);
                sentMs = now;
            }
        }
        return wireOut.takeAll();
    }

    // The life of a connection.

    private void enter(Phase next, long untilMs) {
        phase = next;
        phaseUntilMs = untilMs;
    }

    private void attempt(long now) {
        if (token != null && tokenEndsMs - now > TOKEN_MARGIN_MS) {
            connect(now);
        } else {
            enter(Phase.FETCHING_TOKEN, NEVER);
            fetchToken();
        }
    }

    private void fetchToken() {
        if (!fetching) {
            fetching = true;
            effects.add(new Effect.FetchToken());
        }
    }

    private void connect(long now) {
        enter(Phase.CONNECTING, now + options.connectMs);
        effects.add(new Effect.Connect(route.next()));
    }

    /** Logs in as soon as the carrier lets frames through. */
    private void opened(long now) {
        if (phase == Phase.OPENING && carrier.isOpen()) {
            Wire.login(framesOut, token);
            enter(Phase.LOGGING_IN, now + options.loginMs);
        }
    }

    private void phaseEnded(long now) {
        switch (phase) {
            case WAITING:
                attempt(now);
                break;
            case CONNECTING:
            case OPENING:
                lost("no connection in time", 0, now);
                break;
            case LOGGING_IN:
                lost("no answer to the login in time", 0, now);
                break;
            case LOGGING_OUT:
                end(Ended.LOGOUT, now);
                break;
            default:
                throw new IllegalStateException("no phase but these has an end");
        }
    }

    /** The connection is of no use any more. */
    private void lost(String reason, long retryAfterMs, long now) {
        boolean loggingOut = phase == Phase.LOGGING_OUT;
        if (phase == Phase.ONLINE) {
            route.stay();
        }
        dropConnection(now);
        if (loggingOut) {
            end(Ended.LOGOUT, now);
        } else {
            offline(reason, retryAfterMs, now);
        }
    }

    private void dropConnection(long now) {
        if (carrier != null || phase == Phase.CONNECTING) {
            effects.add(new Effect.Disconnect());
        }
        carrier = null;
        wireIn.clear();
        framesIn.clear();
        framesOut.clear();
        wireOut.clear();
        acks.clear();
        renewing = false;
        renewMs = NEVER;
        answerUntilMs = NEVER;
        outbox.connectionLost();
        rooms.connectionLost(now);
    }

    private void offline(final String reason, long retryAfterMs, long now) {
        final long waitMs = Math.max(Math.min(retryAfterMs, RETRY_AFTER_MS_MAX), backoff.nextMs());
        enter(Phase.WAITING, now + waitMs);
        effects.add(new Effect.Tell("offline: " + reason) {
            @Override
            public void to(Listener listener) {
                listener.onOffline(reason, waitMs);
            }
        });
    }

    private void end(final Ended reason, long now) {
        dropConnection(now);
        enter(Phase.IDLE, NEVER);
        effects.add(new Effect.Tell("ended: " + reason) {
            @Override
            public void to(Listener listener) {
                listener.onEnded(reason);
            }

            @Override
            public boolean endsClient() {
                return true;
            }
        });
    }

    private void heartbeat(long now) {
        if (answerUntilMs <= now) {
            lost("no answer to a heartbeat", 0, now);
        } else if (answerUntilMs == NEVER && Math.min(sentMs, receivedMs) + heartbeatMs <= now) {
            Wire.heartbeat(framesOut, NO_ECHO);
            answerUntilMs = now + heartbeatMs;
        }
    }

    // Frames.

    private void onFrame(ServerFrame frame, long now) throws ProtocolException {
        switch (frame.code) {
            case Wire.LOGIN:
                onLoggedIn(frame.heartbeatMs, now);
                break;
            case Wire.LOGOUT:
                lost("the server logged this client out", 0, now);
                break;
            case Wire.BUSINESS:
                onMessage(frame.message, now);
                break;
            case Wire.SEND_ACK:
                onOutcome(frame.outcome, now);
                break;
            case Wire.NOTICE:
                onNotice(frame.notice, now);
                break;
            case Wire.JOIN:
                onJoined(frame, now);
                break;
            case Wire.LEAVE:
                onLeft(frame.room);
                break;
            default:
                // An answer to a heartbeat is a sign of life, and nothing more.
        }
    }

    private void onLoggedIn(long periodMs, long now) {
        heartbeatMs = periodMs > 0 ? periodMs : DEFAULT_HEARTBEAT_MS;
        planRenewal(now);
        if (phase != Phase.LOGGING_IN) {
            return;
        }
        enter(Phase.ONLINE, NEVER);
        backoff.reset();
        pace.restart(now);
        sentMs = now;
        acksMs = now - ACKS_EVERY_MS;
        effects.add(new Effect.Tell("online") {
            @Override
            public void to(Listener listener) {
                listener.onOnline();
            }
        });
    }

    private void planRenewal(long now) {
        renewing = false;
        renewalFailures = 0;
        long leftMs = tokenEndsMs - now;
        renewMs = tokenEndsMs == NEVER ? NEVER : tokenEndsMs - Math.min(leftMs / 4, RENEW_BEFORE_MS_MAX);
    }

    private void renewalFailed(long now) {
        renewMs = now + Backoff.atLeast(Backoff.nominalMs(1_000, renewalFailures), random);
        renewalFailures++;
    }

    private void onMessage(Message message, long now) {
        if (message.inRoom) {
            rooms.message(message.room, message.sequence, now);
        }
        switch (seen.add(message)) {
            case FRESH:
                effects.add(new Effect.Deliver(message));
                break;
            case TAKEN:
                ack(message);
                break;
            default:
                // The application gets it in this turn, and then it is acked.
        }
    }

    private void ack(Message message) {
        if (message.ackWanted && carrier != null) {
            acks.add(message.id);
        }
    }

    private void onOutcome(final Outcome outcome, long now) {
        Unsent message = outbox.get(outcome.clientMsgId);
        if (message == null) {
            return;
        }
        if (outcome.reason == Outcome.Reason.BUSY) {
            outbox.busy(message, now);
            return;
        }
        boolean rejoin = outcome.reason == Outcome.Reason.NOT_MEMBER && rooms.contains(message.target);
        if (rejoin && message.notMember++ < NOT_MEMBER_TRIES) {
            outbox.again(message);
            rooms.notMember(message.target, now);
            return;
        }
        outbox.settle(message);
        effects.add(new Effect.Tell(outcome.toString()) {
            @Override
            public void to(Listener listener) {
                listener.onOutcome(outcome);
            }
        });
    }

    private void onJoined(ServerFrame frame, long now) {
        final long room = frame.room;
        final long sequence = frame.sequence;
        final Recovery recovery = frame.recovery;
        boolean again = rooms.isJoined(room);
        final Long gapAfter = rooms.gapAfter(room, sequence, recovery);
        if (rooms.joined(room, sequence, recovery, now) && (!again || recovery == Recovery.TOO_OLD)) {
            effects.add(new Effect.Tell("joined " + room + " at " + sequence + ", recovery " + recovery) {
                @Override
                public void to(Listener listener) {
                    listener.onJoined(room, sequence, recovery);
                }
            });
        }
        if (gapAfter != null) {
            effects.add(new Effect.Tell("gap of " + room + " after " + gapAfter + " to " + sequence) {
                @Override
                public void to(Listener listener) {
                    listener.onGap(room, gapAfter, sequence);
                }
            });
        }
    }

    private void onLeft(final long room) {
        effects.add(new Effect.Tell("left " + room) {
            @Override
            public void to(Listener listener) {
                listener.onLeft(room);
            }
        });
    }

    private void onNotice(final Notice notice, long now) {
        effects.add(new Effect.Tell("notice " + notice) {
            @Override
            public void to(Listener listener) {
                listener.onNotice(notice);
            }
        });
        if (notice.code == Notice.ROOM_LIMIT) {
            onRoomLimit(notice, now);
        } else if (notice.code == Notice.BUSY) {
            rooms.busy(now);
        }
        if (notice.endsConnection()) {
            onLastNotice(notice, now);
        }
    }

    private void onRoomLimit(final Notice notice, long now) {
        final Long room = rooms.roomLimit(now);
        if (room != null) {
            effects.add(new Effect.Tell("join of " + room + " refused") {
                @Override
                public void to(Listener listener) {
                    listener.onJoinRefused(room, notice);
                }
            });
        }
    }

    private void onLastNotice(Notice notice, long now) {
        if (notice.code == Notice.KICKED) {
            end(Ended.KICKED, now);
            return;
        }
        if (phase == Phase.LOGGING_OUT) {
            end(Ended.LOGOUT, now);
            return;
        }
        if (notice.code == Notice.TOKEN_INVALID || notice.code == Notice.TOKEN_EXPIRED) {
            token = null;
        }
        if (notice.code == Notice.RATE_LIMITED) {
            pace.slowDown();
        }
        boolean olderServer = notice.code == Notice.BAD_BODY && rooms.badBody(now);
        boolean tooOften = notice.code == Notice.RATE_LIMITED || notice.code == Notice.ADDRESS_LIMIT;
        if (tooOften || notice.blamesClient() && !olderServer) {
            backoff.exhaust();
        }
        lost("the server said " + notice, notice.retryAfterMs, now);
        if (notice.code == Notice.DRAINING || notice.code == Notice.SERVER_FULL) {
            route.alternatives(notice.alternatives, notice.code == Notice.DRAINING);
        }
    }

    /**
     * The server closed a WebSocket. Mostly a notice said why before; if none did, the Close frame has its
     * number.
     */
    private void onClose(Carrier.CloseFrame close, long now) {
        int code = close.code - CLOSE_CODE_NOTICE;
        if (code > 0 && code < 100) {
            onNotice(new Notice(code, 0, close.reason, new ArrayList<String>()), now);
        } else {
            lost("the server closed the WebSocket: " + close.code + " " + close.reason, 0, now);
        }
    }

    // Writing.

    /** Writes what is due on a session that is online. */
    private void work(long now) {
        workedMs = now;
        if (phase != Phase.ONLINE) {
            return;
        }
        if (!acks.isEmpty() && (acksMs + ACKS_EVERY_MS <= now || acks.size() >= Wire.ACK_IDS_MAX)) {
            writeAcks(now);
        }
        if (framesOut.size() < OUTPUT_BYTES_MAX) {
            rooms.write(framesOut, now);
            outbox.repeat(now, options.repeatMs);
            paceHolds = !outbox.write(framesOut, OUTPUT_BYTES_MAX, now, rooms, pace);
        }
    }

    private void writeAcks(long now) {
        Wire.acks(framesOut, acks);
        acks.clear();
        acksMs = now;
    }

    private void checkPayload(byte[] payload) {
        if (payload.length > options.payloadBytesMax) {
            throw new RefusedException(RefusedException.Reason.TOO_LONG,
                    "a payload of " + payload.length + " bytes, at most " + options.payloadBytesMax);
        }
    }
}
