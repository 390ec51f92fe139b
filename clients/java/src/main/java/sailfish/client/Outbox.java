package sailfish.client;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;

/**
 * The bounded store of messages without a send-ack. A message waits, is written, and stays until its send-ack
 * comes; when the connection is lost, it waits again. Messages to one target are written in the order in
 * which the application sent them.
 */
final class Outbox {
    /** A lane has recovered from a refusal when so many of its messages may be on their way at once. */
    private static final int LANE_WINDOW_MAX = 64;

    /**
     * A target whose messages the server refused as busy. Its next one goes alone, then two may be on their
     * way, then four: if all were sent at once, some in the middle could be refused again, and overtaken.
     */
    private static final class Lane {
        long untilMs;
        int refusals;
        int window = 1;
        int underWay;
    }

    private final int countMax;
    private final long bytesMax;
    private final long busyMs;
    private final Random random;

    private final Map<String, Unsent> all = new HashMap<>();
    /** By number: not written on this connection, or to be written again. */
    private final TreeMap<Long, Unsent> waiting = new TreeMap<>();
    /** Written on this connection, the longest ago first. */
    private final LinkedHashMap<String, Unsent> written = new LinkedHashMap<>();
    private final Map<Long, Lane> lanes = new HashMap<>();
    private long bytes;
    private long numbers;

    Outbox(int countMax, long bytesMax, long busyMs, Random random) {
        this.countMax = countMax;
        this.bytesMax = bytesMax;
        this.busyMs = busyMs;
        this.random = random;
    }

    boolean isEmpty() {
        return all.isEmpty();
    }

    boolean contains(String clientMsgId) {
        return all.containsKey(clientMsgId);
    }

    /** Returns the messages in the order in which they were sent. */
    List<Unsent> list() {
        TreeMap<Long, Unsent> sorted = new TreeMap<>();
        for (Unsent message : all.values()) {
            sorted.put(message.number, message);
        }
        return new ArrayList<>(sorted.values());
    }

    /** Takes a message; returns false if the store is full. */
    boolean add(Unsent message) {
        if (all.size() >= countMax || bytes + message.bytes() > bytesMax) {
            return false;
        }
        message.number = numbers++;
        bytes += message.bytes();
        all.put(message.clientMsgId, message);
        waiting.put(message.number, message);
        return true;
    }

    void connectionLost() {
        for (Unsent message : written.values()) {
            waiting.put(message.number, message);
        }
        written.clear();
        for (Lane lane : lanes.values()) {
            lane.underWay = 0;
        }
    }

    /** Lets messages whose send-ack is overdue wait to be written again. */
    void repeat(long nowMs, long repeatMs) {
        Iterator<Unsent> oldest = written.values().iterator();
        while (oldest.hasNext()) {
            Unsent message = oldest.next();
            if (message.writtenMs + repeatMs > nowMs) {
                break;
            }
            oldest.remove();
            backToWaiting(message);
        }
    }

    /**
     * Writes what may be written, the oldest first, as long as there is space; returns false if the pace
     * holds some back.
     */
    boolean write(Buffer out, int sizeMax, long nowMs, Rooms rooms, Pace pace) {
        Set<Long> held = new HashSet<>();
        Iterator<Unsent> oldest = waiting.values().iterator();
        while (oldest.hasNext() && out.size() < sizeMax) {
            Unsent message = oldest.next();
            if (held.contains(message.target)) {
                continue;
            }
            Lane lane = lanes.get(message.target);
            boolean laneHolds = lane != null && (lane.untilMs > nowMs || lane.underWay >= lane.window);
            if (laneHolds || rooms.holds(message.target)) {
                held.add(message.target);
                continue;
            }
            if (!pace.take(nowMs)) {
                return false;
            }
            oldest.remove();
            message.writtenMs = nowMs;
            written.put(message.clientMsgId, message);
            if (lane != null) {
                lane.underWay++;
            }
            message.write(out);
        }
        return true;
    }

    /** Returns the message that a send-ack is about, or null if it has had one. */
    Unsent get(String clientMsgId) {
        return all.get(clientMsgId);
    }

    /** Removes a message that has its outcome. */
    void settle(Unsent message) {
        all.remove(message.clientMsgId);
        waiting.remove(message.number);
        bytes -= message.bytes();
        boolean wasUnderWay = written.remove(message.clientMsgId) != null;
        Lane lane = lanes.get(message.target);
        if (lane == null) {
            return;
        }
        if (wasUnderWay) {
            lane.underWay--;
        }
        lane.refusals = 0;
        lane.window *= 2;
        if (lane.window > LANE_WINDOW_MAX) {
            lanes.remove(message.target);
        }
    }

    /** Puts a message off that was refused as busy, and with it all later ones to its target. */
    void busy(Unsent message, long nowMs) {
        Lane lane = lanes.get(message.target);
        if (lane == null) {
            lane = new Lane();
            for (Unsent other : written.values()) {
                lane.underWay += other.target == message.target ? 1 : 0;
            }
            lanes.put(message.target, lane);
        }
        if (written.remove(message.clientMsgId) != null) {
            backToWaiting(message);
        }
        lane.window = 1;
        // What was written together is refused together: that is one refusal.
        if (lane.untilMs <= nowMs) {
            lane.untilMs = nowMs + Backoff.atLeast(Backoff.nominalMs(busyMs, lane.refusals), random);
            lane.refusals++;
        }
    }

    /** Puts a message off until its room has been joined again. */
    void again(Unsent message) {
        if (written.remove(message.clientMsgId) != null) {
            backToWaiting(message);
        }
    }

    private void backToWaiting(Unsent message) {
        waiting.put(message.number, message);
        Lane lane = lanes.get(message.target);
        if (lane != null) {
            lane.underWay--;
        }
    }

    /** Returns when a message is to be repeated, or a lane opens. */
    long wakeAt(long nowMs, long repeatMs) {
        long wake = Long.MAX_VALUE;
        if (!written.isEmpty()) {
            wake = written.values().iterator().next().writtenMs + repeatMs;
        }
        for (Lane lane : lanes.values()) {
            if (lane.untilMs > nowMs) {
                wake = Math.min(wake, lane.untilMs);
            }
        }
        return wake;
    }
}
