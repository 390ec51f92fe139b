package sailfish.client;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Random;
import org.junit.Test;

/** RFC 6455, the client's side. */
public class WebSocketTest {
    private final Buffer in = new Buffer(16);
    private final Buffer frames = new Buffer(16);
    private final Buffer wire = new Buffer(16);

    @Test
    public void theAcceptIsThatOfTheRfc() {
        assertEquals("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", WebSocket.accept("dGhlIHNhbXBsZSBub25jZQ=="));
    }

    @Test
    public void asksForTheBinarySubprotocol() {
        WebSocket socket = new WebSocket(Endpoint.parse("ws://example.org:5349/im?x=1"), new Random(1));
        socket.open(wire);
        String request = text(wire);
        assertTrue(request, request.startsWith("GET /im?x=1 HTTP/1.1\r\nHost: example.org:5349\r\n"));
        assertTrue(request, request.contains("\r\nSec-WebSocket-Protocol: sailfish.v1.binary\r\n"));
        assertTrue(request, request.endsWith("\r\n\r\n"));
    }

    @Test
    public void anAnswerThatIsNoneIsRefused() throws Exception {
        String good = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: upgrade\r\n"
                + "sec-websocket-accept: ACCEPT\r\nsec-websocket-protocol: sailfish.v1.binary\r\n\r\n";
        assertTrue(answered(good).isOpen());
        assertTrue(answered(good.replace("Switching Protocols", "")).isOpen());
        assertRefused(good.replace("101", "200"));
        assertRefused(good.replace("ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assertRefused(good.replace("upgrade: WebSocket\r\n", ""));
        assertRefused(good.replace("connection: upgrade\r\n", ""));
        assertRefused(good.replace("v1.binary", "v1.json"));
        assertRefused(good.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"));
        assertRefused(new String(new char[17_000]).replace('\0', 'x'));
    }

    @Test
    public void aRefusalTellsWhatTheServerSaid() throws Exception {
        String refusal = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 11\r\n\r\nserver_full";
        try {
            answered(refusal);
            fail("was taken");
        } catch (ProtocolException e) {
            assertTrue(e.getMessage(), e.getMessage().contains("503") && e.getMessage().contains("server_full"));
        }
    }

    @Test
    public void masksWhatItSends() throws Exception {
        WebSocket socket = open();
        for (int length : new int[] {0, 1, 125, 126, 65_535, 65_536}) {
            byte[] payload = new byte[length];
            new Random(length).nextBytes(payload);
            socket.send(payload, wire);
            assertArrayEquals(payload, unmasked(0x82));
        }
    }

    @Test
    public void pingsAreAnsweredBetweenFragments() throws Exception {
        WebSocket socket = open();
        server(0x02, "ab").server(0x89, "ping").server(0x8a, "pong").server(0x80, "c");
        socket.receive(in, frames, wire);
        assertEquals("abc", text(frames));
        assertEquals("ping", new String(unmasked(0x8a), StandardCharsets.US_ASCII));
        assertEquals(0, wire.size());
    }

    @Test
    public void aCloseIsAnsweredWithItsCode() throws Exception {
        WebSocket socket = open();
        in.u8(0x88).u8(8).u16(4001).utf8("kicked");
        server(0x82, "what comes after it is not read");
        socket.receive(in, frames, wire);
        assertEquals("4001 kicked", socket.closed().code + " " + socket.closed().reason);
        assertArrayEquals(new byte[] {0x0f, (byte) 0xa1}, unmasked(0x88));
        assertEquals(0, frames.size());
        socket = open();
        server(0x88, "");
        socket.receive(in, frames, wire);
        assertEquals(1005, socket.closed().code);
    }

    @Test
    public void framesThatAreNotAllowedAreRefused() throws Exception {
        assertFrameRefused(0xc2, 0, "not allowed");
        assertFrameRefused(0x83, 0, "not allowed");
        assertFrameRefused(0x8b, 0, "not allowed");
        assertFrameRefused(0x82, 0x80, "not allowed");
        assertFrameRefused(0x81, 0, "WebSocket text");
        assertFrameRefused(0x80, 0, "without its beginning");
        assertFrameRefused(0x09, 0, "not allowed");
        assertFrameRefused(0x89, 126, "not allowed");
        assertFrameRefused(0x88, 1, "half a code");
        WebSocket socket = open();
        server(0x02, "a").server(0x82, "b");
        assertRefused(socket);
        socket = open();
        in.u8(0x82).u8(127).i64(-1);
        assertRefused(socket);
    }

    @Test
    public void aCloseFrameStandsForANoticeThatDidNotCome() throws Exception {
        Script script = new Script("ws://a:1");
        script.core.start(script.now);
        script.core.token(Script.TOKEN, -1, script.now);
        script.core.connected(script.now);
        String request = new String(script.core.output(script.now), StandardCharsets.US_ASCII);
        String key = request.split("Sec-WebSocket-Key: ")[1].split("\r\n")[0];
        script.receive(good(key).getBytes(StandardCharsets.US_ASCII));
        in.u8(0x88).u8(8).u16(4001).utf8("kicked");
        script.receive(in);
        assertEquals("[fetch token, connect ws://a:1/, notice kicked (kicked), disconnect, ended: KICKED]",
                script.effects().toString());
    }

    private static String good(String key) {
        return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                + "Sec-WebSocket-Accept: " + WebSocket.accept(key) + "\r\n\r\n";
    }

    private WebSocket answered(String answer) throws ProtocolException {
        WebSocket socket = new WebSocket(Endpoint.parse("ws://a:1"), new Random(1));
        in.clear();
        wire.clear();
        socket.open(wire);
        String key = text(wire).split("Sec-WebSocket-Key: ")[1].split("\r\n")[0];
        in.utf8(answer.replace("ACCEPT", WebSocket.accept(key)));
        socket.receive(in, frames, wire);
        return socket;
    }

    private WebSocket open() throws ProtocolException {
        return answered(good("x").replaceAll("Accept: .*", "Accept: ACCEPT"));
    }

    private WebSocketTest server(int first, String payload) {
        in.u8(first).u8(payload.length()).utf8(payload);
        return this;
    }

    /** Takes a masked frame off the wire. */
    private byte[] unmasked(int first) {
        assertEquals(first, wire.u8At(0));
        assertEquals(0x80, wire.u8At(1) & 0x80);
        int length = wire.u8At(1) & 0x7f;
        int head = length == 126 ? 4 : length == 127 ? 10 : 2;
        length = length == 126 ? wire.u16At(2) : length == 127 ? (int) wire.i64At(2) : length;
        wire.skip(head);
        byte[] mask = wire.take(4);
        byte[] payload = wire.take(length);
        for (int i = 0; i < length; i++) {
            payload[i] ^= mask[i % 4];
        }
        return payload;
    }

    private void assertFrameRefused(int first, int second, String reason) throws ProtocolException {
        WebSocket socket = open();
        in.u8(first).u8(second).put(new byte[130]);
        String refusal = assertRefused(socket);
        assertTrue(refusal, refusal.contains(reason));
    }

    private String assertRefused(WebSocket socket) {
        try {
            socket.receive(in, frames, wire);
            throw new AssertionError("was taken");
        } catch (ProtocolException e) {
            return e.getMessage();
        }
    }

    private void assertRefused(String answer) {
        try {
            assertFalse(Arrays.toString(answer.split("\r\n")), answered(answer).isOpen());
            fail(answer + " was taken");
        } catch (ProtocolException e) {
            assertFalse(e.getMessage().isEmpty());
        }
    }

    private static String text(Buffer buffer) {
        return new String(buffer.takeAll(), StandardCharsets.UTF_8);
    }
}
