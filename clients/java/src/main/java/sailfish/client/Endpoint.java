package sailfish.client;

import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * An address of a gateway, with the way to speak to it: {@code tcp://host:port}, {@code tls://host:port},
 * {@code ws://host:port/path} or {@code wss://host:port/path}.
 */
public final class Endpoint {
    /** Scheme, host, port, and the path with its query; no byte that could end a line of HTTP. */
    private static final Pattern ADDRESS = Pattern.compile(
            "((?i)tcp|tls|ws|wss)://([\\w.-]+|\\[[0-9A-Fa-f:.]+])(?::(\\d{1,5}))?([/?][!-~&&[^#]]*)?");

    public final String scheme;
    public final String host;
    public final int port;

    /** The path of a WebSocket's request, {@code /} if none is given. */
    public final String path;

    private Endpoint(String scheme, String host, int port, String path) {
        this.scheme = scheme;
        this.host = host;
        this.port = port;
        this.path = path;
    }

    /**
     * Reads an address. Port 80 and 443 are the defaults of {@code ws} and {@code wss}; the others have none.
     *
     * @throws IllegalArgumentException if it is no such address
     */
    public static Endpoint parse(String address) {
        Matcher parts = ADDRESS.matcher(address);
        if (!parts.matches()) {
            throw new IllegalArgumentException(address + " is no address like tcp://host:port (tls, ws, wss)");
        }
        String scheme = parts.group(1).toLowerCase(Locale.ROOT);
        int standard = scheme.equals("ws") ? 80 : scheme.equals("wss") ? 443 : 0;
        int port = parts.group(3) == null ? standard : Integer.parseInt(parts.group(3));
        if (port < 1 || port > 65535) {
            throw new IllegalArgumentException(address + " needs a port from 1 to 65535");
        }
        String path = parts.group(4) == null ? "/" : parts.group(4);
        return new Endpoint(scheme, parts.group(2), port, path.startsWith("/") ? path : "/" + path);
    }

    /** Returns the same way to speak to another {@code host:port}, or null if the text is none. */
    Endpoint at(String hostAndPort) {
        try {
            return parse(scheme + "://" + hostAndPort + path);
        } catch (IllegalArgumentException e) {
            return null;
        }
    }

    boolean isTls() {
        return scheme.equals("tls") || scheme.equals("wss");
    }

    boolean isWebSocket() {
        return scheme.equals("ws") || scheme.equals("wss");
    }

    /** Returns the host as sockets and certificates want it: an IPv6 address without its brackets. */
    String bareHost() {
        return host.startsWith("[") ? host.substring(1, host.length() - 1) : host;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Endpoint && toString().equals(other.toString());
    }

    @Override
    public int hashCode() {
        return toString().hashCode();
    }

    @Override
    public String toString() {
        return scheme + "://" + host + ":" + port + (isWebSocket() ? path : "");
    }
}
