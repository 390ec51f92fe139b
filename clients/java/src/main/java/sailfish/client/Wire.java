package sailfish.client;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/** The binary frames of docs/PROTOCOL.md, sections 1 and 2. */
final class Wire {
    static final int MAGIC = 0x5346;
    static final int HEADER_BYTES = 10;
    /** The server's own limit is configurable; a frame over this one is taken for garbage. */
    static final int BODY_BYTES_MAX = 4 << 20;

    static final int LOGIN = 1001;
    static final int LOGOUT = 1002;
    static final int BUSINESS = 1003;
    static final int HEARTBEAT = 1004;
    static final int ACK = 1005;
    static final int SEND_ACK = 1006;
    static final int NOTICE = 1007;
    static final int JOIN = 1010;
    static final int LEAVE = 1011;

    static final int ACK_IDS_MAX = 128;
    static final int CLIENT_MSG_ID_BYTES_MAX = 64;
    static final int WANT_SINCE = 1;
    static final int WANT_LAST = 2;

    private static final int FLAG_ACK = 1;
    private static final int FLAG_ROOM = 2;
    private static final int ALTERNATIVES_MAX = 16;

    private Wire() {}

    static void login(Buffer out, String token) {
        byte[] bytes = token.getBytes(StandardCharsets.UTF_8);
        header(out, LOGIN, bytes.length).put(bytes);
    }

    static void logout(Buffer out) {
        header(out, LOGOUT, 0);
    }

    static void business(Buffer out, int bizCode, long target, byte[] clientMsgId, byte[] payload) {
        header(out, BUSINESS, 13 + clientMsgId.length + payload.length);
        out.i32(bizCode).i64(target).u8(clientMsgId.length).put(clientMsgId).put(payload);
    }

    static void heartbeat(Buffer out, byte[] echo) {
        header(out, HEARTBEAT, echo.length).put(echo);
    }

    /** Writes as many frames as the ids need. */
    static void acks(Buffer out, List<Long> ids) {
        for (int from = 0; from < ids.size(); from += ACK_IDS_MAX) {
            List<Long> some = ids.subList(from, Math.min(ids.size(), from + ACK_IDS_MAX));
            header(out, ACK, 8 * some.size());
            for (long id : some) {
                out.i64(id);
            }
        }
    }

    static void join(Buffer out, long room) {
        header(out, JOIN, 8).i64(room);
    }

    static void join(Buffer out, long room, int want, long value) {
        header(out, JOIN, 17).i64(room).u8(want).i64(value);
    }

    static void leave(Buffer out, long room) {
        header(out, LEAVE, 8).i64(room);
    }

    private static Buffer header(Buffer out, int code, int length) {
        return out.u16(MAGIC).i32(code).i32(length);
    }

    /**
     * Takes the next whole frame from the front of a stream; returns null while there is none. What cannot
     * become a frame is refused as soon as it can be known.
     */
    static ServerFrame next(Buffer in) throws ProtocolException {
        int size = in.size();
        if (size >= 2 && in.u16At(0) != MAGIC) {
            throw new ProtocolException("bytes that are no frame: magic " + Integer.toHexString(in.u16At(0)));
        }
        if (size < HEADER_BYTES) {
            return null;
        }
        int code = in.i32At(2);
        int length = in.i32At(6);
        if (length < 0 || length > BODY_BYTES_MAX) {
            throw new ProtocolException("a frame of " + length + " bytes");
        }
        if (size < HEADER_BYTES + length) {
            return null;
        }
        in.skip(HEADER_BYTES);
        Body body = new Body(in.take(length));
        ServerFrame frame = decode(code, body);
        body.end();
        return frame;
    }

