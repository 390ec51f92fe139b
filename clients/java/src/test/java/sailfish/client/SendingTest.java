package sailfish.client;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;
import static sailfish.client.Script.list;

import java.util.ArrayList;
import java.util.List;
import org.junit.Test;

/** What becomes of messages that the client sends. */
public class SendingTest {
    private static final int SEQUENCED = 3;
    private static final int FAILED = 5;
    private static final int NOT_MEMBER = 5;
    private static final int BUSY = 7;

    @Test
    public void keepsAMessageUntilItsSendAckAndTellsItOnce() {
        Script script = Script.online().send(7, "m1");
        assertEquals(list("business 5555 to 7 m1"), script.sent());
        assertTrue(script.core.hasUnsent());
        script.sendAck("m1", SEQUENCED, 9).sendAck("m1", SEQUENCED, 9);
        assertEquals(list("outcome of m1: SEQUENCED 9"), script.effects());
        assertFalse(script.core.hasUnsent());
    }

    @Test
    public void sendsAgainInOrderAfterAReconnect() {
        Script script = new Script().send(7, "m1", "m2");
        script.core.start(script.now);
        script.core.token(Script.TOKEN, -1, script.now);
        script.core.connected(script.now);
        script.loggedIn(30_000);
        script.send(8, "m3");
        assertEquals(list("login h.e.s", "business 5555 to 7 m1", "business 5555 to 7 m2", "business 5555 to 8 m3"),
                script.sent());
        script.sendAck("m2", SEQUENCED, 9);
        script.effects();
        script.core.disconnected("reset", script.now);
        script.send(7, "m4");
        script.comeBack();
        assertEquals(list("login h.e.s", "business 5555 to 7 m1", "business 5555 to 8 m3", "business 5555 to 7 m4"),
                script.sent());
    }

    @Test
    public void sendsAgainOnTheSameConnectionWhatHasNoSendAckForAWhile() {
        Script script = Script.online(new Options().repeatMs(20_000)).send(7, "m1", "m2");
        script.sent();
        script.sendAck("m1", SEQUENCED, 9);
        assertEquals(list(), script.pass(19_999).sent());
        assertEquals(list("business 5555 to 7 m2"), script.pass(1).sent());
        assertEquals(list("heartbeat", "business 5555 to 7 m2"), script.pass(20_000).sent());
    }

    @Test
    public void refusesWhatTheStoreHasNoRoomFor() {
        Script script = Script.online(new Options().store(2, 1 << 20)).send(7, "m1", "m2");
        assertRefused(script, "m3", RefusedException.Reason.STORE_FULL);
        script.sendAck("m1", SEQUENCED, 9);
        script.send(7, "m3");
        assertRefused(script, "m3", RefusedException.Reason.SAME_ID);
        List<String> ids = new ArrayList<>();
        for (Unsent unsent : script.core.unsent()) {
            ids.add(unsent.clientMsgId);
        }
        assertEquals(list("m2", "m3"), ids);
    }

    @Test
    public void theStoreIsBoundedByBytesToo() {
        Script script = Script.online(new Options().store(100, 150)).send(7, "m1", "m2");
        assertRefused(script, "m3", RefusedException.Reason.STORE_FULL);
        script.sendAck("m1", SEQUENCED, 9);
        script.send(7, "m3");
    }

    @Test
    public void busyHoldsBackAllToThatTargetAndNoOthers() {
        Script script = Script.online().send(7, "m1", "m2");
        script.sent();
        script.sendAck("m1", FAILED, BUSY).sendAck("m2", FAILED, BUSY);
        script.send(7, "m3").send(8, "o1");
        assertEquals(list("business 5555 to 8 o1"), script.sent());
        assertEquals(list(), script.effects());
        assertEquals(list(), script.pass(999).sent());
        // The first goes alone, so that none overtakes it.
        assertEquals(list("business 5555 to 7 m1"), script.pass(300).sent());
        script.sendAck("m1", SEQUENCED, 1);
        assertEquals(list("business 5555 to 7 m2", "business 5555 to 7 m3"), script.sent());
    }

