package sailfish.client;

import java.nio.charset.StandardCharsets;

/** A message that came from the server. It is shown to the application once, however often it is repeated. */
public final class Message {
    /** The server's name of the message, an unsigned number; see {@link #idText()}. */
    public final long id;

    public final int bizCode;

    /** The user who sent it; the server vouches for it. */
    public final long sender;

    /** Whether the message was said in a room. */
    public final boolean inRoom;

    /** The room it was said in; 0 if it is none. */
    public final long room;

    /**
     * Its place in the room's order; 0 if it is none. A step of more than one from message to message is a
     * gap.
     */
    public final long sequence;

    /** The sender's own name of the message; empty if there is none. */
    public final String clientMsgId;

    public final byte[] payload;

    /** Whether the server wants an ack. The client sends it by itself. */
    final boolean ackWanted;

    Message(long id, int bizCode, long sender, boolean inRoom, long room, long sequence, String clientMsgId,
            byte[] payload, boolean ackWanted) {
        this.id = id;
        this.bizCode = bizCode;
        this.sender = sender;
        this.inRoom = inRoom;
        this.room = room;
        this.sequence = sequence;
        this.clientMsgId = clientMsgId;
        this.payload = payload;
        this.ackWanted = ackWanted;
    }

    /** Returns the payload as text; bytes that are no UTF-8 become U+FFFD. */
    public String text() {
        return new String(payload, StandardCharsets.UTF_8);
    }

    /** Returns {@link #id} in decimal. */
    public String idText() {
        return Unsigned.text(id);
    }

    @Override
    public String toString() {
        String place = inRoom ? " in " + room + " at " + sequence : "";
        return "message " + idText() + " of " + sender + place + " '" + clientMsgId + "' " + bizCode + " " + text();
    }
}