    private static ServerFrame decode(int code, Body body) throws ProtocolException {
        ServerFrame frame = new ServerFrame(code);
        switch (code) {
            case LOGIN:
                frame.heartbeatMs = body.i32() & 0xffffffffL;
                break;
            case LOGOUT:
                break;
            case BUSINESS:
                frame.message = message(body);
                break;
            case HEARTBEAT:
                body.rest();
                break;
            case SEND_ACK:
                frame.outcome = outcome(body);
                break;
            case NOTICE:
                frame.notice = notice(body);
                break;
            case JOIN:
                frame.room = body.i64();
                frame.sequence = body.i64();
                frame.recovery = body.left() == 0 ? Recovery.NONE : recovery(body.u8());
                break;
            case LEAVE:
                frame.room = body.i64();
                break;
            default:
                throw new ProtocolException("a frame of code " + code);
        }
        return frame;
    }

    private static Message message(Body body) throws ProtocolException {
        int flags = body.u8();
        if ((flags & ~(FLAG_ACK | FLAG_ROOM)) != 0) {
            throw new ProtocolException("a message with flags " + flags);
        }
        int bizCode = body.i32();
        long id = body.i64();
        long sender = body.i64();
        boolean inRoom = (flags & FLAG_ROOM) != 0;
        long room = inRoom ? body.i64() : 0;
        long sequence = inRoom ? body.i64() : 0;
        String clientMsgId = utf8(body.take(body.u8()));
        boolean ackWanted = (flags & FLAG_ACK) != 0;
        return new Message(id, bizCode, sender, inRoom, room, sequence, clientMsgId, body.rest(), ackWanted);
    }

    private static Outcome outcome(Body body) throws ProtocolException {
        int number = body.u8();
        long detail = body.i64();
        long messageId = body.i64();
        String clientMsgId = utf8(body.take(body.u8()));
        if (number < 1 || number > Outcome.Kind.values().length) {
            throw new ProtocolException("a send-ack with outcome " + number);
        }
        Outcome.Kind kind = Outcome.Kind.values()[number - 1];
        Outcome.Reason reason = kind == Outcome.Kind.FAILED ? Outcome.Reason.of(detail) : null;
        long sequence = kind == Outcome.Kind.SEQUENCED ? detail : 0;
        return new Outcome(clientMsgId, kind, reason, messageId, sequence);
    }

    private static Notice notice(Body body) throws ProtocolException {
        int code = body.u16();
        long retryAfterMs = body.i32() & 0xffffffffL;
        List<String> lines = new ArrayList<>(Arrays.asList(utf8(body.rest()).split("\n", -1)));
        String text = lines.remove(0);
        List<String> alternatives = lines.subList(0, Math.min(lines.size(), ALTERNATIVES_MAX));
        return new Notice(code, retryAfterMs, text, Collections.unmodifiableList(alternatives));
    }

    private static Recovery recovery(int number) throws ProtocolException {
        if (number == 1) {
            return Recovery.COMPLETE;
        }
        if (number == 2) {
            return Recovery.TOO_OLD;
        }
        throw new ProtocolException("a join answered with recovery " + number);
    }

    private static String utf8(byte[] bytes) throws ProtocolException {
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
        } catch (CharacterCodingException e) {
            throw new ProtocolException("text that is no UTF-8");
        }
    }

    /** A body that is read from its first byte to its last. */
    private static final class Body {
        private final byte[] bytes;
        private int at;

        Body(byte[] bytes) {
            this.bytes = bytes;
        }

        int left() {
            return bytes.length - at;
        }

        int u8() throws ProtocolException {
            need(1);
            return bytes[at++] & 0xff;
        }

        int u16() throws ProtocolException {
            return u8() << 8 | u8();
        }

        int i32() throws ProtocolException {
            return u16() << 16 | u16();
        }

        long i64() throws ProtocolException {
            return (long) i32() << 32 | i32() & 0xffffffffL;
        }

        byte[] take(int length) throws ProtocolException {
            need(length);
            at += length;
            return Arrays.copyOfRange(bytes, at - length, at);
        }

        byte[] rest() throws ProtocolException {
            return take(left());
        }

        void end() throws ProtocolException {
            if (left() > 0) {
                throw new ProtocolException("a body with " + left() + " bytes too many");
            }
        }

        private void need(int length) throws ProtocolException {
            if (left() < length) {
                throw new ProtocolException("a body that is too short");
            }
        }
    }
}