    @Test
    public void eachWaitAfterBusyIsLonger() {
        Script script = Script.online(new Options().busyMs(100)).send(7, "m1");
        long nominal = 100;
        for (int i = 0; i < 6; i++) {
            script.sent();
            script.sendAck("m1", FAILED, BUSY);
            assertEquals(list(), script.pass(nominal - 1).sent());
            assertEquals(list("business 5555 to 7 m1"), script.pass(nominal / 4 + 1).sent());
            nominal = Math.min(2 * nominal, 2_000);
        }
    }

    @Test
    public void aMessageToARoomWaitsForTheJoin() {
        Script script = Script.online();
        script.core.join(7, History.NONE, script.now);
        script.send(7, "m1").send(8, "o1");
        assertEquals(list("join 7", "business 5555 to 8 o1"), script.sent());
        script.joined(7, 9);
        assertEquals(list("business 5555 to 7 m1"), script.sent());
    }

    @Test
    public void notMemberOfARoomThatIsWantedJoinsAgainThenSends() {
        Script script = Script.online();
        script.core.join(7, History.NONE, script.now);
        script.sent();
        script.joined(7, 9).send(7, "m1");
        script.sent();
        script.sendAck("m1", FAILED, NOT_MEMBER);
        assertEquals(list("join 7 since 9"), script.sent());
        script.joined(7, 9, 1);
        assertEquals(list("business 5555 to 7 m1"), script.sent());
        assertFalse(script.effects().toString().contains("outcome"));
    }

    @Test
    public void notMemberOfAnotherRoomIsAnOutcome() {
        Script script = Script.online().send(7, "m1");
        script.sendAck("m1", FAILED, NOT_MEMBER);
        assertEquals(list("outcome of m1: FAILED NOT_MEMBER"), script.effects());
    }

    @Test
    public void staysBelowWhatAConnectionMaySend() {
        Script script = Script.online(new Options().store(5_000, 4 << 20));
        for (int i = 0; i < 3_000; i++) {
            script.send(7, "m" + i);
        }
        int sent = drainAll(script);
        assertEquals(1_000, sent);
        script.pass(1_000);
        assertTrue((sent = drainAll(script)) >= 799 && sent <= 801);
        while (sent > 0) {
            script.pass(1_000);
            sent = drainAll(script);
        }
        script.pass(30_000);
    }

    @Test
    public void aConnectionThatTakesNoBytesCostsNoMore() {
        Script script = Script.online();
        for (int i = 0; i < 100; i++) {
            script.core.send(new Unsent(5555, 7, "m" + i, new byte[10_000]), script.now);
        }
        int length = script.core.output(script.now).length;
        assertTrue(length + " bytes at once", length < 80_000);
        // Timers stay quiet all the while.
        script.pass(1_000);
    }

    @Test
    public void hintsAreSentAtOnceOrNever() {
        Script script = Script.online();
        assertTrue(script.core.hint(6002, 5, new byte[1], script.now));
        assertEquals(list("business 6002 to 5 "), script.sent());
        script.core.disconnected("reset", script.now);
        assertFalse(script.core.hint(6002, 5, new byte[1], script.now));
        script.comeBack();
        assertEquals(list("login h.e.s"), script.sent());
    }

    private static int drainAll(Script script) {
        int count = 0;
        List<String> frames = script.sent();
        while (!frames.isEmpty()) {
            count += frames.size();
            frames = script.sent();
        }
        return count;
    }

    private static void assertRefused(Script script, String id, RefusedException.Reason reason) {
        try {
            script.send(7, id);
            fail(id + " was taken");
        } catch (RefusedException e) {
            assertEquals(reason, e.reason);
        }
    }
}
