package sailfish.client;

import java.nio.charset.StandardCharsets;

/**
 * Bytes that are appended at the end and consumed at the front. Numbers are big-endian, as all of the
 * protocol's.
 */
final class Buffer {
    private byte[] bytes;
    private int start;
    private int end;

    Buffer(int capacity) {
        bytes = new byte[capacity];
    }

    int size() {
        return end - start;
    }

    boolean isEmpty() {
        return start == end;
    }

    Buffer u8(int value) {
        room(1);
        bytes[end++] = (byte) value;
        return this;
    }

    Buffer u16(int value) {
        return u8(value >>> 8).u8(value);
    }

    Buffer i32(int value) {
        return u16(value >>> 16).u16(value);
    }

    Buffer i64(long value) {
        return i32((int) (value >>> 32)).i32((int) value);
    }

    Buffer put(byte[] from) {
        return put(from, 0, from.length);
    }

    Buffer put(byte[] from, int offset, int length) {
        room(length);
        System.arraycopy(from, offset, bytes, end, length);
        end += length;
        return this;
    }

    Buffer utf8(String text) {
        return put(text.getBytes(StandardCharsets.UTF_8));
    }

    int u8At(int index) {
        return bytes[start + index] & 0xff;
    }

    int u16At(int index) {
        return u8At(index) << 8 | u8At(index + 1);
    }

    int i32At(int index) {
        return u16At(index) << 16 | u16At(index + 2);
    }

    long i64At(int index) {
        return (long) i32At(index) << 32 | i32At(index + 4) & 0xffffffffL;
    }

    byte[] copy(int from, int length) {
        byte[] copy = new byte[length];
        System.arraycopy(bytes, start + from, copy, 0, length);
        return copy;
    }

    /** Removes the first bytes and returns them. */
    byte[] take(int length) {
        byte[] taken = copy(0, length);
        skip(length);
        return taken;
    }

    byte[] takeAll() {
        return take(size());
    }

    void skip(int length) {
        start += length;
        if (start == end) {
            start = 0;
            end = 0;
        }
    }

    void clear() {
        start = 0;
        end = 0;
    }

    private void room(int more) {
        if (bytes.length - end >= more) {
            return;
        }
        int size = size();
        byte[] target = size + more <= bytes.length / 2 ? bytes : new byte[Math.max(2 * bytes.length, size + more)];
        System.arraycopy(bytes, start, target, 0, size);
        bytes = target;
        start = 0;
        end = size;
    }
}
