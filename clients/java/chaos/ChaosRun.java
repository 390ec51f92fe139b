import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;
import sailfish.client.Client;
import sailfish.client.Listener;
import sailfish.client.Message;
import sailfish.client.Options;
import sailfish.client.Outcome;
import sailfish.client.Recovery;
import sailfish.client.RefusedException;

/**
 * Bots chat in a room and with each other while their server is killed again and again, or their connections
 * are cut:
 *
 * <pre>java -cp target/sailfish-client.jar:target/javac/programs \
 *     ChaosRun SAILFISH SECONDS tcp|tls|ws|wss kill|cut</pre>
 *
 * SAILFISH is the server's program, which gets ports and a folder of its own. Every message is numbered. At
 * the end each must have its outcome, none may have failed or been shown twice, each message to a user must
 * have been shown, and the room's order must be one for all. A bot may miss a message of the room only if it
 * was told of a gap, or if the server keeps no history. Ends with code 1 if that does not hold.
 *
 * <p>The same with servers that somebody else runs and kills, with the tokens of the users 101, 102 and 103:
 *
 * <pre>java -cp ... ChaosRun tcp://HOST:PORT SECONDS TOKEN,TOKEN,TOKEN</pre>
 */
public final class ChaosRun {
    private static final long ROOM = 7;
    private static final long[] USERS = {101, 102, 103};
    private static final long UP_MS = 2_500;
    private static final long CUT_EVERY_MS = 300;
    private static final long PATIENCE_MS = 60_000;

    private final String program;
    private final String scheme;
    /** Of servers that somebody else runs; null without these. */
    private final String givenAddress;
    private final String[] givenTokens;
    private final boolean cuts;
    private final File folder;
    /** For frames and WebSocket, in clear and by TLS, then for operators and the backend. */
    private final int[] ports = freePorts(6);
    private final List<Bot> bots = new ArrayList<>();
    private Process server;
    private Proxy proxy;
    private int faultsMade;

    public static void main(String[] arguments) throws Exception {
        boolean isGiven = arguments.length == 3 && arguments[0].contains("://");
        if (!isGiven && arguments.length != 4) {
            System.err.println("usage: ChaosRun SAILFISH SECONDS tcp|tls|ws|wss kill|cut");
            System.err.println("       ChaosRun ADDRESS SECONDS TOKEN,TOKEN,TOKEN");
            System.exit(2);
        }
        ChaosRun run = isGiven
                ? new ChaosRun(arguments[0], arguments[2].split(","))
                : new ChaosRun(arguments[0], arguments[2], arguments[3].equals("cut"));
        List<String> faults;
        try {
            run.chat(Long.parseLong(arguments[1]) * 1_000);
            faults = run.judge();
        } finally {
            run.end();
        }
        for (String fault : faults) {
            System.err.println("broken: " + fault);
        }
        if (faults.isEmpty()) {
            delete(run.folder);
        } else {
            System.err.println("what the server said is in " + run.folder);
        }
        System.exit(faults.isEmpty() ? 0 : 1);
    }

    private ChaosRun(String program, String scheme, boolean cuts) throws IOException {
        this.program = new File(program).getAbsolutePath();
        this.scheme = scheme;
        this.cuts = cuts;
        this.givenAddress = null;
        this.givenTokens = new String[0];
        this.folder = Files.createTempDirectory("sailfish-chaos-").toFile();
    }

    private ChaosRun(String address, String[] tokens) throws IOException {
        this.program = "";
        this.scheme = address.substring(0, address.indexOf(':'));
        this.cuts = false;
        this.givenAddress = address;
        this.givenTokens = tokens;
        this.folder = Files.createTempDirectory("sailfish-chaos-").toFile();
    }

    /**
     * What one bot sent and saw. Its listener's thread writes it; the judge reads it when nothing moves any
     * more.
     */
    private static final class Bot implements Listener {
        final long user;
        Client client;
        final Map<String, Outcome> outcomes = new HashMap<>();
        final List<String> sent = new ArrayList<>();
        final List<Message> shown = new ArrayList<>();
        int twoOutcomes;
        int online;
        int joins;
        int gaps;
        int joinsWithoutHistory;

