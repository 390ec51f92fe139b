package sailfish.client;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

/**
 * One connection, in clear or by TLS. Blocking sockets need two threads of their own: one connects and then
 * reads, the other writes, so that neither a silent server nor one that does not read holds up the client.
 */
final class Connection {
    private static final int READ_BYTES = 16 << 10;

    /**
     * Who hears of the connection, on its threads. Nothing comes after {@link #close} has returned, but for
     * what is under way.
     */
    interface Owner {
        void onConnected(Connection connection);

        /** May block, which lets the server wait. */
        void onBytes(Connection connection, byte[] bytes, int length) throws InterruptedException;

        void onWritten(Connection connection);

        void onEnd(Connection connection, String reason);
    }

    private final Endpoint endpoint;
    private final SSLSocketFactory sslSocketFactory;
    private final int connectMs;
    private final Owner owner;
    private final Object lock = new Object();
    private final Thread reader;
    private Socket raw;
    private byte[] toWrite;
    private boolean closed;

    /** Uses the platform's factory if {@code sslSocketFactory} is null. */
    Connection(Endpoint endpoint, SSLSocketFactory sslSocketFactory, long connectMs, Owner owner) {
        this.endpoint = endpoint;
        this.sslSocketFactory = sslSocketFactory;
        this.connectMs = (int) Math.min(connectMs, Integer.MAX_VALUE);
        this.owner = owner;
        this.reader = thread("sailfish-read", new Runnable() {
            @Override
            public void run() {
                connectAndRead();
            }
        });
    }

    void open() {
        reader.start();
    }

    /** Hands over bytes; only after the connection is made, and after the bytes before have been written. */
    void write(byte[] bytes) {
        synchronized (lock) {
            toWrite = bytes;
            lock.notifyAll();
        }
    }

    /** Ends the connection at once, whatever its threads are at. */
    void close() {
        Socket socket;
        synchronized (lock) {
            closed = true;
            socket = raw;
            lock.notifyAll();
        }
        reader.interrupt();
        // Below TLS: its own close would wait for a write that is stuck.
        closeQuietly(socket);
    }

    private void connectAndRead() {
        try {
            Socket socket = connect();
            synchronized (lock) {
                if (closed) {
                    return;
                }
            }
            startWriter(socket.getOutputStream());
            owner.onConnected(this);
            InputStream in = socket.getInputStream();
            byte[] bytes = new byte[READ_BYTES];
            int length = in.read(bytes);
            while (length >= 0) {
                owner.onBytes(this, bytes, length);
                length = in.read(bytes);
            }
            owner.onEnd(this, "the server closed the connection");
        } catch (IOException | RuntimeException e) {
            // The message alone may be no more than the name of the host.
            owner.onEnd(this, e.getClass().getSimpleName() + ": " + e.getMessage());
        } catch (InterruptedException e) {
            // Closed by its owner, who knows.
        } finally {
            close();
        }
    }

    private Socket connect() throws IOException {
        InetAddress[] addresses = InetAddress.getAllByName(endpoint.bareHost());
        IOException failure = null;
        for (InetAddress address : addresses) {
            Socket socket = new Socket();
            synchronized (lock) {
                if (closed) {
                    throw new IOException("closed");
                }
                raw = socket;
            }
            try {
                socket.connect(new InetSocketAddress(address, endpoint.port), Math.max(1, connectMs / addresses.length));
                socket.setTcpNoDelay(true);
                return endpoint.isTls() ? secure(socket) : socket;
            } catch (IOException e) {
                failure = e;
                closeQuietly(socket);
            }
        }
        throw failure;
    }

    /** Makes the TLS handshake, and checks that the certificate is the host's. */
    private Socket secure(Socket socket) throws IOException {
        String host = endpoint.bareHost();
        SSLSocketFactory factory = sslSocketFactory != null ? sslSocketFactory : (SSLSocketFactory) SSLSocketFactory.getDefault();
        SSLSocket secure = (SSLSocket) factory.createSocket(socket, host, endpoint.port, true);
        boolean checkedByPlatform = checkHostInHandshake(secure);
        // The handshake has its time limit from the client, which closes the socket when it is over.
        secure.startHandshake();
        if (!checkedByPlatform && !HttpsURLConnection.getDefaultHostnameVerifier().verify(host, secure.getSession())) {
            throw new IOException("the server's certificate is not one of " + host);
        }
        return secure;
    }

    /** Returns false on Android before API level 24, which cannot check the host in the handshake. */
    private static boolean checkHostInHandshake(SSLSocket socket) {
        try {
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            socket.setSSLParameters(parameters);
            return true;
        } catch (NoSuchMethodError e) {
            return false;
        }
    }

    private void startWriter(final OutputStream out) {
        thread("sailfish-write", new Runnable() {
            @Override
            public void run() {
                writeAll(out);
            }
        }).start();
    }

    private void writeAll(OutputStream out) {
        try {
            byte[] bytes = nextToWrite();
            while (bytes != null) {
                out.write(bytes);
                out.flush();
                owner.onWritten(this);
                bytes = nextToWrite();
            }
        } catch (IOException e) {
            // The reader comes to the end, too, but first to what the server said before it: such as that it
            // has kicked this client, which then must not come back.
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    /** Waits for bytes; returns null when the connection is closed. */
    private byte[] nextToWrite() throws InterruptedException {
        synchronized (lock) {
            while (toWrite == null && !closed) {
                lock.wait();
            }
            byte[] bytes = closed ? null : toWrite;
            toWrite = null;
            return bytes;
        }
    }

    private static Thread thread(String name, Runnable body) {
        Thread thread = new Thread(body, name);
        thread.setDaemon(true);
        return thread;
    }

    private static void closeQuietly(Socket socket) {
        try {
            if (socket != null) {
                socket.close();
            }
        } catch (IOException e) {
            // It is gone either way.
        }
    }
}
