package sailfish.client;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.Arrays;
import java.util.Collections;
import org.junit.Test;

/** The bytes of the boxes of docs/PROTOCOL.md, and what is no frame. */
public class WireTest {
    @Test
    public void clientFramesAreThoseOfTheProtocol() throws IOException {
        Buffer out = new Buffer(16);
        Wire.login(out, "t.k.n");
        assertGolden("5346 000003e9 00000005 742e6b2e6e", out);
        Wire.logout(out);
        assertGolden("5346 000003ea 00000000", out);
        Wire.business(out, 5555, 7, bytes("m1"), bytes("hi"));
        assertGolden("5346 000003eb 00000011 000015b3 0000000000000007 02 6d31 6869", out);
        Wire.heartbeat(out, new byte[] {1, 2});
        assertGolden("5346 000003ec 00000002 0102", out);
        Wire.acks(out, Arrays.asList(42L, Long.MIN_VALUE + 1));
        assertGolden("5346 000003ed 00000010 000000000000002a 8000000000000001", out);
        Wire.join(out, 7);
        assertGolden("5346 000003f2 00000008 0000000000000007", out);
        Wire.leave(out, -2);
        assertGolden("5346 000003f3 00000008 fffffffffffffffe", out);
    }

    @Test
    public void joinsCarryWhatTheyWantOfTheHistory() {
        Buffer out = new Buffer(16);
        Wire.join(out, 7, Wire.WANT_SINCE, 9);
        assertEquals("5346000003f200000011" + "0000000000000007" + "01" + "0000000000000009", hex(out));
        Wire.join(out, 7, Wire.WANT_LAST, 50);
        assertEquals("5346000003f200000011" + "0000000000000007" + "02" + "0000000000000032", hex(out));
    }

    @Test
    public void serverFramesAreThoseOfTheProtocol() throws Exception {
        assertEquals(30_000, golden("5346 000003e9 00000004 00007530").heartbeatMs);
        assertEquals(Wire.LOGOUT, golden("5346 000003ea 00000000").code);

        Message said = golden("5346 000003eb 0000002a 02 000015b3 000000000000002a 0000000000002712 0000000000000007 "
                + "0000000000000009 02 6d31 6869").message;
        assertEquals("message 42 of 10002 in 7 at 9 'm1' 5555 hi", said.toString());
        assertFalse(said.ackWanted);
        Message bytes = golden("5346 000003eb 00000018 01 000015b3 000000000000002a 0000000000002712 00 ff00").message;
        assertArrayEquals(new byte[] {(byte) 0xff, 0}, bytes.payload);
        assertTrue(bytes.ackWanted);
        assertFalse(bytes.inRoom);
        assertEquals("", bytes.clientMsgId);

        assertEquals(Wire.HEARTBEAT, golden("5346 000003ec 00000002 0102").code);
        assertEquals(Wire.LEAVE, golden("5346 000003f3 00000008 0000000000000007").code);
        ServerFrame joined = golden("5346 000003f2 00000010 0000000000000007 0000000000000009");
        assertEquals("7 9 NONE", joined.room + " " + joined.sequence + " " + joined.recovery);
    }

    @Test
    public void sendAcksAndNoticesAreThoseOfTheProtocol() throws Exception {
        String[] outcomes = {
            "01 0000000000000000", "DELIVERED", "02 0000000000000000", "STORED", "03 0000000000000009", "SEQUENCED 9",
            "04 0000000000000000", "ANSWERED", "05 0000000000000005", "FAILED NOT_MEMBER",
        };
        for (int i = 0; i < outcomes.length; i += 2) {
            String frame = "5346 000003ee 00000014 " + outcomes[i] + " 000000000000002a 02 6d31";
            Outcome outcome = golden(frame).outcome;
            assertEquals("outcome of m1: " + outcomes[i + 1], outcome.toString());
            assertEquals(42, outcome.messageId);
        }
        Notice notice = golden("5346 000003ef 00000009 0002 000005dc 627965").notice;
        assertEquals("draining (bye)", notice.toString());
        assertEquals(1500, notice.retryAfterMs);
        assertEquals(Collections.emptyList(), notice.alternatives);
        notice = golden("5346 000003ef 00000011 0002 000005dc 627965 0a 623a31 0a 633a32").notice;
        assertEquals(Arrays.asList("b:1", "c:2"), notice.alternatives);
    }

