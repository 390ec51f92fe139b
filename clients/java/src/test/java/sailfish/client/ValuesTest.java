package sailfish.client;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.fail;

import java.nio.charset.StandardCharsets;
import java.util.Random;
import org.junit.Test;

/** Addresses, tokens, numbers, texts. */
public class ValuesTest {
    @Test
    public void addressesAreRead() {
        assertEquals("tcp://a:1", Endpoint.parse("TCP://a:1").toString());
        assertEquals("ws://a:80/", Endpoint.parse("ws://a").toString());
        assertEquals("wss://a:443/im?x=1", Endpoint.parse("wss://a/im?x=1").toString());
        assertEquals("::1", Endpoint.parse("tls://[::1]:2").bareHost());
        assertEquals("wss://b:2/im", Endpoint.parse("wss://a/im").at("b:2").toString());
        assertEquals("tcp://[::1]:2", Endpoint.parse("tcp://a:1").at("[::1]:2").toString());
        assertNull(Endpoint.parse("tcp://a:1").at("no address"));
        assertEquals("ws://gateway_1:80/?x=1", Endpoint.parse("ws://gateway_1?x=1").toString());
        String[] wrongs = {"a:1", "http://a:1", "tcp://a", "tcp://:1", "tcp://a:0", "tcp://a:70000", "", "ws://a/\r\nb", "ws://b@a"};
        for (String wrong : wrongs) {
            try {
                Endpoint.parse(wrong);
                fail(wrong + " was read");
            } catch (IllegalArgumentException e) {
                // As it should be.
            }
        }
    }

    @Test
    public void theClaimsOfATokenAreRead() {
        // {"app":1,"user":10001,"exp":2000000000}
        Token token = Token.of("e30.eyJhcHAiOjEsInVzZXIiOjEwMDAxLCJleHAiOjIwMDAwMDAwMDB9.c2ln");
        assertEquals(10001, token.user());
        assertEquals(5_000, token.lifetimeMs(1_999_999_995_000L));
        assertEquals(0, token.lifetimeMs(2_000_000_001_000L));
        assertEquals(7_000, Token.of(token.text, 7_000).lifetimeMs(0));
        for (String opaque : new String[] {"", "a", "a.b.c", "a.!.c", "..", "e30.e30.e30"}) {
            assertEquals(-1, Token.of(opaque).lifetimeMs(0));
            assertEquals(0, Token.of(opaque).user());
        }
    }

    @Test
    public void base64IsThatOfTheRfc() {
        String[] pairs = {"", "", "f", "Zg==", "fo", "Zm8=", "foo", "Zm9v", "foob", "Zm9vYg==", "fooba", "Zm9vYmE="};
        for (int i = 0; i < pairs.length; i += 2) {
            byte[] bytes = pairs[i].getBytes(StandardCharsets.US_ASCII);
            assertEquals(pairs[i + 1], Base64.encode(bytes));
            assertArrayEquals(bytes, Base64.decodeUrl(pairs[i + 1]));
            assertArrayEquals(bytes, Base64.decodeUrl(pairs[i + 1].replace("=", "")));
        }
        assertArrayEquals(new byte[] {(byte) 0xfb, (byte) 0xff}, Base64.decodeUrl("-_8"));
        assertNull(Base64.decodeUrl("+/8"));
    }

    @Test
    public void unsignedNumbersAreText() {
        for (long number : new long[] {0, 1, 42, Long.MAX_VALUE, Long.MIN_VALUE, Long.MIN_VALUE + 1, -1, -10}) {
            assertEquals(Long.toUnsignedString(number), Unsigned.text(number));
        }
    }

    @Test
    public void aBufferGivesBackWhatWasPut() {
        Random random = new Random(1);
        Buffer buffer = new Buffer(4);
        int put = 0;
        int taken = 0;
        for (int step = 0; step < 2_000; step++) {
            for (int i = random.nextInt(40); i > 0; i--) {
                buffer.u8(put++ * 31);
            }
            for (byte b : buffer.take(random.nextInt(buffer.size() + 1))) {
                assertEquals((byte) (taken++ * 31), b);
            }
        }
        assertEquals(put - taken, buffer.size());
    }
}
