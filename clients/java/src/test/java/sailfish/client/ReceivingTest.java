package sailfish.client;

import static org.junit.Assert.assertEquals;
import static sailfish.client.Script.list;
import static sailfish.client.Script.roomMessage;
import static sailfish.client.Script.userMessage;

import java.util.List;
import org.junit.Test;

/** Acks and repeats. */
public class ReceivingTest {
    @Test
    public void acksWhatWantsItAndShowsItOnce() {
        Script script = Script.online().receive(userMessage(1, 5, "a"));
        assertEquals(list("ack 1"), script.sent());
        assertEquals(1, script.effects().size());
        script.pass(5_000).receive(userMessage(1, 5, "a"));
        assertEquals(list("ack 1"), script.sent());
        assertEquals(list(), script.effects());
        script.receive(roomMessage(2, 7, 1, "b"));
        assertEquals(list(), script.pass(1_000).sent());
    }

    @Test
    public void aRepeatUnderAnotherIdIsKnownByItsSendersName() {
        Script script = Script.online().receive(userMessage(1, 5, "a"));
        script.effects();
        assertEquals(list("ack 1"), script.sent());
        script.pass(1_000).receive(userMessage(2, 5, "a"));
        assertEquals(list(), script.effects());
        assertEquals(list("ack 2"), script.sent());
        // Of another sender, or to another target, it is another message.
        script.receive(userMessage(3, 6, "a")).receive(roomMessage(4, 7, 1, "a")).receive(roomMessage(5, 8, 1, "a"));
        assertEquals(3, script.effects().size());
    }

    @Test
    public void messagesWithoutANameAreNoRepeatsOfEachOther() {
        Script script = Script.online().receive(userMessage(1, 5, "")).receive(userMessage(2, 5, ""));
        assertEquals(2, script.effects().size());
    }

    @Test
    public void whatTheApplicationHasNotTakenIsNotAcked() {
        Script script = Script.online();
        script.takes = false;
        script.receive(userMessage(1, 5, "a")).receive(userMessage(1, 5, "a")).receive(userMessage(2, 5, "a"));
        assertEquals(1, script.effects().size());
        assertEquals(list(), script.pass(1_000).sent());
        script.core.taken(script.last, script.now);
        assertEquals(list("ack 1 1 2"), script.sent());
    }

    @Test
    public void whatTheApplicationCouldNotTakeComesAgain() {
        Script script = Script.online();
        script.takes = false;
        script.receive(userMessage(1, 5, "a"));
        script.core.notTaken(script.last);
        script.effects();
        script.takes = true;
        script.receive(userMessage(1, 5, "a"));
        assertEquals(1, script.effects().size());
        assertEquals(list("ack 1"), script.sent());
    }

    @Test
    public void acksThatComeTogetherLeaveTogether() {
        Script script = Script.online();
        Buffer many = new Buffer(16);
        for (int i = 1; i <= 300; i++) {
            many.put(userMessage(i, 5, "").takeAll());
        }
        script.receive(many);
        List<String> sent = script.sent();
        sent.addAll(script.pass(10).sent());
        assertEquals(4, sent.size());
        assertEquals("ack 1", sent.get(0));
    }

    @Test
    public void repeatsAreKnownOverReconnects() {
        Script script = Script.online().receive(userMessage(1, 5, "a"));
        script.core.disconnected("reset", script.now);
        script.comeBack();
        script.effects();
        script.receive(userMessage(1, 5, "a")).receive(userMessage(9, 5, "a"));
        assertEquals(list(), script.effects());
    }

    @Test
    public void theMemoryOfRepeatsIsBounded() {
        Script script = Script.online(new Options().seen(2));
        script.receive(userMessage(1, 5, "a")).receive(userMessage(2, 5, "b")).receive(userMessage(3, 5, "c"));
        script.effects();
        script.receive(userMessage(2, 5, "b"));
        assertEquals(list(), script.effects());
        script.receive(userMessage(1, 5, "a"));
        assertEquals(1, script.effects().size());
    }
}
