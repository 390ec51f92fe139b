package sailfish.client;

/** Why a client has ended for good. */
public enum Ended {
    /**
     * A newer login of the same user and device class, or an operator, ended the session. Two clients that
     * came back by themselves would kick each other for ever, so this is for the user to decide.
     */
    KICKED,
    /** The application closed it. */
    LOGOUT
}
