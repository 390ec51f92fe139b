package sailfish.client;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;
import static sailfish.client.Script.list;

import java.util.List;
import org.junit.Test;

/** The life of a session: login, heartbeats, notices, tokens. */
public class ClientCoreTest {
    @Test
    public void logsInOnceThereAreATokenAndAConnection() {
        Script script = new Script();
        script.core.start(script.now);
        assertEquals(list("fetch token"), script.effects());
        script.core.token("h.e.s", -1, script.now);
        assertEquals(list("connect tcp://a:1"), script.effects());
        assertEquals(list(), script.sent());
        script.core.connected(script.now);
        assertEquals(list("login h.e.s"), script.sent());
        assertFalse(script.core.isOnline());
        script.loggedIn(30_000);
        assertEquals(list("online"), script.effects());
        assertTrue(script.core.isOnline());
    }

    @Test
    public void sendsAHeartbeatAfterAPeriodWithoutAnotherFrame() {
        Script script = Script.online();
        assertEquals(list(), script.pass(29_999).sent());
        assertEquals(list("heartbeat"), script.pass(1).sent());
        script.receive(Script.frame(Wire.HEARTBEAT, new Buffer(1)));
        script.pass(20_000).send(7, "m1");
        assertEquals(list("business 5555 to 7 m1"), script.sent());
        script.sendAck("m1", 3, 1);
        assertEquals(list(), script.pass(29_999).sent());
        assertEquals(list("heartbeat"), script.pass(1).sent());
    }

    @Test
    public void aServerThatIsSilentForAPeriodAfterAHeartbeatIsLeft() {
        Script script = Script.online();
        script.pass(59_999);
        assertEquals(list(), script.effects());
        script.pass(1);
        assertEquals(list("disconnect", "offline: no answer to a heartbeat"), script.effects());
    }

    @Test
    public void aServerThatIsSilentWhileTheClientTalksIsLeftToo() {
        Script script = Script.online();
        for (int second = 0; second < 60; second++) {
            script.core.hint(6002, 5, new byte[1], script.now);
            script.sent();
            script.pass(1_000);
        }
        assertEquals(list("disconnect", "offline: no answer to a heartbeat"), script.effects());
    }

    @Test
    public void anyFrameAnswersAHeartbeat() {
        Script script = Script.online();
        script.pass(45_000).say(1, 7, 1);
        script.pass(29_999);
        assertFalse(script.effects().toString().contains("offline"));
    }

    @Test
    public void waitsLongerBeforeEachConnectUpToTwentyTimes() {
        Script script = new Script();
        script.core.start(script.now);
        script.core.token(Script.TOKEN, -1, script.now);
        long nominal = 250;
        for (int i = 0; i < 8; i++) {
            script.effects();
            script.core.disconnected("refused", script.now);
            long wait = script.untilConnect();
            assertTrue(wait + " is not about " + nominal, wait >= nominal * 0.75 - 1 && wait <= nominal * 1.25 + 1);
            nominal = Math.min(2 * nominal, 5_000);
        }
        script.comeBack();
        script.core.disconnected("reset", script.now);
        script.effects();
        assertTrue(script.untilConnect() < 314);
    }

    @Test
    public void givesUpAConnectOrALoginThatTakesTooLong() {
        Script script = new Script();
        script.core.start(script.now);
        script.core.token(Script.TOKEN, -1, script.now);
        script.effects();
        script.pass(10_000);
        assertEquals(list("disconnect", "offline: no connection in time"), script.effects());
        script.untilConnect();
        script.core.connected(script.now);
        script.effects();
        script.pass(15_000);
        assertEquals(list("disconnect", "offline: no answer to the login in time"), script.effects());
    }

    @Test
    public void staysAwayAfterKicked() {
        Script script = Script.online();
        script.notice(1, 0, "a newer login");
        assertEquals(list("notice kicked (a newer login)", "disconnect", "ended: KICKED"), script.effects());
        script.pass(3_600_000);
        assertEquals(list(), script.effects());
        script.core.start(script.now);
        assertEquals(list("connect tcp://a:1"), script.effects());
    }

    @Test
    public void goesToTheAlternativesOfANodeThatDrainsThenBack() {
        Script script = Script.online(new Options(), "tcp://a:1", "tcp://z:9");
        script.notice(2, 1_500, "bye\nb:2\nno address\nc:3");
        assertEquals(list("notice draining (bye)", "disconnect", "offline: the server said draining (bye)"),
                script.effects());
        assertEquals(1_500, script.untilConnect());
        for (String node : new String[] {"b:2", "c:3", "a:1", "z:9"}) {
            assertEquals("connect tcp://" + node, last(script.effects()));
            script.core.disconnected("refused", script.now);
            script.effects();
            script.untilConnect();
        }
    }

    @Test
    public void comesBackAfterAFullServerSaysAndElsewhere() {
        Script script = new Script("tcp://a:1", "tcp://b:2");
        script.core.start(script.now);
        script.core.token(Script.TOKEN, -1, script.now);
        script.core.connected(script.now);
        script.effects();
        script.notice(31, 7_000, "full");
        assertEquals(7_000, script.untilConnect());
        assertEquals("connect tcp://b:2", last(script.effects()));
    }

    @Test
    public void noticesOfAnErrorOfTheClientAreFollowedByLongWaits() {
        Script script = Script.online();
        script.notice(13, 0, "what is that?");
        script.effects();
        assertTrue(script.untilConnect() >= 3_750);
    }