        Bot(long user) {
            this.user = user;
        }

        @Override
        public synchronized void onOnline() {
            online++;
        }

        @Override
        public synchronized void onMessage(Message message) {
            shown.add(message);
        }

        @Override
        public synchronized void onOutcome(Outcome outcome) {
            twoOutcomes += outcomes.put(outcome.clientMsgId, outcome) == null ? 0 : 1;
        }

        @Override
        public synchronized void onJoined(long room, long sequence, Recovery recovery) {
            joins++;
            gaps += recovery == Recovery.TOO_OLD ? 1 : 0;
            joinsWithoutHistory += recovery == Recovery.NONE && joins > 1 ? 1 : 0;
        }

        synchronized boolean hasJoined() {
            return joins > 0;
        }

        synchronized int shownCount() {
            return shown.size();
        }

        synchronized Set<String> names() {
            Set<String> names = new HashSet<>();
            for (Message message : shown) {
                names.add(message.text());
            }
            return names;
        }

        void send(int bizCode, long target) {
            String id = user + " to " + target + ": " + sent.size();
            try {
                client.send(bizCode, target, id.getBytes(StandardCharsets.UTF_8), id);
                sent.add(id);
            } catch (RefusedException e) {
                // A bot that is ahead of its server waits: the next round tries again.
            }
        }
    }

    private void chat(long ms) throws Exception {
        if (isTls()) {
            makeCertificate();
        }
        if (givenAddress == null) {
            startServer();
        }
        proxy = cuts ? new Proxy(serverPort()) : null;
        SSLSocketFactory factory = isTls() ? trusting() : null;
        for (long user : USERS) {
            Bot bot = new Bot(user);
            Options options = new Options().backoffMs(100).repeatMs(5_000);
            Client.Builder builder = Client.builder(address()).token(token(user)).options(options);
            bot.client = builder.sslSocketFactory(factory).daemon(true).build();
            bot.client.join(ROOM);
            bot.client.start(bot);
            bots.add(bot);
        }
        // Who is not there yet would miss what the others say.
        for (Bot bot : bots) {
            while (!bot.hasJoined()) {
                Thread.sleep(10);
            }
        }
        long start = System.nanoTime();
        long faultMade = start;
        while (millisSince(start) < ms) {
            for (Bot bot : bots) {
                bot.send(Client.ROOM_CHAT, ROOM);
                for (long user : USERS) {
                    if (user != bot.user) {
                        bot.send(Client.USER_MESSAGE, user);
                    }
                }
            }
            Thread.sleep(25);
            if (givenAddress == null && millisSince(faultMade) > (cuts ? CUT_EVERY_MS : UP_MS)) {
                makeFault();
                faultMade = System.nanoTime();
            }
        }
        for (Bot bot : bots) {
            bot.client.awaitSent(PATIENCE_MS);
        }
        settle();
    }

    private void makeFault() throws IOException, InterruptedException {
        faultsMade++;
        if (cuts) {
            proxy.cutOne();
        } else {
            server.destroyForcibly().waitFor();
            startServer();
        }
    }

    /** Waits until nothing has been shown for a while: what the backend kept comes after the outcomes. */
    private void settle() throws InterruptedException {
        long start = System.nanoTime();
        int before = -1;
        int now = 0;
        for (int quiet = 0; quiet < 3; quiet = now == before && !isAnyDue(start) ? quiet + 1 : 0) {
            before = now;
            Thread.sleep(1_000);
            now = 0;
            for (Bot bot : bots) {
                now += bot.shownCount();
            }
        }
    }

