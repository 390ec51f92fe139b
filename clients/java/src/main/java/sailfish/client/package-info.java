/**
 * A client of Sailfish, the IM gateway for live rooms.
 *
 * <p>{@link sailfish.client.Client} is what applications use: it keeps one session alive on a thread of its
 * own and tells a {@link sailfish.client.Listener} what happens. Below it stands {@link
 * sailfish.client.ClientCore}, the same rules as a state machine without sockets, clocks or threads, for
 * those who bring their own I/O.
 *
 * <p>The protocol is docs/PROTOCOL.md; its section 10 is what this package does by itself. The package needs
 * nothing but the Java platform, and of that no more than Android has since API level 21.
 */
package sailfish.client;
