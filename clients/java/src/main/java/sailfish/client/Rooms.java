package sailfish.client;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** The rooms that the application wants to be in: it stays in them, whatever becomes of connections. */
final class Rooms {
    /** A join that nobody answers is asked again; the server takes a second one like the first. */
    private static final long ANSWER_MS = 10_000;
    /** How long a server that knows no history is not asked for any. */
    private static final long NO_HISTORY_MS = 600_000;
    /** For so long after a joined, or a kept message, more of the kept ones may follow. */
    private static final long REPLAY_MS = 5_000;
    /** All members of a room see a gap at once, so each waits a random time up to this before it asks. */
    private static final int GAP_WAIT_MS_MAX = 1_000;
    /** A client that reads too slowly misses messages again and again: it asks no more often than this. */
    private static final long GAP_INTERVAL_MS = 5_000;
    private static final long NEVER = Long.MAX_VALUE;

    private static final class Room {
        final long id;
        final History first;
        boolean joining;
        boolean joined;
        /** Whether the join that is under way asks for history. */
        boolean asks;
        /** When a join is due, or, while joining, when it counts as unanswered. */
        long dueMs;
        int refusals;
        /** The highest sequence up to which nothing is left to come, once known. */
        boolean sequenceKnown;
        long sequence;
        /** While kept messages come: up to which sequence, and until when they are waited for. */
        boolean replaying;
        long replayUntil;
        long replayEndsMs;
        /**
         * Whether messages after `sequence` are missing, and when they are asked for: never once they are.
         * Until the answer comes, messages do not count as seen, as they come again.
         */
        boolean gap;
        /** Up to which sequence the last gap was told, if one was. */
        Long toldGap;
        long gapDueMs = NEVER;
        /** The next gap is not asked for before this. */
        long nextGapMs = Long.MIN_VALUE;

        Room(long id, History first, long nowMs) {
            this.id = id;
            this.first = first;
            this.dueMs = nowMs;
        }

        void seen(long upTo) {
            if (!sequenceKnown || upTo > sequence) {
                sequence = upTo;
                sequenceKnown = true;
            }
        }

        boolean gapAsked() {
            return gap && gapDueMs == NEVER;
        }

        void endReplay() {
            if (replaying) {
                replaying = false;
                seen(replayUntil);
            }
        }
    }

    private final Map<Long, Room> rooms = new LinkedHashMap<>();
    private final long busyMs;
    private final Random random;
    /** A refusal names no room. After one, joins go one by one, so that the next tells which it is about. */
    private boolean oneByOne;
    private long plainUntilMs = Long.MIN_VALUE;

    Rooms(long busyMs, Random random) {
        this.busyMs = busyMs;
        this.random = random;
    }

    /** Adds a room; one that is there stays as it is. */
    void add(long id, History first, long nowMs) {
        if (!rooms.containsKey(id)) {
            rooms.put(id, new Room(id, first, nowMs));
        }
    }

    /** Returns whether the room was there. */
    boolean remove(long id) {
        return rooms.remove(id) != null;
    }

    /** Returns whether a message to the target has to wait for a join. */
    boolean holds(long target) {
        Room room = rooms.get(target);
        return room != null && !room.joined;
    }

    boolean contains(long id) {
        return rooms.containsKey(id);
    }

    void connectionLost(long nowMs) {
        oneByOne = false;
        for (Room room : rooms.values()) {
            room.joining = false;
            room.joined = false;
            room.replaying = false;
            room.gap = false;
            room.refusals = 0;
            room.dueMs = nowMs;
        }
    }

    /** Writes the joins that are due. */
    void write(Buffer out, long nowMs) {
        for (Room room : rooms.values()) {
            if (room.joined && room.gap && room.gapDueMs <= nowMs) {
                room.gapDueMs = NEVER;
                room.nextGapMs = nowMs + GAP_INTERVAL_MS;
                room.asks = true;
                Wire.join(out, room.id, Wire.WANT_SINCE, room.sequence);
            }
            if (room.joined || room.dueMs > nowMs || oneByOne && !room.joining && anyJoining()) {
                continue;
            }
            room.joining = true;
            room.dueMs = nowMs + ANSWER_MS;
            room.asks = plainUntilMs <= nowMs && (room.sequenceKnown || room.first.want != 0);
            if (!room.asks) {
                Wire.join(out, room.id);
            } else if (room.sequenceKnown) {
                Wire.join(out, room.id, Wire.WANT_SINCE, room.sequence);
            } else {
                Wire.join(out, room.id, room.first.want, room.first.value);
            }
        }
    }

    /** Returns whether the room is joined, so that another answer only says what became of a gap. */
    boolean isJoined(long id) {
        Room room = rooms.get(id);
        return room != null && room.joined;
    }

