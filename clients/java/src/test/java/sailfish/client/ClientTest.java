package sailfish.client;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.io.DataInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.security.KeyStore;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;

/** The driver over real sockets of loopback, with a server that does what the test says. */
public class ClientTest {
    private static final int WAIT_S = 20;
    private static final char[] PASSWORD = "password".toCharArray();

    private ServerSocket server;
    private Client client;
    private Socket socket;
    private final Events events = new Events();

    /** What the listener hears, as text. */
    private static final class Events implements Listener {
        final LinkedBlockingQueue<String> heard = new LinkedBlockingQueue<>();
        volatile int failures;

        @Override
        public void onOnline() {
            heard.add("online");
        }

        @Override
        public void onOffline(String reason, long retryMs) {
            heard.add("offline: " + reason);
        }

        @Override
        public void onMessage(Message message) throws Exception {
            if (failures-- > 0) {
                throw new Exception("no place");
            }
            heard.add(message.toString());
        }

        @Override
        public void onOutcome(Outcome outcome) {
            heard.add(outcome.toString());
        }

        @Override
        public void onError(Exception error) {
            heard.add("error: " + error.getMessage());
        }

        @Override
        public void onEnded(Ended reason) {
            heard.add("ended: " + reason);
        }
    }

    @Before
    public void listen() throws IOException {
        server = new ServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
    }

    @After
    public void end() throws IOException {
        if (client != null) {
            client.close();
        }
        if (socket != null) {
            socket.close();
        }
        server.close();
    }

    @Test
    public void logsInSendsReceivesAndLogsOut() throws Exception {
        start(tcp());
        accept();
        client.sendToUser(5, "hi");
        byte[] sent = read(Wire.BUSINESS);
        assertFalse(client.awaitSent(50));
        write(Script.userMessage(1, 5, "a"));
        hears("message 1 of 5 'a' 6001 hi");
        assertEquals(8, read(Wire.ACK).length);
        String id = new String(sent, 13, 36, "US-ASCII");
        write(Script.sendAckFrame(id, 1, 0));
        hears("outcome of " + id + ": DELIVERED");
        assertTrue(client.awaitSent(1_000));
        client.close();
        read(Wire.LOGOUT);
        write(Script.frame(Wire.LOGOUT, new Buffer(1)));
        hears("ended: LOGOUT");
        assertFalse(client.isOnline());
    }

    @Test
    public void comesBackAndMayBeStartedAgain() throws Exception {
        start(tcp());
        accept();
        socket.close();
        hears("offline: the server closed the connection");
        accept();
        write(Script.frame(Wire.NOTICE, new Buffer(8).u16(Notice.KICKED).i32(0)));
        hears("ended: KICKED");
        client.start(events);
        accept();
    }

    @Test
    public void aKickIsHeardThoughTheConnectionIsReset() throws Exception {
        start(tcp());
        accept();
        write(Script.frame(Wire.NOTICE, new Buffer(8).u16(Notice.KICKED).i32(0)));
        socket.setSoLinger(true, 0);
        Thread.sleep(20);
        socket.close();
        for (int i = 0; i < 100; i++) {
            client.hint(6002, 5, new byte[1000]);
        }
        hears("ended: KICKED");
    }

    @Test
    public void whatTheListenerCouldNotTakeIsNotAcked() throws Exception {
        events.failures = 1;
        start(tcp());
        accept();
        write(Script.userMessage(1, 5, "a"));
        write(Script.userMessage(2, 5, "b"));
        hears("error: no place");
        hears("message 2 of 5 'b' 6001 hi");
        assertEquals(2, read(Wire.ACK)[7]);
        write(Script.userMessage(1, 5, "a"));
        hears("message 1 of 5 'a' 6001 hi");
        assertEquals(1, read(Wire.ACK)[7]);
    }

    @Test
    public void asksForATokenAgainWhenTheProviderFails() throws Exception {
        final int[] asked = {0};
        start(tcp().token(new TokenProvider() {
            @Override
            public Token token() throws Exception {
                if (asked[0]++ == 0) {
                    throw new IOException("the backend is down");
                }
                return Token.of(Script.TOKEN);
            }
        }));
        hears("offline: no token: java.io.IOException: the backend is down");
        accept();
    }

