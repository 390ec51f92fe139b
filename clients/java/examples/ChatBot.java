import java.util.Locale;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import sailfish.client.Client;
import sailfish.client.Ended;
import sailfish.client.Listener;
import sailfish.client.Message;
import sailfish.client.Outcome;
import sailfish.client.Recovery;
import sailfish.client.RefusedException;

/**
 * A bot that sits in a room and answers what begins with {@code !}:
 *
 * <pre>java -cp target/sailfish-client.jar:target/javac/programs ChatBot tcp://127.0.0.1:5346 TOKEN 7</pre>
 */
public final class ChatBot implements Listener {
    private final Client client;
    private final long room;
    /** Answers may take their time, and the client's own thread must not wait for them. */
    private final ExecutorService work = Executors.newSingleThreadExecutor();
    private int heard;

    public static void main(String[] arguments) {
        if (arguments.length != 3) {
            System.err.println("usage: ChatBot ADDRESS TOKEN ROOM");
            System.exit(2);
        }
        Client client = Client.builder(arguments[0]).token(arguments[1]).build();
        ChatBot bot = new ChatBot(client, Long.parseLong(arguments[2]));
        // Without History.last: the bot would answer the last commands again at every start.
        client.join(bot.room);
        client.run(bot);
    }

    private ChatBot(Client client, long room) {
        this.client = client;
        this.room = room;
    }

    @Override
    public void onOnline() {
        System.out.println("online as user " + client.userId());
    }

    @Override
    public void onOffline(String reason, long retryMs) {
        System.out.println("offline: " + reason + "; next try in " + retryMs + " ms");
    }

    @Override
    public void onJoined(long room, long sequence, Recovery recovery) {
        System.out.println("in room " + room + ", whose last message is " + sequence);
    }

    @Override
    public void onMessage(Message message) {
        heard++;
        System.out.println(message.sender + ": " + message.text());
        // A room tells its members what they said themselves, too.
        if (message.sender != client.userId() && message.text().startsWith("!")) {
            work.execute(() -> answer(message));
        }
    }

    private void answer(Message message) {
        String command = message.text().substring(1).trim().toLowerCase(Locale.ROOT);
        String text = command.equals("count") ? "I have heard " + heard + " messages" : "I know !count, not !" + command;
        try {
            client.sendToRoom(room, text);
        } catch (RefusedException e) {
            System.out.println("too much is unsent; not said: " + text);
        }
    }

    @Override
    public void onOutcome(Outcome outcome) {
        if (!outcome.succeeded()) {
            System.out.println("not said, " + outcome.reason + ": " + outcome.clientMsgId);
        }
    }

    @Override
    public void onEnded(Ended reason) {
        System.out.println("ended: " + reason);
        work.shutdown();
    }
}
