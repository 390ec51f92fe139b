package sailfish.client;

import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Which messages have come, so that repeats are dropped: by the server's id, which finds its retries, then by
 * sender and client_msg_id, which finds what a sender had to repeat after a crash. It remembers the latest of
 * each, up to a bound.
 */
final class Seen {
    enum Verdict {
        FRESH,
        /** The application has it: a repeat is acked at once. */
        TAKEN,
        /** The application is about to get it: the repeat is acked together with it. */
        UNDER_WAY
    }

    private final Latest<Long> ids;
    /** The id under which each named message came first. */
    private final Latest<String> names;
    /** What the application is about to get, and its repeats so far. */
    private final Map<Long, List<Message>> underWay = new HashMap<>();

    Seen(int max) {
        ids = new Latest<>(max);
        names = new Latest<>(max);
    }

    /** Notes a message that came. */
    Verdict add(Message message) {
        if (underWay.containsKey(message.id)) {
            underWay.get(message.id).add(message);
            return Verdict.UNDER_WAY;
        }
        if (ids.containsKey(message.id)) {
            return Verdict.TAKEN;
        }
        String name = name(message);
        Long first = name == null ? null : names.get(name);
        if (first != null && underWay.containsKey(first)) {
            underWay.get(first).add(message);
            return Verdict.UNDER_WAY;
        }
        ids.put(message.id, message.id);
        if (first != null) {
            return Verdict.TAKEN;
        }
        if (name != null) {
            names.put(name, message.id);
        }
        underWay.put(message.id, new ArrayList<>(Collections.singletonList(message)));
        return Verdict.FRESH;
    }

    /** The application has the message. Returns it and its repeats, to be acked. */
    List<Message> taken(Message message) {
        List<Message> copies = underWay.remove(message.id);
        return copies == null ? Collections.<Message>emptyList() : copies;
    }

    /** The application could not take the message: its repeat counts as fresh. */
    void forget(Message message) {
        underWay.remove(message.id);
        ids.remove(message.id);
        String name = name(message);
        if (name != null) {
            names.remove(name);
        }
    }

    /** The room belongs to it: the same client_msg_id to another target is another message. */
    private static String name(Message message) {
        if (message.clientMsgId.isEmpty()) {
            return null;
        }
        String room = message.inRoom ? String.valueOf(message.room) : "";
        return message.sender + "/" + room + "/" + message.clientMsgId;
    }

    private static final class Latest<K> extends LinkedHashMap<K, Long> {
        private static final long serialVersionUID = 1L;
        private final int max;

        Latest(int max) {
            this.max = max;
        }

        @Override
        protected boolean removeEldestEntry(Map.Entry<K, Long> eldest) {
            return size() > max;
        }
    }
}