    @Test
    public void answersToJoinsTellOfTheHistory() throws Exception {
        String joined = "5346 000003f2 00000011 0000000000000007 0000000000000009 ";
        assertEquals(Recovery.COMPLETE, decode(joined + "01").recovery);
        assertEquals(Recovery.TOO_OLD, decode(joined + "02").recovery);
        assertRefused(joined + "03");
    }

    @Test
    public void everyPrefixWaitsAndTrailingBytesAreRefused() throws Exception {
        byte[] whole = unhex("5346 000003eb 0000002a 02 000015b3 000000000000002a 0000000000002712 0000000000000007 "
                + "0000000000000009 02 6d31 6869");
        for (int length = 0; length < whole.length; length++) {
            Buffer in = new Buffer(16).put(whole, 0, length);
            assertNull(Wire.next(in));
            assertEquals(length, in.size());
        }
        assertRefused("5346 000003e9 00000005 0000753000");
        assertRefused("5346 000003ea 00000001 00");
        assertRefused("5346 000003f3 00000009 000000000000000700");
    }

    @Test
    public void whatIsNoFrameIsRefused() throws Exception {
        assertRefused("5347");
        assertRefused("5346 000003e9 ffffffff");
        assertRefused("5346 000003e9 00400001");
        assertRefused("5346 00000001 00000000");
        assertRefused("5346 000003e9 00000003 007530");
        assertRefused("5346 000003eb 00000018 04 000015b3 000000000000002a 0000000000002712 00 ff00");
        assertRefused("5346 000003eb 00000017 01 000015b3 000000000000002a 0000000000002712 02 ff");
        assertRefused("5346 000003eb 00000017 01 000015b3 000000000000002a 0000000000002712 01 ff");
        assertRefused("5346 000003ee 00000014 06 0000000000000000 000000000000002a 02 6d31");
    }

    @Test
    public void acksAreCutIntoFramesOfAHundredAndTwentyEight() {
        Buffer out = new Buffer(16);
        Wire.acks(out, Collections.nCopies(129, 1L));
        assertEquals(10 + 128 * 8 + 10 + 8, out.size());
        assertEquals(128 * 8, out.i32At(6));
    }

    private static void assertGolden(String golden, Buffer out) throws IOException {
        assertDrawn(golden);
        assertEquals(golden.replace(" ", ""), hex(out));
    }

    private static ServerFrame golden(String golden) throws Exception {
        assertDrawn(golden);
        return decode(golden);
    }

    /** The protocol's page lies two folders above this project, in which Maven and CI run the tests. */
    private static void assertDrawn(String golden) throws IOException {
        File page = new File("../../docs/PROTOCOL.md");
        String text = new String(Files.readAllBytes(page.toPath()), StandardCharsets.UTF_8);
        assertTrue(golden + " is not drawn in PROTOCOL.md", text.contains(golden));
    }

    private static ServerFrame decode(String hex) throws ProtocolException {
        Buffer in = new Buffer(16).put(unhex(hex));
        ServerFrame frame = Wire.next(in);
        assertEquals(0, in.size());
        return frame;
    }

    private static void assertRefused(String hex) {
        try {
            Wire.next(new Buffer(16).put(unhex(hex)));
            fail(hex + " is not refused");
        } catch (ProtocolException e) {
            assertFalse(e.getMessage().isEmpty());
        }
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String hex(Buffer out) {
        StringBuilder hex = new StringBuilder();
        for (byte b : out.takeAll()) {
            hex.append(String.format("%02x", b));
        }
        return hex.toString();
    }

    private static byte[] unhex(String hex) {
        String digits = hex.replace(" ", "");
        byte[] bytes = new byte[digits.length() / 2];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) Integer.parseInt(digits.substring(2 * i, 2 * i + 2), 16);
        }
        return bytes;
    }
}
