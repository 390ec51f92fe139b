package sailfish.client;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;
import static sailfish.client.Script.list;

import java.util.List;
import org.junit.Test;

/** Rooms over reconnects, and their history. */
public class RoomsTest {
    private static final int COMPLETE = 1;
    private static final int TOO_OLD = 2;

    @Test
    public void joinsAgainSinceTheLastSequenceSeen() {
        Script script = in7(9);
        script.say(1, 7, 10).say(2, 7, 11);
        assertEquals("join 7 since 11", rejoin(script));
        script.effects();
        script.joined(7, 20, COMPLETE);
        assertEquals(list("joined 7 at 20, recovery COMPLETE"), script.effects());
    }

    @Test
    public void aRoomThatWasSilentIsJoinedSinceItsFirstAnswer() {
        assertEquals("join 7 since 9", rejoin(in7(9)));
    }

    @Test
    public void aCutAmongKeptMessagesLosesNone() {
        Script script = in7(9);
        rejoin(script);
        script.joined(7, 20, COMPLETE).say(1, 7, 10).say(2, 7, 12);
        assertEquals("join 7 since 12", rejoin(script));
        script.joined(7, 20, COMPLETE).say(3, 7, 20);
        assertEquals("join 7 since 20", rejoin(script));
    }

    @Test
    public void keptMessagesEndWithALiveOneOrAfterAWhile() {
        Script script = in7(9);
        rejoin(script);
        script.joined(7, 20, COMPLETE).say(1, 7, 10).say(2, 7, 21);
        assertEquals("join 7 since 21", rejoin(script));
        script.joined(7, 30, TOO_OLD).pass(4_999);
        assertEquals("join 7 since 21", rejoin(script));
        script.joined(7, 30, TOO_OLD).pass(5_000);
        assertEquals("join 7 since 30", rejoin(script));
    }

    @Test
    public void aRoomThatBeganAnewMayCountFromBelow() {
        Script script = in7(900);
        rejoin(script);
        script.joined(7, 12, TOO_OLD).say(1, 7, 11);
        assertEquals("join 7 since 11", rejoin(script));
        script.joined(7, 12, COMPLETE).say(2, 7, 12).say(3, 7, 13);
        assertEquals("join 7 since 13", rejoin(script));
    }

    @Test
    public void aGapIsTold() {
        Script script = in7(9);
        rejoin(script);
        script.effects();
        script.joined(7, 5_000, TOO_OLD);
        assertEquals(list("joined 7 at 5000, recovery TOO_OLD", "gap of 7 after 9 to 5000"), script.effects());
        // Cut before the first kept message, it hears of the same gap again.
        rejoin(script);
        script.effects();
        script.joined(7, 5_000, TOO_OLD);
        assertEquals(list("joined 7 at 5000, recovery TOO_OLD"), script.effects());
    }

    @Test
    public void aGapOnALiveConnectionIsToldOnlyIfTheServerCannotFillIt() {
        Script script = in7(9);
        script.say(1, 7, 12);
        assertEquals(list("join 7 since 9"), script.pass(1_000).sent());
        script.effects();
        script.joined(7, 12, COMPLETE).say(2, 7, 10).say(3, 7, 11).say(1, 7, 12).say(4, 7, 20);
        assertEquals(list("join 7 since 12"), script.pass(6_000).sent());
        script.effects();
        script.joined(7, 20, TOO_OLD);
        assertEquals(list("joined 7 at 20, recovery TOO_OLD", "gap of 7 after 12 to 20"), script.effects());
    }

    @Test
    public void aRoomThatBeganAnewHasAGapThatEndsBelow() {
        Script script = in7(900);
        rejoin(script);
        script.effects();
        script.joined(7, 12, TOO_OLD);
        assertEquals(list("joined 7 at 12, recovery TOO_OLD", "gap of 7 after 900 to 12"), script.effects());
    }

    @Test
    public void aFirstJoinHasAGapOnlyIfItNamesASequence() {
        Script script = Script.online();
        script.core.join(7, History.since(5), script.now);
        script.core.join(8, History.last(5), script.now);
        script.effects();
        script.joined(7, 20, TOO_OLD).joined(8, 20, COMPLETE);
        assertEquals(list("joined 7 at 20, recovery TOO_OLD", "gap of 7 after 5 to 20",
                "joined 8 at 20, recovery COMPLETE"), script.effects());
    }

