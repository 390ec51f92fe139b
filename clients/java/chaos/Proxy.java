import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/**
 * Passes bytes on between clients and a server of this machine, and cuts connections wherever they are at
 * that moment.
 */
final class Proxy {
    private final int serverPort;
    private final ServerSocket listener = new ServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
    private final List<Socket> clients = new ArrayList<>();
    private final Random random = new Random(1);

    Proxy(int serverPort) throws IOException {
        this.serverPort = serverPort;
        thread(this::accept);
    }

    int port() {
        return listener.getLocalPort();
    }

    /** Resets a connection, or ends it in order. */
    synchronized void cutOne() throws IOException {
        if (!clients.isEmpty()) {
            Socket client = clients.remove(random.nextInt(clients.size()));
            if (random.nextBoolean()) {
                client.setSoLinger(true, 0);
            }
            client.close();
        }
    }

    private void accept() throws IOException {
        while (true) {
            Socket client = listener.accept();
            Socket server = new Socket("127.0.0.1", serverPort);
            synchronized (this) {
                clients.add(client);
            }
            thread(() -> pass(client, server));
            thread(() -> pass(server, client));
        }
    }

    private void pass(Socket from, Socket to) throws IOException {
        try (Socket source = from; Socket target = to) {
            InputStream in = source.getInputStream();
            OutputStream out = target.getOutputStream();
            byte[] bytes = new byte[1000];
            int length = in.read(bytes);
            while (length >= 0) {
                out.write(bytes, 0, length);
                length = in.read(bytes);
            }
        } finally {
            synchronized (this) {
                clients.remove(from);
                clients.remove(to);
            }
        }
    }

    private interface Body {
        void run() throws IOException;
    }

    private static void thread(Body body) {
        Thread thread = new Thread(() -> {
            try {
                body.run();
            } catch (IOException e) {
                // A connection that was cut, as it is meant to be.
            }
        });
        thread.setDaemon(true);
        thread.start();
    }
}