    /**
     * Returns after which sequence messages may be missing for good, by the answer to a join, or null if none
     * are, or if it was told already. Call it before {@link #joined}, which raises the sequence.
     */
    Long gapAfter(long id, long sequence, Recovery recovery) {
        Room room = rooms.get(id);
        if (room == null || !room.sequenceKnown && room.first.want != Wire.WANT_SINCE) {
            return null;
        }
        long after = room.sequenceKnown ? room.sequence : room.first.value;
        if (recovery == Recovery.NONE) {
            return sequence > after ? Long.valueOf(after) : null;
        }
        boolean isTold = room.toldGap != null && room.toldGap == sequence;
        if (recovery == Recovery.COMPLETE || isTold) {
            return null;
        }
        room.toldGap = sequence;
        return after;
    }

    /** Notes the answer to a join; returns false if the room is not wanted any more. */
    boolean joined(long id, long sequence, Recovery recovery, long nowMs) {
        Room room = rooms.get(id);
        if (room == null) {
            return false;
        }
        room.joining = false;
        room.joined = true;
        room.gap = false;
        room.refusals = 0;
        if (recovery == Recovery.TOO_OLD && room.sequence > sequence) {
            // The room has begun anew, with lower sequences than it had.
            room.sequence = 0;
        }
        if (room.asks && recovery != Recovery.NONE && !(room.sequenceKnown && room.sequence >= sequence)) {
            // The sequence of the answer counts as seen only when the kept messages up to it have come: else
            // a connection that is cut among them would lose the rest.
            room.replaying = true;
            room.replayUntil = sequence;
            room.replayEndsMs = nowMs + REPLAY_MS;
        } else {
            room.seen(sequence);
        }
        return true;
    }

    /** Notes a room message that came. If it shows a gap, what is missing is asked for after a while. */
    void message(long id, long sequence, long nowMs) {
        Room room = rooms.get(id);
        if (room == null || room.gap) {
            return;
        }
        if (room.replaying && sequence < room.replayUntil) {
            room.replayEndsMs = nowMs + REPLAY_MS;
        } else {
            room.endReplay();
        }
        boolean follows = !room.sequenceKnown || sequence <= room.sequence + 1;
        if (room.joined && !follows && !room.replaying && plainUntilMs <= nowMs) {
            room.gap = true;
            room.gapDueMs = Math.max(nowMs + random.nextInt(GAP_WAIT_MS_MAX), room.nextGapMs);
        } else {
            room.seen(sequence);
        }
    }

    /** The server says that this client is not in the room, though it should be: joins again. */
    void notMember(long id, long nowMs) {
        Room room = rooms.get(id);
        if (room != null && room.joined) {
            room.joined = false;
            room.gap = false;
            room.dueMs = nowMs;
        }
    }

    /** A join was refused for now: those under way are asked again later, after a wait that grows. */
    void busy(long nowMs) {
        for (Room room : rooms.values()) {
            if (room.joining || room.gapAsked()) {
                long dueMs = nowMs + Backoff.atLeast(Backoff.nominalMs(busyMs, room.refusals), random);
                room.refusals++;
                if (room.joining) {
                    room.joining = false;
                    room.dueMs = dueMs;
                } else {
                    room.gapDueMs = dueMs;
                }
            }
        }
    }

    /**
     * The session is in as many rooms as it may be. Returns the room that is refused and forgets it, or null
     * if it is not known which.
     */
    Long roomLimit(long nowMs) {
        List<Room> joining = new ArrayList<>();
        for (Room room : rooms.values()) {
            if (room.joining) {
                joining.add(room);
            }
        }
        if (joining.size() == 1) {
            rooms.remove(joining.get(0).id);
            return joining.get(0).id;
        }
        oneByOne = true;
        for (Room room : joining) {
            room.joining = false;
            room.dueMs = nowMs;
        }
        return null;
    }

    /**
     * The server calls a body bad. If a join that asks for history is under way, it is one that knows no
     * history: returns true, and joins without for a while.
     */
    boolean badBody(long nowMs) {
        for (Room room : rooms.values()) {
            if (room.joining && room.asks || room.gapAsked()) {
                plainUntilMs = nowMs + NO_HISTORY_MS;
                return true;
            }
        }
        return false;
    }

    void tick(long nowMs) {
        for (Room room : rooms.values()) {
            if (room.replaying && room.replayEndsMs <= nowMs) {
                room.endReplay();
            }
        }
    }

    /** Returns when the next join is due while online. */
    long wakeAt() {
        long wake = Long.MAX_VALUE;
        for (Room room : rooms.values()) {
            if (!room.joined && !(oneByOne && !room.joining && anyJoining())) {
                wake = Math.min(wake, room.dueMs);
            }
            if (room.replaying) {
                wake = Math.min(wake, room.replayEndsMs);
            }
            if (room.gap) {
                wake = Math.min(wake, room.gapDueMs);
            }
        }
        return wake;
    }

    private boolean anyJoining() {
        for (Room room : rooms.values()) {
            if (room.joining) {
                return true;
            }
        }
        return false;
    }
}
