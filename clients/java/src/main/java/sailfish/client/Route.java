package sailfish.client;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;

/**
 * Where the next connection goes: to what a notice named, then to where the client was, then to its own list
 * in turn.
 */
final class Route {
    private final List<Endpoint> own;
    private final ArrayDeque<Endpoint> first = new ArrayDeque<>();
    private int turn;
    private Endpoint current;

    Route(List<Endpoint> own) {
        if (own.isEmpty()) {
            throw new IllegalArgumentException("a client needs an address to connect to");
        }
        this.own = new ArrayList<>(own);
    }

    /** Returns where the connection is, or was last. */
    Endpoint current() {
        return current;
    }

    Endpoint next() {
        current = first.poll();
        if (current == null) {
            current = own.get(turn);
            turn = (turn + 1) % own.size();
        }
        return current;
    }

    /** The session was online here: its node is the first to be tried again. */
    void stay() {
        first.clear();
        first.add(current);
    }

    /** The server named other nodes. They speak as this one does. */
    void alternatives(List<String> hostsAndPorts, boolean thenBack) {
        first.clear();
        for (String hostAndPort : hostsAndPorts) {
            Endpoint endpoint = current.at(hostAndPort);
            if (endpoint != null) {
                first.add(endpoint);
            }
        }
        if (thenBack) {
            first.add(current);
        }
    }
}
