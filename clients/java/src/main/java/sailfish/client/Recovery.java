package sailfish.client;

/** What the answer to a join says about the messages between the last one seen and now. */
public enum Recovery {
    /** Nothing was asked for, or the server keeps no history: there may be a gap. */
    NONE,
    /** All that the room said since then follows. */
    COMPLETE,
    /** What was asked for is partly gone: there is a gap, and only what is still kept follows. */
    TOO_OLD
}
