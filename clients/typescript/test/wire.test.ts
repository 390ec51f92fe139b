import assert from "node:assert/strict";
import { test } from "node:test";
import { DecodeError, FrameReader, encode, utf8, type ServerFrame } from "../src/wire.js";
import { frame, say } from "./server.js";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const unhex = (text: string) => new Uint8Array(Buffer.from(text.replaceAll(" ", ""), "hex"));
const frames = (bytes: Uint8Array) => [...new FrameReader().push(bytes)];

test("what a client says is what PROTOCOL.md draws", () => {
  for (const [bytes, drawn] of [
    [encode.login("t.k.n"), "5346 000003e9 00000005 742e6b2e6e"],
    [encode.logout(), "5346 000003ea 00000000"],
    [
      encode.business(5555, 7n, "m1", utf8("hi")),
      "5346 000003eb 00000011 000015b3 0000000000000007 02 6d31 6869",
    ],
    [encode.heartbeat(), "5346 000003ec 00000000"],
    [encode.ack([42n, 2n ** 63n + 1n]), "5346 000003ed 00000010 000000000000002a 8000000000000001"],
    [encode.join(7n, undefined), "5346 000003f2 00000008 0000000000000007"],
    [encode.join(7n, { since: 9n }), "5346 000003f2 00000011 0000000000000007 01 0000000000000009"],
    [encode.join(-2n, { last: 50n }), "5346 000003f2 00000011 fffffffffffffffe 02 0000000000000032"],
    [encode.leave(-2n), "5346 000003f3 00000008 fffffffffffffffe"],
  ] as const) {
    assert.equal(hex(bytes), drawn.replaceAll(" ", ""));
  }
});

test("what a server says is read as PROTOCOL.md draws it", () => {
  const heard = (text: string) => frames(unhex(text));
  assert.deepEqual(heard("5346 000003e9 00000004 00007530"), [{ kind: "logged_in", heartbeatMs: 30_000 }]);
  const [room] = heard(
    "5346 000003eb 0000002a 02 000015b3 000000000000002a 0000000000002712 0000000000000007 0000000000000009 02 6d31 6869",
  );
  assert(room?.kind === "message" && !room.wantsAck);
  const { messageId, sender, clientMsgId, sequence, text } = room.message;
  assert.deepEqual(
    [messageId, sender, room.message.room, sequence, clientMsgId, text],
    [42n, 10_002n, 7n, 9n, "m1", "hi"],
  );
  const [user] = heard("5346 000003eb 00000018 01 000015b3 000000000000002a 0000000000002712 00 ff00");
  assert(user?.kind === "message" && user.wantsAck && user.message.room === undefined);
  assert.deepEqual([...user.message.payload], [0xff, 0]);
  const [ack] = heard("5346 000003ee 00000014 05 0000000000000005 000000000000002a 02 6d31");
  assert.deepEqual(ack, {
    kind: "send_ack",
    outcome: "failed",
    detail: 5n,
    messageId: 42n,
    clientMsgId: "m1",
  });
  const [notice] = heard("5346 000003ef 00000011 0002 000005dc 627965 0a 623a31 0a 633a32");
  const draining = {
    code: 2,
    name: "draining",
    retryAfterMs: 1_500,
    text: "bye",
    alternatives: ["b:1", "c:2"],
  };
  assert.deepEqual(notice, { kind: "notice", notice: draining });
  const [joined] = heard("5346 000003f2 00000010 0000000000000007 0000000000000009");
  assert.deepEqual(joined, { kind: "joined", room: 7n, sequence: 9n, recovery: undefined });
  const [recovered] = heard("5346 000003f2 00000011 0000000000000007 0000000000000009 02");
  assert.deepEqual(recovered, { kind: "joined", room: 7n, sequence: 9n, recovery: "too_old" });
});

const captured = Buffer.concat([
  say.loggedIn(),
  say.joined(7, 9),
  say.inRoom(42, 7, 10, "ein Gruß", "m1"),
  say.direct(43, 10_002, "m2", "日本"),
  say.heartbeat(),
  say.sequenced("m1", 10),
  say.notice(2, 1_500, "bye\nb:1\nc:2"),
]);

test("a stream means the same wherever it is split", () => {
  const whole = frames(captured);
  assert.equal(whole.length, 7);
  for (let first = 0; first <= captured.length; first += 1) {
    for (let second = first; second <= captured.length; second += 1) {
      const reader = new FrameReader();
      const heard: ServerFrame[] = [];
      for (const part of [
        captured.subarray(0, first),
        captured.subarray(first, second),
        captured.subarray(second),
      ]) {
        heard.push(...reader.push(part));
      }
      assert.equal(
        JSON.stringify(heard, bigints),
        JSON.stringify(whole, bigints),
        `split at ${first} and ${second}`,
      );
    }
  }
  const reader = new FrameReader();
  const bytewise = [...captured].flatMap((byte) => [...reader.push(Uint8Array.of(byte))]);
  assert.equal(JSON.stringify(bytewise, bigints), JSON.stringify(whole, bigints));
});

function bigints(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

test("a body is refused if it is cut short or goes on", () => {
  for (const whole of [
    say.loggedIn(),
    say.joined(7, 9, 1),
    say.sequenced("m1", 10),
    frame(1011, [64, 7]),
    say.notice(1),
  ]) {
    const body = whole.subarray(10);
    const fixed = whole.length === 16 ? 6 : body.length;
    for (let length = 0; length < fixed; length += 1) {
      // A `joined` of 16 bytes is one without recovery.
      if (body.length === 17 && length === 16) continue;
      const code = new DataView(whole.buffer).getInt32(2);
      assert.throws(() => frames(frame(code, body.slice(0, length))), DecodeError, `${code} of ${length}`);
    }
  }
  assert.throws(() => frames(frame(1011, [64, 7], [8, 0])), DecodeError);
  assert.throws(() => frames(frame(1010, [64, 7], [64, 9], [8, 3])), DecodeError);
  assert.throws(() => frames(frame(1006, [8, 9], [64, 0], [64, 0], [8, 0])), DecodeError);
  assert.throws(() => frames(frame(1007, [16, 2], [32, 0], Uint8Array.of(0xff))), DecodeError);
});

test("garbage is known by its header", () => {
  for (const bad of ["4854", "5346 000003e9 ffffffff", "5346 000003e9 00400001", "5346 00000001 00000000"]) {
    assert.throws(() => frames(unhex(bad)), DecodeError, bad);
  }
  assert.deepEqual(frames(unhex("5346 000003e9 00400000")), []);
});
