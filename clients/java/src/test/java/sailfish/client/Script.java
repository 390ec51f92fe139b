package sailfish.client;

import static org.junit.Assert.assertEquals;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

/**
 * A core with a simulated clock: a test plays the server and the application, and sees all effects and frames
 * as text.
 */
final class Script {
    static final String TOKEN = "h.e.s";

    final ClientCore core;
    long now = 1_000_000;
    /** What the core wanted, as text; emptied by {@link #effects}. */
    private final List<String> effects = new ArrayList<>();
    /** Whether the application takes messages by itself. */
    boolean takes = true;
    Message last;

    Script(String... endpoints) {
        this(new Options(), endpoints);
    }

    Script(Options options, String... endpoints) {
        List<Endpoint> parsed = new ArrayList<>();
        for (String endpoint : endpoints.length == 0 ? new String[] {"tcp://a:1"} : endpoints) {
            parsed.add(Endpoint.parse(endpoint));
        }
        core = new ClientCore(parsed, options, new Random(7));
    }

    /** A session that is online, with nothing yet said or done. */
    static Script online(Options options, String... endpoints) {
        Script script = new Script(options, endpoints);
        script.core.start(script.now);
        script.core.token(TOKEN, -1, script.now);
        script.core.connected(script.now);
        script.loggedIn(30_000);
        script.effects();
        script.sent();
        return script;
    }

    static Script online() {
        return online(new Options());
    }

    /** Lets the core see the time go by, timer by timer. */
    Script pass(long ms) {
        long end = now + ms;
        for (int steps = 0; core.wakeAt() <= end; steps++) {
            assertEquals("timers without end at " + now, true, steps < 10_000);
            now = Math.max(now, core.wakeAt());
            core.tick(now);
            drain();
        }
        now = end;
        return this;
    }

    /** Lets time pass until the core connects. Returns how long it took. */
    long untilConnect() {
        long start = now;
        while (!effects.toString().contains("connect tcp") && now < start + 3_600_000) {
            pass(1);
        }
        return now - start;
    }

    /** Goes on from a connect that the core asked for to a session that is online. */
    Script comeBack() {
        untilConnect();
        core.connected(now);
        drain();
        return loggedIn(30_000);
    }

    Script receive(Buffer frames) {
        return receive(frames.takeAll());
    }

    Script receive(byte[] bytes) {
        core.received(bytes, 0, bytes.length, now);
        drain();
        return this;
    }

    void drain() {
        Effect effect = core.poll();
        while (effect != null) {
            effects.add(effect.toString());
            if (effect instanceof Effect.Deliver) {
                last = ((Effect.Deliver) effect).message;
                if (takes) {
                    core.taken(last, now);
                }
            }
            effect = core.poll();
        }
    }

    /** Returns what the core has wanted since it was asked last. */
    List<String> effects() {
        drain();
        List<String> taken = new ArrayList<>(effects);
        effects.clear();
        return taken;
    }

    /** Returns the frames that the core has written since it was asked last, as text. */
    List<String> sent() {
        drain();
        Buffer out = new Buffer(16);
        out.put(core.output(now));
        List<String> frames = new ArrayList<>();
        while (out.size() >= Wire.HEADER_BYTES) {
            int code = out.i32At(2);
            int length = out.i32At(6);
            out.skip(Wire.HEADER_BYTES);
            frames.add(show(code, out.take(length)));
        }
        assertEquals("half a frame", 0, out.size());
        return frames;
    }

    private static String show(int code, byte[] bytes) {
        Buffer body = new Buffer(16);
        body.put(bytes);
        switch (code) {
            case Wire.LOGIN:
                return "login " + new String(bytes, StandardCharsets.UTF_8);
            case Wire.BUSINESS:
                int idLength = body.u8At(12);
                String id = new String(body.copy(13, idLength), StandardCharsets.UTF_8);
                return "business " + body.i32At(0) + " to " + body.i64At(4) + " " + id;
            case Wire.ACK:
                StringBuilder ids = new StringBuilder("ack");
                for (int i = 0; i < bytes.length; i += 8) {
                    ids.append(' ').append(body.i64At(i));
                }
                return ids.toString();
            case Wire.JOIN:
                String want = bytes.length == 8 ? "" : body.u8At(8) == 1 ? " since " : " last ";
                return "join " + body.i64At(0) + want + (bytes.length == 8 ? "" : "" + body.i64At(9));
            case Wire.LEAVE:
                return "leave " + body.i64At(0);
            case Wire.HEARTBEAT:
                return "heartbeat";
            case Wire.LOGOUT:
                return "logout";
            default:
                return "code " + code;
        }
    }

    // The server's frames.

    Script loggedIn(int heartbeatMs) {
        return receive(frame(Wire.LOGIN, new Buffer(8).i32(heartbeatMs)));
    }

    Script sendAck(String id, int outcome, long detail) {
        return receive(sendAckFrame(id, outcome, detail));
    }

    Script joined(long room, long sequence) {
        return receive(frame(Wire.JOIN, new Buffer(8).i64(room).i64(sequence)));
    }

    Script joined(long room, long sequence, int recovery) {
        return receive(frame(Wire.JOIN, new Buffer(8).i64(room).i64(sequence).u8(recovery)));
    }

    Script notice(int code, int retryAfterMs, String text) {
        return receive(frame(Wire.NOTICE, new Buffer(8).u16(code).i32(retryAfterMs).utf8(text)));
    }

    Script say(long id, long room, long sequence) {
        return receive(roomMessage(id, room, sequence, ""));
    }

    static Buffer sendAckFrame(String id, int outcome, long detail) {
        return frame(Wire.SEND_ACK, new Buffer(8).u8(outcome).i64(detail).i64(42).u8(id.length()).utf8(id));
    }

    static Buffer roomMessage(long id, long room, long sequence, String clientMsgId) {
        Buffer body = new Buffer(8).u8(2).i32(5555).i64(id).i64(10002).i64(room).i64(sequence);
        return frame(Wire.BUSINESS, body.u8(clientMsgId.length()).utf8(clientMsgId).utf8("hi"));
    }

    /** A message that wants an ack. */
    static Buffer userMessage(long id, long sender, String clientMsgId) {
        Buffer body = new Buffer(8).u8(1).i32(6001).i64(id).i64(sender);
        return frame(Wire.BUSINESS, body.u8(clientMsgId.length()).utf8(clientMsgId).utf8("hi"));
    }

    static Buffer frame(int code, Buffer body) {
        return new Buffer(16).u16(Wire.MAGIC).i32(code).i32(body.size()).put(body.takeAll());
    }

    Script send(long target, String... ids) {
        for (String id : ids) {
            core.send(new Unsent(5555, target, id, new byte[] {'h', 'i'}), now);
        }
        return this;
    }

    static List<String> list(String... texts) {
        return Arrays.asList(texts);
    }
}
