package sailfish.client;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Locale;
import java.util.Random;

/**
 * The client's side of WebSocket (RFC 6455), with frames of the protocol in binary messages. A message's
 * bytes go on as they come, fragment by fragment, so that the longest message needs no buffer of its size.
 */
final class WebSocket implements Carrier {
    private static final String SUBPROTOCOL = "sailfish.v1.binary";
    /** RFC 6455, section 1.3. */
    private static final String GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    private static final int HEAD_BYTES_MAX = 16 << 10;
    private static final int ERROR_TEXT_BYTES_MAX = 200;
    private static final int CONTROL_BYTES_MAX = 125;
    /**
     * Pongs are dropped while so much waits to be written: a server that pings without reading gets no more
     * memory.
     */
    private static final int WIRE_BYTES_MAX = 256 << 10;

    private static final int CONTINUATION = 0;
    private static final int TEXT = 1;
    private static final int BINARY = 2;
    private static final int CLOSE = 8;
    private static final int PING = 9;
    private static final int PONG = 10;

    private static final int NORMAL = 1000;
    private static final int NO_STATUS = 1005;

    private final Endpoint endpoint;
    private final Random random;
    private final String key;
    private boolean open;
    private CloseFrame closed;
    /** Whether a message has begun and its last fragment has not. */
    private boolean inMessage;
    /** What is left of the data frame whose payload is coming. */
    private long payloadLeft;

    /**
     * Keys and masks come from {@code random}; against caches that fall for crafted bytes, it must not be
     * predictable.
     */
    WebSocket(Endpoint endpoint, Random random) {
        this.endpoint = endpoint;
        this.random = random;
        byte[] nonce = new byte[16];
        random.nextBytes(nonce);
        this.key = Base64.encode(nonce);
    }

    @Override
    public void open(Buffer wire) {
        wire.utf8("GET " + endpoint.path + " HTTP/1.1\r\n"
                + "Host: " + endpoint.host + ":" + endpoint.port + "\r\n"
                + "Upgrade: websocket\r\n"
                + "Connection: Upgrade\r\n"
                + "Sec-WebSocket-Key: " + key + "\r\n"
                + "Sec-WebSocket-Version: 13\r\n"
                + "Sec-WebSocket-Protocol: " + SUBPROTOCOL + "\r\n\r\n");
    }

    @Override
    public boolean isOpen() {
        return open;
    }

    @Override
    public CloseFrame closed() {
        return closed;
    }

    @Override
    public void receive(Buffer in, Buffer frames, Buffer wire) throws ProtocolException {
        if (!open && !readHead(in)) {
            return;
        }
        while (closed == null) {
            if (payloadLeft > 0) {
                int length = (int) Math.min(payloadLeft, in.size());
                frames.put(in.take(length));
                payloadLeft -= length;
                if (payloadLeft > 0) {
                    return;
                }
            } else if (!readFrameHead(in, wire)) {
                return;
            }
        }
    }

    @Override
    public void send(byte[] frames, Buffer wire) {
        frame(BINARY, frames, wire);
    }

    /** Reads the answer to the handshake; returns false while it is not complete. */
    private boolean readHead(Buffer in) throws ProtocolException {
        int end = headEnd(in);
        if (end < 0) {
            if (in.size() > HEAD_BYTES_MAX) {
                throw new ProtocolException("an answer without end to the WebSocket handshake");
            }
            return false;
        }
        String[] lines = new String(in.copy(0, end), StandardCharsets.ISO_8859_1).split("\r\n");
        if (!lines[0].matches("HTTP/1\\.1 101(| .*)")) {
            int length = Math.min(ERROR_TEXT_BYTES_MAX, in.size() - end);
            String text = new String(in.copy(end, length), StandardCharsets.UTF_8).trim();
            throw new ProtocolException("the WebSocket handshake was answered with " + lines[0] + " " + text);
        }
        in.skip(end);
        boolean connection = hasToken(header(lines, "connection"), "upgrade");
        if (!connection || !hasToken(header(lines, "upgrade"), "websocket")) {
            throw new ProtocolException("an answer to the WebSocket handshake that does not upgrade");
        }
        if (!accept(key).equals(header(lines, "sec-websocket-accept"))) {
            throw new ProtocolException("an answer to another WebSocket handshake");
        }
        if (header(lines, "sec-websocket-extensions") != null) {
            throw new ProtocolException("a WebSocket extension that was not offered");
        }
        String subprotocol = header(lines, "sec-websocket-protocol");
        if (subprotocol != null && !subprotocol.equals(SUBPROTOCOL)) {
            throw new ProtocolException("a WebSocket subprotocol that was not offered: " + subprotocol);
        }
        open = true;
        return true;
    }