    @Test
    public void asksForAnotherTokenWhenTheServerRefusesOne() {
        for (int code : new int[] {22, 23}) {
            Script script = Script.online();
            script.notice(code, 0, "no");
            script.effects();
            script.pass(5_000);
            assertEquals(list("fetch token"), script.effects());
            script.core.noToken("the backend is down", script.now);
            script.pass(5_000);
            assertEquals(list("offline: no token: the backend is down", "fetch token"), script.effects());
            script.core.token("n.e.w", -1, script.now);
            assertEquals(list("connect tcp://a:1"), script.effects());
        }
    }

    @Test
    public void keepsItsTokenOverReconnects() {
        Script script = Script.online();
        script.core.disconnected("reset", script.now);
        script.effects();
        script.untilConnect();
        assertEquals(list("connect tcp://a:1"), script.effects());
    }

    @Test
    public void renewsItsTokenOnTheLiveConnection() {
        Script script = new Script();
        script.core.start(script.now);
        script.core.token("o.l.d", 100_000, script.now);
        script.core.connected(script.now);
        script.loggedIn(30_000);
        script.sent();
        script.effects();
        keepAlive(script, 74_999);
        assertEquals(list(), script.effects());
        keepAlive(script, 1);
        assertEquals(list("fetch token"), script.effects());
        script.sent();
        script.core.token("n.e.w", 600_000, script.now);
        assertEquals(list("login n.e.w"), script.sent());
        script.loggedIn(30_000);
        assertEquals(list(), script.effects());
        keepAlive(script, 539_999);
        assertEquals(list(), script.effects());
        keepAlive(script, 1);
        assertEquals(list("fetch token"), script.effects());
    }

    @Test
    public void aRenewalThatFailsIsTriedAgain() {
        Script script = new Script();
        script.core.start(script.now);
        script.core.token("o.l.d", 100_000, script.now);
        script.core.connected(script.now);
        script.loggedIn(30_000);
        keepAlive(script, 75_000);
        script.effects();
        script.core.noToken("down", script.now);
        keepAlive(script, 1_250);
        assertEquals(list("fetch token"), script.effects());
        script.core.token("o.l.d", 98_000, script.now);
        keepAlive(script, 2_500);
        assertEquals(list("fetch token"), script.effects());
    }

    @Test
    public void logsOutAndEnds() {
        Script script = Script.online();
        script.core.close(script.now);
        assertEquals(list("logout"), script.sent());
        script.receive(Script.frame(Wire.LOGOUT, new Buffer(1)));
        assertEquals(list("disconnect", "ended: LOGOUT"), script.effects());
    }

    @Test
    public void aLogoutThatNobodyAnswersEndsAllTheSame() {
        Script script = Script.online();
        script.core.close(script.now);
        script.pass(2_000);
        assertEquals(list("disconnect", "ended: LOGOUT"), script.effects());
        script = Script.online();
        script.core.close(script.now);
        script.core.disconnected("reset", script.now);
        assertEquals(list("disconnect", "ended: LOGOUT"), script.effects());
    }

    @Test
    public void comesBackAfterALogoutThatItDidNotAskFor() {
        Script script = Script.online().receive(Script.frame(Wire.LOGOUT, new Buffer(1)));
        assertEquals(list("disconnect", "offline: the server logged this client out"), script.effects());
    }

    @Test
    public void noServerSendsAClientAwayForLongerThanTenMinutes() {
        Script script = Script.online();
        script.notice(2, -1, "bye");
        script.effects();
        assertEquals(600_000, script.untilConnect());
    }

    @Test
    public void endsFromEveryPhase() {
        Script script = new Script();
        script.core.start(script.now);
        script.core.close(script.now);
        assertEquals(list("fetch token", "ended: LOGOUT"), script.effects());
        script = new Script();
        script.core.start(script.now);
        script.core.token(Script.TOKEN, -1, script.now);
        script.effects();
        script.core.close(script.now);
        assertEquals(list("disconnect", "ended: LOGOUT"), script.effects());
        script.pass(3_600_000);
        assertEquals(list(), script.effects());
    }

    @Test
    public void garbageEndsTheConnection() {
        Script script = Script.online();
        script.receive(new byte[] {'H', 'T', 'T', 'P'});
        assertEquals("offline: bytes that are no frame: magic 4854", last(script.effects()));
        script.comeBack();
        assertTrue(script.core.isOnline());
    }

    @Test
    public void aChangeOfTheNetworkEndsAWaitAndTestsAConnection() {
        Script script = Script.online();
        script.core.check(script.now);
        assertEquals(list("heartbeat"), script.sent());
        script.pass(5_000);
        assertEquals(list("disconnect", "offline: no answer to a heartbeat"), script.effects());
        script.core.check(script.now);
        assertEquals(list("connect tcp://a:1"), script.effects());
    }

    @Test
    public void whatIsTooLongIsRefused() {
        Script script = Script.online();
        try {
            script.core.send(new Unsent(1, 2, "m", new byte[(60 << 10) + 1]), script.now);
            fail("was taken");
        } catch (RefusedException e) {
            assertEquals(RefusedException.Reason.TOO_LONG, e.reason);
        }
    }

    /** Lets time pass with a server that answers heartbeats. */
    private static void keepAlive(Script script, long ms) {
        long end = script.now + ms;
        while (script.now < end) {
            script.pass(Math.min(end - script.now, 10_000));
            if (script.sent().contains("heartbeat")) {
                script.receive(Script.frame(Wire.HEARTBEAT, new Buffer(1)));
            }
        }
    }

    private static String last(List<String> texts) {
        return texts.get(texts.size() - 1);
    }
}