    /** Whether some message to a user was not shown yet, and there is patience left. */
    private boolean isAnyDue(long start) {
        if (millisSince(start) > PATIENCE_MS) {
            return false;
        }
        for (Bot receiver : bots) {
            Set<String> names = receiver.names();
            for (Bot sender : bots) {
                List<String> missing = new ArrayList<>();
                judgePair(sender, receiver, names, missing);
                if (!missing.isEmpty()) {
                    return true;
                }
            }
        }
        return false;
    }

    private List<String> judge() {
        List<String> faults = new ArrayList<>();
        Map<Long, Set<String>> names = new HashMap<>();
        int sent = 0;
        int shown = 0;
        int late = 0;
        for (Bot bot : bots) {
            names.put(bot.user, new HashSet<String>());
            late += judge(bot, names.get(bot.user), faults);
            sent += bot.sent.size();
            shown += bot.shown.size();
        }
        int missed = 0;
        int gaps = 0;
        int plain = 0;
        for (Bot bot : bots) {
            int missedHere = 0;
            for (Bot sender : bots) {
                missedHere += judgePair(sender, bot, names.get(bot.user), faults);
            }
            if (missedHere > 0 && bot.gaps == 0 && bot.joinsWithoutHistory == 0) {
                faults.add(bot.user + " missed " + missedHere + " messages of the room and was told of no gap");
            }
            missed += missedHere;
            gaps += bot.gaps;
            plain += bot.joinsWithoutHistory;
        }
        String faultsText = faultsMade + (cuts ? " cuts, " : " kills, ");
        if (givenAddress != null) {
            faultsText = bots.get(0).online + " logins of the first bot, ";
        }
        System.out.println(scheme + ": " + faultsText + sent + " messages sent, "
                + shown + " shown, " + late + " to users after a newer one; " + missed + " of the room missed, "
                + gaps + " gaps told, " + plain + " joins without history");
        if (bots.get(0).online <= (givenAddress != null ? 2 : faultsMade / (cuts ? 10 : 2))) {
            faults.add("the first bot was hardly there");
        }
        return faults;
    }

    /**
     * Returns how many messages of the sender in the room the receiver missed; one to the receiver must be
     * there.
     */
    private static int judgePair(Bot sender, Bot receiver, Set<String> names, List<String> faults) {
        int missed = 0;
        for (String id : sender.sent) {
            String target = id.substring(id.indexOf("to ") + 3, id.indexOf(':'));
            boolean shown = names.contains(id);
            if (target.equals(String.valueOf(receiver.user)) && !shown) {
                faults.add(id + " was never shown, though it has the " + sender.outcomes.get(id));
            }
            missed += target.equals(String.valueOf(ROOM)) && !shown ? 1 : 0;
        }
        return missed;
    }

    /** Returns how many messages to the user came after a newer one of the same sender, which repeats may. */
    private int judge(Bot bot, Set<String> names, List<String> faults) {
        if (bot.twoOutcomes > 0) {
            faults.add(bot.user + " was told two outcomes of a message, " + bot.twoOutcomes + " times");
        }
        for (String id : bot.sent) {
            Outcome outcome = bot.outcomes.get(id);
            if (outcome == null || !outcome.succeeded()) {
                faults.add(id + " has the outcome " + outcome);
            }
        }
        int late = 0;
        long sequence = 0;
        Map<String, Integer> newest = new HashMap<>();
        for (Message message : bot.shown) {
            if (!names.add(message.text())) {
                faults.add(bot.user + " was shown twice: " + message);
            }
            String from = message.sender + (message.inRoom ? " in the room" : "");
            int number = Integer.parseInt(message.text().substring(message.text().indexOf(':') + 2));
            boolean old = newest.containsKey(from) && newest.get(from) > number;
            if (message.inRoom && (old || message.sequence <= sequence)) {
                faults.add(bot.user + " was shown out of order: " + message);
            }
            sequence = message.inRoom ? message.sequence : sequence;
            late += old ? 1 : 0;
            newest.put(from, old ? newest.get(from) : Integer.valueOf(number));
        }
        return late;
    }