    /** Returns where the empty line ends, or -1. */
    private static int headEnd(Buffer in) {
        for (int i = 3; i < in.size(); i++) {
            if (in.u8At(i) == '\n' && in.u8At(i - 1) == '\r' && in.u8At(i - 2) == '\n' && in.u8At(i - 3) == '\r') {
                return i + 1;
            }
        }
        return -1;
    }

    private static String header(String[] lines, String name) {
        for (String line : lines) {
            int colon = line.indexOf(':');
            if (colon > 0 && line.substring(0, colon).toLowerCase(Locale.ROOT).equals(name)) {
                return line.substring(colon + 1).trim();
            }
        }
        return null;
    }

    private static boolean hasToken(String list, String token) {
        for (String item : list == null ? new String[0] : list.split(",")) {
            if (item.trim().toLowerCase(Locale.ROOT).equals(token)) {
                return true;
            }
        }
        return false;
    }

    static String accept(String key) {
        try {
            MessageDigest sha1 = MessageDigest.getInstance("SHA-1");
            return Base64.encode(sha1.digest((key + GUID).getBytes(StandardCharsets.US_ASCII)));
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java platform has SHA-1", e);
        }
    }

    /** Reads a frame up to its payload, or a whole control frame; returns false while it is not complete. */
    private boolean readFrameHead(Buffer in, Buffer wire) throws ProtocolException {
        if (in.size() < 2) {
            return false;
        }
        int first = in.u8At(0);
        int second = in.u8At(1);
        boolean last = (first & 0x80) != 0;
        int opcode = first & 0x0f;
        int shortLength = second & 0x7f;
        boolean control = opcode >= CLOSE;
        check(first, second, opcode, control, last, shortLength);
        int head = shortLength == 126 ? 4 : shortLength == 127 ? 10 : 2;
        if (in.size() < head || control && in.size() < head + shortLength) {
            return false;
        }
        long length = shortLength == 126 ? in.u16At(2) : shortLength == 127 ? in.i64At(2) : shortLength;
        if (length < 0) {
            throw new ProtocolException("a WebSocket frame of 2^63 bytes or more");
        }
        in.skip(head);
        if (control) {
            control(opcode, in.take(shortLength), wire);
        } else {
            inMessage = !last;
            payloadLeft = length;
        }
        return true;
    }

    private void check(int first, int second, int opcode, boolean control, boolean last, int shortLength)
            throws ProtocolException {
        boolean known = opcode <= BINARY || opcode >= CLOSE && opcode <= PONG;
        if (!known || (first & 0x70) != 0 || (second & 0x80) != 0 || control && (!last || shortLength > CONTROL_BYTES_MAX)) {
            throw new ProtocolException("a WebSocket frame that is not allowed");
        }
        if (opcode == TEXT) {
            throw new ProtocolException("a WebSocket text instead of bytes");
        }
        if (!control && inMessage != (opcode == CONTINUATION)) {
            throw new ProtocolException("a WebSocket message within another, or without its beginning");
        }
    }

    private void control(int opcode, byte[] payload, Buffer wire) throws ProtocolException {
        if (opcode == PING && wire.size() < WIRE_BYTES_MAX) {
            frame(PONG, payload, wire);
        }
        if (opcode != CLOSE) {
            return;
        }
        if (payload.length == 1) {
            throw new ProtocolException("a WebSocket Close with half a code");
        }
        int code = payload.length == 0 ? NO_STATUS : (payload[0] & 0xff) << 8 | payload[1] & 0xff;
        String reason = payload.length == 0 ? "" : new String(payload, 2, payload.length - 2, StandardCharsets.UTF_8);
        closed = new CloseFrame(code, reason);
        int echo = code == NO_STATUS ? NORMAL : code;
        frame(CLOSE, new byte[] {(byte) (echo >>> 8), (byte) echo}, wire);
    }

    private void frame(int opcode, byte[] payload, Buffer wire) {
        int length = payload.length;
        wire.u8(0x80 | opcode);
        if (length < 126) {
            wire.u8(0x80 | length);
        } else if (length < 1 << 16) {
            wire.u8(0x80 | 126).u16(length);
        } else {
            wire.u8(0x80 | 127).i64(length);
        }
        byte[] mask = new byte[4];
        random.nextBytes(mask);
        wire.put(mask);
        byte[] masked = new byte[length];
        for (int i = 0; i < length; i++) {
            masked[i] = (byte) (payload[i] ^ mask[i & 3]);
        }
        wire.put(masked);
    }
}