    @Test
    public void theFirstJoinMayWantTheLastMessages() {
        Script script = Script.online();
        script.core.join(7, History.last(50), script.now);
        assertEquals(list("join 7 last 50"), script.sent());
        // Cut before the answer, or before the first kept message, it wants the same again.
        assertEquals("join 7 last 50", rejoin(script));
        script.joined(7, 9, COMPLETE);
        assertEquals("join 7 last 50", rejoin(script));
        script.joined(7, 9, COMPLETE).say(1, 7, 8);
        assertEquals("join 7 since 8", rejoin(script));
    }

    @Test
    public void theFirstJoinMayWantAllSinceASequence() {
        Script script = Script.online();
        script.core.join(7, History.since(5), script.now);
        assertEquals(list("join 7 since 5"), script.sent());
    }

    @Test
    public void keptMessagesThatHaveBeenSeenAreDropped() {
        Script script = in7(9);
        script.say(1, 7, 10);
        rejoin(script);
        script.joined(7, 11, COMPLETE);
        script.effects();
        script.say(1, 7, 10).say(2, 7, 11);
        assertEquals(list("message 2 of 10002 in 7 at 11 '' 5555 hi"), script.effects());
    }

    @Test
    public void aServerWithoutHistoryIsUnderstood() {
        Script script = in7(9);
        rejoin(script);
        script.effects();
        script.joined(7, 20);
        assertEquals(list("joined 7 at 20, recovery NONE", "gap of 7 after 9 to 20"), script.effects());
        assertEquals("join 7 since 20", rejoin(script));
    }

    @Test
    public void aServerThatKnowsNoHistoryIsNotAskedForItAgain() {
        Script script = in7(9);
        assertEquals("join 7 since 9", rejoin(script));
        script.notice(13, 0, "17 bytes?");
        script.effects();
        assertTrue(script.untilConnect() < 314);
        assertEquals("join 7", rejoin(script));
        script.joined(7, 20);
        script.pass(600_000);
        script.comeBack();
        assertEquals("join 7 since 20", rejoin(script));
    }

    @Test
    public void leavesOnceAndDoesNotComeBack() {
        Script script = in7(9);
        script.core.leave(7, script.now);
        script.core.leave(7, script.now);
        assertEquals(list("leave 7"), script.sent());
        script.effects();
        script.receive(Script.frame(Wire.LEAVE, new Buffer(8).i64(7)));
        assertEquals(list("left 7"), script.effects());
        script.core.disconnected("reset", script.now);
        script.comeBack();
        assertEquals(list("login h.e.s"), script.sent());
    }

    @Test
    public void aJoinThatIsRefusedAsBusyIsTriedAgainAfterLongerWaits() {
        Script script = Script.online();
        script.core.join(7, History.NONE, script.now);
        for (long nominal = 1_000; nominal <= 4_000; nominal *= 2) {
            assertEquals(list("join 7"), script.sent());
            script.notice(103, 0, "busy");
            assertEquals(list(), script.pass(nominal - 1).sent());
            script.pass(nominal / 4 + 1);
        }
        assertEquals(list("join 7"), script.sent());
    }

    @Test
    public void aJoinThatNobodyAnswersIsAskedAgain() {
        Script script = Script.online();
        script.core.join(7, History.NONE, script.now);
        assertEquals(list("join 7"), script.sent());
        assertEquals(list("join 7"), script.pass(10_000).sent());
    }

    @Test
    public void tellsWhichRoomIsOneTooMany() {
        Script script = Script.online();
        for (long room = 1; room <= 3; room++) {
            script.core.join(room, History.NONE, script.now);
        }
        assertEquals(list("join 1", "join 2", "join 3"), script.sent());
        script.joined(1, 9).notice(102, 0, "too many");
        // The notice does not say which, so they go one by one.
        assertEquals(list("join 2"), script.sent());
        script.joined(2, 9);
        assertEquals(list("join 3"), script.sent());
        script.notice(102, 0, "too many");
        List<String> effects = script.effects();
        assertTrue(effects.toString(), effects.contains("join of 3 refused"));
        assertEquals(list(), script.pass(25_000).sent());
    }

    /** A session in room 7, joined without history. */
    private static Script in7(long sequence) {
        Script script = Script.online();
        script.core.join(7, History.NONE, script.now);
        assertEquals(list("join 7"), script.sent());
        return script.joined(7, sequence);
    }

    private static String rejoin(Script script) {
        script.core.disconnected("reset", script.now);
        script.effects();
        script.comeBack();
        List<String> sent = script.sent();
        return sent.get(sent.size() - 1);
    }
}
