package sailfish.client;

import static org.junit.Assert.assertEquals;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.Test;

/** A captured stream of the server gives the same, wherever TCP cuts it. */
public class SplitTest {
    @Test
    public void everySplitOfAStreamGivesTheSame() {
        assertEverySplit("tcp://a:1", stream());
    }

    @Test
    public void everySplitOfAWebSocketGivesTheSame() {
        byte[] frames = stream();
        Buffer wire = new Buffer(16);
        wire.put(answer());
        // The first message in three fragments with a ping between them, the rest in one with a long length.
        serverFrame(wire, 0x02, Arrays.copyOfRange(frames, 0, 3));
        serverFrame(wire, 0x89, new byte[] {1, 2, 3});
        serverFrame(wire, 0x00, new byte[0]);
        serverFrame(wire, 0x80, Arrays.copyOfRange(frames, 3, 14));
        serverFrame(wire, 0x82, Arrays.copyOfRange(frames, 14, frames.length));
        assertEverySplit("ws://a:1/", wire.takeAll());
    }

    @Test
    public void noBytesOfAServerHarmTheClient() {
        Random random = new Random(1);
        byte[] good = stream();
        byte[] answer = answer();
        for (int round = 0; round < 20_000; round++) {
            boolean webSocket = round % 2 == 0;
            Buffer wire = new Buffer(16);
            byte[] bad = mutated(good, random);
            if (webSocket) {
                wire.put(answer);
                serverFrame(wire, 0x82, bad);
            } else {
                wire.put(bad);
            }
            byte[] bytes = webSocket && round % 3 == 0 ? mutated(wire.takeAll(), random) : wire.takeAll();
            play(webSocket ? "ws://a:1/" : "tcp://a:1", bytes, random.nextInt(bytes.length), bytes.length);
        }
    }

    @Test
    public void aNoticeOfNothingButALineBreakIsOne() {
        byte[] notice = Script.frame(Wire.NOTICE, new Buffer(8).u16(2).i32(0).utf8("\n")).takeAll();
        assertEquals("[notice draining (), disconnect, offline: the server said draining ()]",
                play("tcp://a:1", notice, 0, notice.length).toString());
    }

    /** Changes a few bytes, mostly slightly. */
    private static byte[] mutated(byte[] good, Random random) {
        byte[] bad = good.clone();
        for (int i = random.nextInt(4); i >= 0; i--) {
            bad[random.nextInt(bad.length)] = (byte) (random.nextBoolean() ? random.nextInt(256) : random.nextInt(4));
        }
        return bad;
    }

    private static void assertEverySplit(String endpoint, byte[] bytes) {
        List<String> whole = play(endpoint, bytes, bytes.length, bytes.length);
        assertEquals(whole.toString(), 9, whole.size());
        for (int split = 0; split <= bytes.length; split++) {
            assertEquals("split at " + split, whole, play(endpoint, bytes, split, bytes.length));
        }
        assertEquals("byte by byte", whole, play(endpoint, bytes, 0, 1));
    }

    /**
     * Hands over the bytes up to {@code split} and what is left in parts of {@code part}. Returns the effects
     * and the acks.
     */
    private static List<String> play(String endpoint, byte[] bytes, int split, int part) {
        Script script = new Script(endpoint);
        script.core.start(script.now);
        script.core.token(Script.TOKEN, -1, script.now);
        script.core.connected(script.now);
        script.core.join(7, History.NONE, script.now);
        script.effects();
        script.core.received(bytes, 0, split, script.now);
        for (int at = split; at < bytes.length; at += part) {
            script.core.received(bytes, at, Math.min(part, bytes.length - at), script.now);
        }
        return script.effects();
    }

    private static byte[] stream() {
        Buffer stream = new Buffer(16);
        stream.put(Script.frame(Wire.LOGIN, new Buffer(4).i32(30_000)).takeAll());
        stream.put(Script.frame(Wire.JOIN, new Buffer(16).i64(7).i64(9)).takeAll());
        stream.put(Script.roomMessage(42, 7, 10, "m1").takeAll());
        stream.put(Script.userMessage(43, 5, "").takeAll());
        stream.put(Script.frame(Wire.HEARTBEAT, new Buffer(1)).takeAll());
        stream.put(Script.frame(Wire.NOTICE, new Buffer(8).u16(100).i32(0).utf8("text")).takeAll());
        stream.put(Script.frame(Wire.LEAVE, new Buffer(8).i64(7)).takeAll());
        stream.put(Script.frame(Wire.NOTICE, new Buffer(8).u16(1).i32(0).utf8("kicked")).takeAll());
        return stream.takeAll();
    }

    /** The server's answer to the handshake. */
    private static byte[] answer() {
        Buffer head = new Buffer(16);
        head.utf8("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
                + "Sec-WebSocket-Accept: " + WebSocket.accept(key()) + "\r\n\r\n");
        return head.takeAll();
    }

    /** The handshake's key, which the seed of the script decides. */
    private static String key() {
        Script script = new Script("ws://a:1/");
        script.core.start(script.now);
        script.core.token(Script.TOKEN, -1, script.now);
        script.core.connected(script.now);
        String request = new String(script.core.output(script.now), StandardCharsets.US_ASCII);
        return request.split("Sec-WebSocket-Key: ")[1].split("\r\n")[0];
    }

    private static void serverFrame(Buffer wire, int first, byte[] payload) {
        wire.u8(first);
        if (payload.length < 126) {
            wire.u8(payload.length);
        } else {
            wire.u8(126).u16(payload.length);
        }
        wire.put(payload);
    }
}