    private void end() throws InterruptedException {
        for (Bot bot : bots) {
            bot.client.close();
        }
        if (server != null) {
            server.destroyForcibly().waitFor();
        }
    }

    // The server.

    private void startServer() throws IOException {
        List<String> command = new ArrayList<>(Arrays.asList(
                program, "up", "--shards", "2", "--engine", "epoll", "--listen", at(0), "--listen-ws", at(2),
                "--admin", at(4), "--set", "backend.listen=" + at(5),
                // What is for a bot that is away is kept for it, however much the others say.
                "--set", "backend.inbox_messages_max=100000"));
        if (isTls()) {
            String pair = "[{chain=\"" + folder + "/cert.pem\", key=\"" + folder + "/key.pem\"}]";
            command.addAll(Arrays.asList("--listen-tls", at(1), "--listen-wss", at(3), "--set", "node.certificates=" + pair));
        }
        ProcessBuilder builder = inFolder(command);
        server = builder.redirectError(new File(folder, "server.log")).start();
        BufferedReader out = new BufferedReader(new InputStreamReader(server.getInputStream(), StandardCharsets.UTF_8));
        String line = out.readLine();
        while (line != null && !line.startsWith("ready")) {
            line = out.readLine();
        }
        if (line == null) {
            byte[] log = Files.readAllBytes(new File(folder, "server.log").toPath());
            throw new IOException("the server ended: " + new String(log, StandardCharsets.UTF_8));
        }
    }

    private String token(long user) throws IOException {
        if (givenAddress != null) {
            return givenTokens[(int) (user - USERS[0])];
        }
        Process process = inFolder(Arrays.asList(program, "token", "--user", String.valueOf(user))).start();
        return new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8)).readLine();
    }

    private ProcessBuilder inFolder(List<String> command) {
        ProcessBuilder builder = new ProcessBuilder(command).directory(folder);
        builder.environment().put("HOME", folder.getPath());
        builder.environment().put("XDG_STATE_HOME", folder.getPath());
        return builder;
    }

    private String address() {
        if (givenAddress != null) {
            return givenAddress;
        }
        int port = proxy == null ? serverPort() : proxy.port();
        return scheme + "://" + (isTls() ? "localhost:" : "127.0.0.1:") + port;
    }

    private int serverPort() {
        return ports[Arrays.asList("tcp", "tls", "ws", "wss").indexOf(scheme)];
    }

    private String at(int index) {
        return "127.0.0.1:" + ports[index];
    }

    private boolean isTls() {
        return scheme.equals("tls") || scheme.equals("wss");
    }

    private void makeCertificate() throws IOException, InterruptedException {
        Process openssl = inFolder(Arrays.asList(
                        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                        "-keyout", "key.pem", "-out", "cert.pem"))
                .redirectErrorStream(true)
                .redirectOutput(new File(folder, "openssl.log"))
                .start();
        if (openssl.waitFor() != 0) {
            throw new IOException("openssl makes no certificate");
        }
    }

    private SSLSocketFactory trusting() throws Exception {
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        try (FileInputStream in = new FileInputStream(new File(folder, "cert.pem"))) {
            trusted.setCertificateEntry("server", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context.getSocketFactory();
    }

    /** Ports that were free a moment ago. They stay the same over restarts, as clients know them. */
    private static int[] freePorts(int count) throws IOException {
        ServerSocket[] sockets = new ServerSocket[count];
        int[] ports = new int[count];
        for (int i = 0; i < count; i++) {
            sockets[i] = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"));
            ports[i] = sockets[i].getLocalPort();
        }
        for (ServerSocket socket : sockets) {
            socket.close();
        }
        return ports;
    }

    private static void delete(File file) {
        File[] children = file.listFiles();
        for (File child : children == null ? new File[0] : children) {
            delete(child);
        }
        if (!file.delete()) {
            System.err.println("not deleted: " + file);
        }
    }

    private static long millisSince(long nanos) {
        return (System.nanoTime() - nanos) / 1_000_000;
    }
}
