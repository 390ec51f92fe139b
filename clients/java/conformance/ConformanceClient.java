import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import sailfish.client.Client;
import sailfish.client.Ended;
import sailfish.client.History;
import sailfish.client.Listener;
import sailfish.client.Message;
import sailfish.client.Notice;
import sailfish.client.Options;
import sailfish.client.Outcome;
import sailfish.client.Recovery;
import sailfish.client.RefusedException;
import sailfish.client.Token;

/**
 * The program by which the conformance suite drives this library; clients/README.md says what it has to do.
 */
public final class ConformanceClient implements Listener {
    private static final int ROOM_CHAT = 5555;
    private static final int USER_MESSAGE = 6001;

    private final Map<String, List<String>> arguments = new HashMap<>();
    private int tokensGiven;

    public static void main(String[] arguments) throws IOException {
        new ConformanceClient(arguments).run();
    }

    private ConformanceClient(String[] words) {
        for (int i = 0; i + 1 < words.length; i += 2) {
            String name = words[i].substring(2);
            if (!arguments.containsKey(name)) {
                arguments.put(name, new ArrayList<String>());
            }
            arguments.get(name).add(words[i + 1]);
        }
    }

    private void run() throws IOException {
        String address = arguments.containsKey("tcp") ? "tcp://" + text("tcp") : text("ws");
        Client client = Client.builder(address).token(this::nextToken).options(options()).daemon(true).build();
        History history = History.last(number("last", 0));
        for (String room : all("room")) {
            client.join(Long.parseLong(room), history);
        }
        for (int i = 1; i <= number("send", 0); i++) {
            send(client, i);
        }
        client.start(this);
        while (System.in.read() >= 0) {
            // Until its end.
        }
        client.close();
        // onEnded ends the program; this is for a client that does not.
        sleep(10_000);
        System.exit(1);
    }

    private synchronized Token nextToken() {
        List<String> tokens = all("token");
        return Token.of(tokens.get(Math.min(tokensGiven++, tokens.size() - 1)));
    }

    private Options options() {
        Options options = new Options();
        if (arguments.containsKey("store")) {
            options.store((int) number("store", 0), 4 << 20);
        }
        if (arguments.containsKey("repeat-ms")) {
            options.repeatMs(number("repeat-ms", 0));
        }
        if (arguments.containsKey("busy-ms")) {
            options.busyMs(number("busy-ms", 0));
        }
        if (arguments.containsKey("backoff-ms")) {
            options.backoffMs(number("backoff-ms", 0));
        }
        return options;
    }

    private void send(Client client, int number) {
        boolean toUser = arguments.containsKey("to");
        long target = Long.parseLong(toUser ? text("to") : text("room"));
        byte[] payload = ("hello " + number).getBytes(StandardCharsets.UTF_8);
        try {
            client.send(toUser ? USER_MESSAGE : ROOM_CHAT, target, payload, "m" + number);
        } catch (RefusedException e) {
            print("refused", "client_msg_id", "m" + number);
        }
    }

    @Override
    public void onOnline() {
        print("logged_in");
    }

    @Override
    public void onOffline(String reason, long retryMs) {
        System.err.println("offline: " + reason + "; next try in " + retryMs + " ms");
        print("disconnected");
    }

    @Override
    public void onMessage(Message message) {
        print("message", "id", message.idText(), "sender", message.sender, "biz_code", message.bizCode,
                "client_msg_id", message.clientMsgId, "room", message.inRoom ? message.room : null,
                "sequence", message.inRoom ? message.sequence : null, "data", message.text());
    }

    @Override
    public void onOutcome(Outcome outcome) {
        boolean sequenced = outcome.kind == Outcome.Kind.SEQUENCED;
        print("outcome", "client_msg_id", outcome.clientMsgId, "outcome", lower(outcome.kind),
                "sequence", sequenced ? outcome.sequence : null, "reason", lower(outcome.reason));
    }

    @Override
    public void onJoined(long room, long sequence, Recovery recovery) {
        String told = recovery == Recovery.NONE ? null : lower(recovery);
        print("joined", "room", room, "sequence", sequence, "recovery", told);
    }

    @Override
    public void onNotice(Notice notice) {
        print("notice", "name", notice.name);
    }

    @Override
    public void onEnded(Ended reason) {
        print("ended", "reason", lower(reason));
        System.exit(0);
    }

    private static String lower(Enum<?> value) {
        return value == null ? null : value.name().toLowerCase(java.util.Locale.ROOT);
    }

    /** Prints an event with its fields, name and value by turns; one without a value is left out. */
    private static synchronized void print(String event, Object... fields) {
        StringBuilder line = new StringBuilder("{\"event\":" + quoted(event));
        for (int i = 0; i < fields.length; i += 2) {
            Object value = fields[i + 1];
            if (value != null) {
                line.append(",").append(quoted(fields[i].toString())).append(":");
                line.append(value instanceof Number ? value.toString() : quoted(value.toString()));
            }
        }
        byte[] bytes = line.append("}\n").toString().getBytes(StandardCharsets.UTF_8);
        System.out.write(bytes, 0, bytes.length);
        System.out.flush();
    }

    private static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < ' ') {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }

    private static void sleep(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private List<String> all(String name) {
        return arguments.containsKey(name) ? arguments.get(name) : new ArrayList<String>();
    }

    private String text(String name) {
        return arguments.get(name).get(0);
    }

    private long number(String name, long absent) {
        return arguments.containsKey(name) ? Long.parseLong(text(name)) : absent;
    }
}