    @Test
    public void tlsChecksTheHostAndTheCertificate() throws Exception {
        File store = certificate("localhost");
        try {
            SSLContext context = context(store);
            server.close();
            server = context.getServerSocketFactory().createServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
            String address = "tls://localhost:" + server.getLocalPort();

            Client.Builder trusting = Client.builder(address).token(Script.TOKEN);
            start(trusting.sslSocketFactory(context.getSocketFactory()));
            accept();
            socket.close();
            client.close();
            hears("ended: LOGOUT");

            Client.Builder byAddress = Client.builder(address.replace("localhost", "127.0.0.1")).token(Script.TOKEN);
            start(byAddress.sslSocketFactory(context.getSocketFactory()));
            assertHandshakeFails();
            client.close();
            hears("ended: LOGOUT");

            start(Client.builder(address).token(Script.TOKEN));
            assertHandshakeFails();
        } finally {
            assertTrue(store.delete());
        }
    }

    private Client.Builder tcp() {
        return Client.builder("tcp://127.0.0.1:" + server.getLocalPort()).token(Script.TOKEN);
    }

    private void start(Client.Builder builder) {
        Options options = new Options().backoffMs(20);
        client = builder.options(options).daemon(true).build();
        client.start(events);
    }

    /** Takes the client's next connection, and answers its login. */
    private void accept() throws Exception {
        server.setSoTimeout(WAIT_S * 1_000);
        socket = server.accept();
        socket.setSoTimeout(WAIT_S * 1_000);
        read(Wire.LOGIN);
        write(Script.frame(Wire.LOGIN, new Buffer(4).i32(30_000)));
        hears("online");
    }

    private void assertHandshakeFails() throws Exception {
        socket = server.accept();
        try {
            InputStream in = socket.getInputStream();
            assertEquals(-1, in.read());
        } catch (IOException e) {
            // That the client said why is as good.
        }
        String heard = events.heard.poll(WAIT_S, TimeUnit.SECONDS);
        assertTrue(heard, heard.startsWith("offline: "));
    }

    /** Reads frames up to the first one of the code, and returns its body. */
    private byte[] read(int code) throws IOException {
        DataInputStream in = new DataInputStream(socket.getInputStream());
        while (true) {
            assertEquals(Wire.MAGIC, in.readUnsignedShort());
            int found = in.readInt();
            byte[] body = new byte[in.readInt()];
            in.readFully(body);
            if (found == code) {
                return body;
            }
        }
    }

    private void write(Buffer frame) throws IOException {
        socket.getOutputStream().write(frame.takeAll());
        socket.getOutputStream().flush();
    }

    /** Waits until the listener hears that, whatever comes before. */
    private void hears(String text) throws InterruptedException {
        StringBuilder others = new StringBuilder();
        String heard = events.heard.poll(WAIT_S, TimeUnit.SECONDS);
        while (heard != null && !heard.equals(text)) {
            others.append(heard).append("; ");
            heard = events.heard.poll(WAIT_S, TimeUnit.SECONDS);
        }
        if (heard == null) {
            fail("not heard: " + text + "; but " + others);
        }
    }

    private static File certificate(String host) throws Exception {
        File store = File.createTempFile("sailfish", ".p12");
        assertTrue(store.delete());
        Process keytool = new ProcessBuilder(System.getProperty("java.home") + "/bin/keytool", "-genkeypair", "-alias", "server",
                        "-keyalg", "EC", "-dname", "CN=" + host, "-ext", "SAN=dns:" + host, "-storetype", "PKCS12",
                        "-keystore", store.getPath(), "-storepass", new String(PASSWORD))
                .redirectErrorStream(true)
                .start();
        assertEquals(0, keytool.waitFor());
        return store;
    }

    /** Serves with the certificate, and trusts it. */
    private static SSLContext context(File file) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (FileInputStream in = new FileInputStream(file)) {
            store.load(in, PASSWORD);
        }
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        trusted.setCertificateEntry("server", store.getCertificate("server"));
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(store, PASSWORD);
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }
}
