import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { utf8 } from "../src/wire.js";
import { Sim, say } from "./server.js";

describe("login and reconnects", () => {
  test("a client dials, logs in, and is online", () => {
    const sim = new Sim().start();
    assert.deepEqual([sim.dials[0]?.url, sim.status()], ["ws://home:1/path", "connecting"]);
    sim.open();
    assert.deepEqual([sim.take(), sim.status()], [["login t1"], "connecting"]);
    sim.hear(say.loggedIn());
    assert.equal(sim.status(), "online");
  });

  test("waits grow twofold up to twenty times, with chance, and begin anew after a login", () => {
    for (const [chance, part] of [
      [0, 0.75],
      [0.5, 1],
      [0.999999, 1.25],
    ] as const) {
      const sim = new Sim({ backoffMs: 100 }, () => chance).start();
      const waits = [];
      for (let number = 0; number < 8; number += 1) {
        sim.cut();
        const before = sim.now;
        sim.pass(3_000);
        waits.push((sim.dials.at(-1)?.ms ?? 0) - before);
      }
      const nominal = [100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000];
      assert.deepEqual(
        waits.map(Math.round),
        nominal.map((ms) => ms * part),
      );
      sim.login().cut();
      const before = sim.now;
      sim.pass(3_000);
      assert.equal(Math.round((sim.dials.at(-1)?.ms ?? 0) - before), 100 * part);
    }
  });

  test("a connection that does not open, or a login without an answer, is given up", () => {
    const sim = new Sim({ connectTimeoutMs: 5_000 }).start();
    sim.pass(4_999);
    assert.equal(sim.closes.length, 0);
    sim.pass(1);
    assert.deepEqual([sim.closes.length, sim.status()], [1, "waiting timeout"]);
    sim.pass(500).open().pass(5_000);
    assert.equal(sim.closes.length, 2);
  });

  test("several addresses are tried in turns, and the one that worked first", () => {
    const sim = new Sim({ urls: ["ws://a:1", "ws://b:1"] }).start();
    sim.cut().pass(2_000).login().cut().pass(2_000).cut().pass(2_000).cut().pass(2_000);
    assert.deepEqual(sim.dials.map(({ url }) => url.slice(5, 6)).join(""), "abbab");
  });

  test("what comes late of an old connection is nothing", () => {
    const sim = new Sim().online();
    const old = sim.connection;
    sim.cut().again();
    sim.do((now) => sim.core.bytes(old, say.direct(1, 2, "x", "late"), now));
    sim.do((now) => sim.core.closed(old, 1006, now));
    sim.do((now) => sim.core.opened(old, now));
    assert.deepEqual([sim.texts(), sim.status()], [[], "online"]);
  });

  test("garbage ends the connection, and the client comes back", () => {
    const sim = new Sim().online();
    sim.hear(utf8("HTTP/1.1 400"));
    assert.equal(sim.status(), "waiting garbage");
    sim.again();
    assert.equal(sim.status(), "online");
  });

  test("a stop logs out, and is the end", () => {
    const sim = new Sim().online();
    sim.send("m1").do((now) => sim.core.stop(now));
    assert.deepEqual(sim.take(), ["send 7 m1: hi", "logout"]);
    sim.hear(say.loggedOut());
    assert.deepEqual([sim.status(), sim.outcomes()], ["stopped logout", ["m1 stopped"]]);
    assert.equal(sim.pass(100_000).dials.length, 1);
    sim.start().login();
    assert.equal(sim.status(), "online");
  });

  test("a stop does not wait for a silent server, nor for a connection", () => {
    const sim = new Sim().online();
    sim.do((now) => sim.core.stop(now)).pass(2_000);
    assert.deepEqual([sim.status(), sim.closes.length], ["stopped logout", 1]);
    const dialling = new Sim().start();
    dialling.do((now) => dialling.core.stop(now));
    assert.deepEqual([dialling.status(), dialling.closes.length], ["stopped logout", 1]);
  });

  test("a network that is back is used at once, unless the server said when to come", () => {
    const sim = new Sim({ backoffMs: 10_000 }).online();
    sim.cut().do((now) => sim.core.hurry(now));
    assert.equal(sim.dials.length, 2);
    sim
      .login()
      .hear(say.notice(2, 60_000))
      .do((now) => sim.core.hurry(now));
    assert.equal(sim.dials.length, 2);
  });
});

describe("notices", () => {
  test("who is kicked stays away, by the notice and by the close", () => {
    const sim = new Sim().online();
    sim.hear(say.notice(1));
    assert.equal(sim.status(), "stopped kicked");
    assert.equal(sim.pass(1_000_000).dials.length, 1);
    const closed = new Sim().online();
    assert.equal(closed.cut(4001).status(), "stopped kicked");
  });

  test("nothing that comes after the end is looked at", () => {
    const sim = new Sim().online();
    sim.hear(say.notice(2, 100), say.direct(1, 2, "x", "after the end"));
    assert.deepEqual(sim.texts(), []);
  });

  test("a draining server names others, which are tried first, then it again", () => {
    const sim = new Sim().online();
    sim.hear(say.notice(2, 7_000, "bye\nb:1\nno host\n[::1]:2"));
    sim.pass(6_999);
    assert.equal(sim.dials.length, 1);
    sim.pass(1).cut().pass(2_000).cut().pass(2_000);
    const urls = ["ws://home:1/path", "ws://b:1/path", "ws://[::1]:2/path", "ws://home:1/path"];
    assert.deepEqual(
      sim.dials.map(({ url }) => url),
      urls,
    );
  });

  test("where an alternative took the client, it comes back to, then to where it came from", () => {
    const sim = new Sim().online();
    sim
      .hear(say.notice(2, 0, "bye\nb:1"))
      .again()
      .cut()
      .pass(2_000)
      .cut()
      .pass(2_000);
    const urls = ["ws://home:1/path", "ws://b:1/path", "ws://b:1/path", "ws://home:1/path"];
    assert.deepEqual(
      sim.dials.map(({ url }) => url),
      urls,
    );
  });

  test("a full server is come back to when it says", () => {
    const sim = new Sim().start().open();
    sim.hear(say.notice(31, 9_000));
    sim.pass(8_999);
    assert.equal(sim.dials.length, 1);
    assert.equal(sim.pass(1).dials.length, 2);
  });

  test("what is an error of this client is not done again", () => {
    for (const code of [10, 11, 12, 13, 20, 24]) {
      const sim = new Sim().online();
      sim.hear(say.notice(code));
      assert.equal(sim.pass(100_000).dials.length, 1);
      assert.equal(sim.status(), "stopped refused");
    }
  });

  test("who sent too fast sends slower", () => {
    const sim = new Sim({ framesPerSecondMax: 100 }).online();
    for (let number = 0; number < 400; number += 1) sim.send(`m${number}`);
    assert.equal(sim.take().length, 200);
    sim.pass(1_000);
    assert.equal(sim.take().length, 100);
    sim.hear(say.notice(3)).pass(500).login();
    sim.take();
    sim.pass(1_000);
    const burst = sim.take().length;
    assert(burst <= 50, `${burst} in a second`);
  });
});

describe("heartbeats", () => {
  test("one goes out when a period has passed without a frame", () => {
    const sim = new Sim().online();
    sim.pass(29_999);
    assert.deepEqual(sim.take(), []);
    sim.pass(1);
    assert.deepEqual(sim.take(), ["heartbeat"]);
    sim.hear(say.heartbeat()).pass(10_000).send("m1").hear(say.sequenced("m1", 1));
    assert.deepEqual(sim.take(), ["send 7 m1: hi"]);
    sim.pass(29_999);
    assert.deepEqual(sim.take(), []);
    assert.deepEqual(sim.pass(1).take(), ["heartbeat"]);
  });

  test("a server that answers none within a period is left; any frame is an answer", () => {
    const sim = new Sim().online();
    sim
      .pass(30_000)
      .pass(29_000)
      .hear(say.inRoom(1, 7, 1))
      .pass(29_000);
    assert.equal(sim.status(), "online");
    sim.pass(31_000);
    assert(sim.statuses().includes("waiting silent"));
  });

  test("a server that is silent is noticed by a client that only sends", () => {
    const sim = new Sim().online();
    for (let number = 0; number < 20; number += 1) {
      sim.pass(5_000).do((now) => sim.core.sendLossy(6002, 9n, utf8("typing"), now));
    }
    assert(sim.statuses().includes("waiting silent"));
  });

  test("a device that slept asks before it judges", () => {
    const sim = new Sim().online();
    sim.pass(30_000);
    sim.now += 3_600_000;
    sim.do((now) => sim.core.wake(now));
    assert.deepEqual([sim.take(), sim.status()], [["heartbeat", "heartbeat"], "online"]);
    sim.hear(say.heartbeat()).pass(10_000);
    assert.equal(sim.status(), "online");
    sim.pass(25_000);
    sim.now += 3_600_000;
    sim.do((now) => sim.core.wake(now)).pass(5_000);
    assert.equal(sim.status(), "waiting silent");
  });
});

describe("tokens", () => {
  test("a fresh one goes out on the live connection when a quarter is left, or a minute", () => {
    for (const [life, renewal] of [
      [40_000, 30_000],
      [900_000, 840_000],
    ] as const) {
      const sim = new Sim();
      sim.tokenLifeMs = life;
      sim.online();
      sim.hear(say.heartbeat());
      const heartbeats = () => sim.pass(20_000).hear(say.heartbeat());
      while (sim.now + 20_000 < 1_000 + renewal) heartbeats();
      sim.take();
      sim.pass(1_000 + renewal - 1 - sim.now);
      assert(!sim.take().some((line) => line.startsWith("login")));
      sim.pass(1);
      assert.deepEqual(
        sim.take().filter((line) => line !== "heartbeat"),
        ["login t2"],
      );
      sim.hear(say.loggedIn());
      assert.deepEqual([sim.dials.length, sim.tokenRequests.at(-1)?.reason], [1, "renew"]);
    }
  });

  test("one that was refused is not used again", () => {
    for (const code of [22, 23]) {
      const sim = new Sim().start().open().hear(say.notice(code)).again();
      assert.deepEqual(sim.take(), ["login t1", "login t2"]);
      assert.equal(sim.tokenRequests.at(-1)?.reason, "refused");
      sim.cut().again();
      assert.deepEqual(sim.take(), ["login t2"], "a good one is used again");
    }
  });

  test("a provider that fails or says nothing is asked again, later each time", () => {
    const sim = new Sim();
    sim.holdsTokens = true;
    sim.start();
    sim.do((now) => sim.core.tokenFailed(1, now));
    assert.equal(sim.status(), "waiting token_failed");
    sim.pass(500);
    assert.equal(sim.tokenRequests.length, 2);
    sim.pass(30_000).pass(2_000);
    assert.equal(sim.tokenRequests.length, 3);
    const late = sim.tokenRequests[0]?.request ?? 0;
    sim.do((now) => sim.core.tokenGiven(late, "late", undefined, now));
    assert.equal(sim.dials.length, 0);
  });

  test("without a token there is no session", () => {
    const sim = new Sim();
    sim.holdsTokens = true;
    sim.start();
    sim.do((now) => sim.core.tokenGiven(sim.tokenRequests[0]?.request ?? 0, null, undefined, now));
    assert.equal(sim.status(), "stopped no_token");
  });

  test("a renewal that fails is tried again while the session lasts", () => {
    const sim = new Sim();
    sim.tokenLifeMs = 8_000;
    sim.online();
    sim.holdsTokens = true;
    sim.pass(6_000);
    sim.do((now) => sim.core.tokenFailed(sim.tokenRequests.at(-1)?.request ?? 0, now));
    sim.holdsTokens = false;
    sim.pass(1_300);
    assert.deepEqual([sim.take(), sim.status()], [["login t3"], "online"]);
  });

  test("a token that is over by the clock here is the server's to judge", () => {
    const sim = new Sim();
    sim.tokenLifeMs = -5_000;
    sim.online().pass(20_000);
    assert.equal(sim.tokenRequests.length, 1);
  });
});

describe("sending", () => {
  test("a message is kept until its send-ack, and sent again after each reconnect, in order", () => {
    const sim = new Sim().online();
    sim.send("m1").send("m2").send("m3").hear(say.sequenced("m2", 5));
    assert.deepEqual(sim.take(), ["send 7 m1: hi", "send 7 m2: hi", "send 7 m3: hi"]);
    sim.cut().send("m4").again();
    assert.deepEqual(sim.take(), ["login t1", "send 7 m1: hi", "send 7 m3: hi", "send 7 m4: hi"]);
    sim.hear(say.sequenced("m4", 8), say.delivered("m3"), say.sequenced("m1", 6), say.sequenced("m1", 6));
    assert.deepEqual(sim.outcomes(), ["m2 sequenced", "m4 sequenced", "m3 delivered", "m1 sequenced"]);
    assert.equal(sim.core.unsent, 0);
  });

  test("a message without an outcome goes out again after a time", () => {
    const sim = new Sim({ repeatMs: 10_000 }).online();
    sim.send("m1").pass(9_999);
    assert.equal(sim.take().length, 1);
    sim.pass(1);
    assert.deepEqual(sim.take(), ["send 7 m1: hi"]);
  });

  test("a busy server gets it again later, longer each time, and what follows does not overtake it", () => {
    const sim = new Sim({ busyMs: 1_000 }).online();
    sim.send("m1").hear(say.failed("m1", 7)).send("m2").send("m3", 8n);
    assert.deepEqual(sim.take(), ["send 7 m1: hi", "send 8 m3: hi"]);
    sim.pass(999);
    assert.deepEqual(sim.take(), []);
    sim.pass(1);
    assert.deepEqual(sim.take(), ["send 7 m1: hi", "send 7 m2: hi"]);
    sim.hear(say.failed("m1", 7)).pass(1_999);
    assert.deepEqual([sim.take(), sim.outcomes()], [[], []]);
    sim.pass(1).hear(say.sequenced("m1", 1));
    assert.deepEqual(sim.outcomes(), ["m1 sequenced"]);
  });

  test("other failures are final", () => {
    const sim = new Sim().online();
    sim.send("m1").send("m2").hear(say.failed("m1", 1), say.failed("m2", 99));
    assert.deepEqual(sim.outcomes(), ["m1 offline", "m2 unknown"]);
    sim.take();
    sim.cut().again();
    assert.deepEqual(sim.take(), ["login t1"]);
  });

  test("a full store refuses, by number and by bytes, and takes again when there is room", () => {
    const sim = new Sim({ storeMessagesMax: 2 }).online();
    sim.send("m1").send("m2").send("m3");
    assert.deepEqual(sim.outcomes(), ["m3 store_full"]);
    sim.hear(say.sequenced("m1", 1)).send("m4");
    assert.deepEqual(sim.outcomes(), ["m3 store_full", "m1 sequenced"]);
    const small = new Sim({ storeBytesMax: 100 });
    small.send("m1", 7n, "x".repeat(60)).send("m2", 7n, "x".repeat(60));
    assert.deepEqual(small.outcomes(), ["m2 store_full"]);
  });

  test("what no server takes is refused here, so that it does not end each connection", () => {
    const sim = new Sim({ frameBytesMax: 100 }).online();
    sim.send("m1", 7n, "x".repeat(86));
    assert.deepEqual([sim.outcomes(), sim.take()], [["m1 too_long"], []]);
    assert.throws(() => sim.send("ü".repeat(33)), RangeError);
    assert.throws(() => sim.send(""), RangeError);
    sim.send("m2");
    assert.throws(() => sim.send("m2"), RangeError);
  });

  test("what may be lost goes out at once or not at all", () => {
    const sim = new Sim().start();
    const hint = () => {
      let sent;
      sim.do((now) => (sent = sim.core.sendLossy(6002, 9n, utf8("typing"), now)));
      return sent;
    };
    assert.equal(hint(), false);
    sim.login();
    sim.take();
    assert.deepEqual([hint(), sim.take()], [true, ["send 9 : typing"]]);
    sim.cut().again();
    assert.deepEqual(sim.take(), ["login t1"]);
  });
});

describe("receiving", () => {
  test("what wants an ack gets it, many in one frame, repeats too, and is shown once", () => {
    const sim = new Sim().online();
    sim.hear(say.direct(1, 9, "a", "one"), say.direct(2, 9, "b", "two"), say.inRoom(3, 7, 1, "three"));
    assert.deepEqual(sim.take(), ["ack 1 2"]);
    sim.hear(say.direct(1, 9, "a", "one"));
    assert.deepEqual([sim.take(), sim.texts()], [["ack 1"], ["one", "two", "three"]]);
    sim.hear(...Array.from({ length: 300 }, (_, index) => say.direct(100 + index, 9, "", "")));
    assert.deepEqual(
      sim.take().map((line) => line.split(" ").length - 1),
      [128, 128, 44],
    );
  });

  test("a message that its sender repeated under another id is known by its name", () => {
    const sim = new Sim().online();
    sim
      .hear(say.direct(1, 9, "a", "one"))
      .hear(say.direct(2, 9, "a", "one"), say.direct(3, 8, "a", "of another"));
    assert.deepEqual(
      [sim.take(), sim.texts()],
      [
        ["ack 1", "ack 2 3"],
        ["one", "of another"],
      ],
    );
    sim
      .cut()
      .again()
      .hear(say.direct(2, 9, "a", "one"));
    assert.deepEqual(sim.texts().length, 2);
  });

  test("an ack waits until the application has the message safe", () => {
    const sim = new Sim().online();
    sim.handles = false;
    sim.hear(say.direct(1, 9, "a", "one"), say.direct(2, 9, "a", "one"));
    assert.deepEqual(sim.take(), []);
    const [event] = sim.events.filter((event) => event.kind === "message");
    assert(event?.kind === "message");
    sim.cut().again();
    sim.take();
    sim.do((now) => sim.core.handled(event.message, true, now));
    assert.deepEqual(sim.take(), ["ack 1 2"]);
  });

  test("a message that the application could not take is shown again", () => {
    const sim = new Sim().online();
    sim.handles = false;
    sim.hear(say.direct(1, 9, "a", "one"));
    const [event] = sim.events.filter((event) => event.kind === "message");
    assert(event?.kind === "message");
    sim.do((now) => sim.core.handled(event.message, false, now));
    sim.handles = true;
    sim.hear(say.direct(1, 9, "a", "one"));
    assert.deepEqual([sim.take(), sim.texts()], [["ack 1"], ["one", "one"]]);
  });

  test("memory of messages is bounded, and the oldest are forgotten first", () => {
    const sim = new Sim({ rememberMax: 10 }).online();
    for (let id = 1; id <= 11; id += 1) sim.hear(say.direct(id, 9, "", String(id)));
    sim.hear(say.direct(11, 9, "", "11"), say.direct(1, 9, "", "1"));
    assert.deepEqual([sim.texts().length, sim.texts().at(-1)], [12, "1"]);
  });
});

describe("rooms", () => {
  const joins = (sim: Sim) => sim.take().filter((line) => line.startsWith("join"));

  test("a message to a room waits for the join, others do not", () => {
    const sim = new Sim().join(7).send("m1").send("m2", 9n).start().login();
    assert.deepEqual(sim.take(), ["login t1", "join 7", "send 9 m2: hi"]);
    sim.hear(say.joined(7, 100));
    assert.deepEqual(sim.take(), ["send 7 m1: hi"]);
  });

  test("a rejoin says what was seen last, in a message or in the answer to a plain join", () => {
    const sim = new Sim().online().join(7);
    sim.hear(say.joined(7, 100)).cut().again();
    assert.deepEqual(joins(sim), ["join 7", "join 7 since 100"]);
    sim
      .hear(say.joined(7, 102, 1), say.inRoom(1, 7, 101), say.inRoom(2, 7, 102), say.inRoom(3, 7, 103))
      .cut()
      .again();
    assert.deepEqual(joins(sim), ["join 7 since 103"]);
    assert.equal(sim.events.filter((event) => event.kind === "gap").length, 0);
  });

  test("a cut between the answer and the kept messages loses none of them", () => {
    const sim = new Sim().online().join(7);
    sim
      .hear(say.joined(7, 100))
      .cut()
      .again()
      .hear(say.joined(7, 105, 1), say.inRoom(1, 7, 101))
      .cut()
      .again();
    assert.deepEqual(joins(sim), ["join 7", "join 7 since 100", "join 7 since 101"]);
    const first = new Sim().online().join(7, 50);
    first
      .hear(say.joined(7, 100, 1))
      .cut()
      .again();
    assert.deepEqual(joins(first), ["join 7 last 50", "join 7 last 50"]);
  });

  test("a room without kept messages is known as such by the next heartbeat", () => {
    const sim = new Sim().online().join(7, 50);
    sim
      .hear(say.joined(7, 100, 1))
      .pass(30_000)
      .hear(say.heartbeat())
      .cut()
      .again();
    assert.deepEqual(joins(sim), ["join 7 last 50", "join 7 since 100"]);
  });

  test("what the server cannot give any more is told as a gap", () => {
    const sim = new Sim().online().join(7);
    sim
      .hear(say.joined(7, 100))
      .cut()
      .again()
      .hear(say.joined(7, 900, 2), say.inRoom(1, 7, 899));
    const gaps = () => sim.events.filter((event) => event.kind === "gap");
    assert.deepEqual(gaps(), [{ kind: "gap", room: 7n, after: 100n, sequence: 900n }]);
    const plain = new Sim({ history: false }).online().join(7, 50);
    plain.hear(say.joined(7, 100)).cut().again().hear(say.joined(7, 103));
    assert.deepEqual(joins(plain), ["join 7", "join 7"]);
    assert.deepEqual(plain.events.filter((event) => event.kind === "gap").length, 1);
  });

  test("after a gap a client goes on from the sequences that come, also if they are lower", () => {
    const sim = new Sim().online().join(7);
    sim
      .hear(say.joined(7, 900))
      .cut()
      .again()
      .hear(say.joined(7, 101, 2), say.inRoom(1, 7, 100))
      .cut()
      .again();
    assert.deepEqual(joins(sim), ["join 7", "join 7 since 900", "join 7 since 100"]);
    const empty = new Sim().online().join(7);
    empty
      .hear(say.joined(7, 900))
      .cut()
      .again()
      .hear(say.joined(7, 50, 2))
      .pass(30_000);
    empty.hear(say.heartbeat()).cut().again();
    assert.deepEqual(joins(empty), ["join 7", "join 7 since 900", "join 7 since 50"]);
  });

  test("a server without history gets plain joins, after it refused another one", () => {
    const sim = new Sim().online().join(7, 50);
    sim.hear(say.notice(13)).again();
    assert.deepEqual(joins(sim), ["join 7 last 50", "join 7"]);
    sim.hear(say.joined(7, 100)).cut().again();
    assert.deepEqual(joins(sim), ["join 7"]);
    sim.hear(say.joined(7, 100), say.notice(13));
    assert.equal(sim.status(), "stopped refused");
  });

  test("a join that finds no place is tried again, later each time", () => {
    const sim = new Sim().online().join(7);
    sim.take();
    sim.hear(say.notice(103)).pass(999);
    assert.deepEqual(sim.take(), []);
    sim.pass(1).hear(say.notice(103));
    assert.deepEqual(joins(sim), ["join 7"]);
    sim.pass(1_999);
    assert.deepEqual(joins(sim), []);
    sim.pass(1).hear(say.joined(7, 1));
    assert.deepEqual(joins(sim), ["join 7"]);
  });

  test("past the limit of rooms, the latest join is the one that fails", () => {
    const sim = new Sim().online().join(7).join(8);
    sim.hear(say.notice(102), say.joined(7, 1));
    assert.deepEqual(
      sim.events.filter((event) => event.kind === "not_joined"),
      [{ kind: "not_joined", room: 8n, reason: "room_limit" }],
    );
    sim.take();
    sim.cut().again();
    assert.deepEqual(joins(sim), ["join 7 since 1"]);
  });

  test("a message that finds its sender out of the room is sent again after a join", () => {
    const sim = new Sim().online().join(7);
    sim.hear(say.joined(7, 1)).send("m1");
    sim.take();
    sim.hear(say.failed("m1", 5));
    assert.deepEqual(sim.take(), ["join 7 since 1"]);
    sim.hear(say.joined(7, 2)).pass(1_000);
    assert.deepEqual(sim.take(), ["send 7 m1: hi"]);
    sim.send("m2", 8n).hear(say.failed("m2", 5));
    assert.deepEqual(sim.outcomes(), ["m2 not_member"]);
  });

  test("a room that was left stays left", () => {
    const sim = new Sim().online().join(7);
    sim.hear(say.joined(7, 1)).do((now) => sim.core.leave(7n, now));
    assert.deepEqual(sim.take(), ["join 7", "leave 7"]);
    sim.cut().again();
    assert.deepEqual(joins(sim), []);
  });
});

test("the same inputs give the same effects wherever the stream is split", () => {
  const stream = Buffer.concat([
    say.loggedIn(),
    say.joined(7, 9),
    say.inRoom(42, 7, 10, "hello", "m9"),
    say.direct(43, 10_002, "m2", "for you"),
    say.direct(43, 10_002, "m2", "for you"),
    say.sequenced("m1", 11),
  ]);
  const outcome = (...at: number[]) => {
    const sim = new Sim().join(7).send("m1").start().open();
    for (const [index, from] of [0, ...at].entries()) {
      sim.hear(new Uint8Array(stream.subarray(from, at[index] ?? stream.length)));
    }
    return [
      sim.texts(),
      sim.outcomes(),
      sim.status(),
      sim.take().join().replaceAll(",ack 43,", ",").length > 0,
    ];
  };
  const whole = outcome();
  assert.deepEqual(whole.slice(0, 3), [["hello", "for you"], ["m1 sequenced"], "online"]);
  for (let first = 0; first <= stream.length; first += 1) {
    for (let second = first; second <= stream.length; second += 1) {
      assert.deepEqual(outcome(first, second), whole, `split at ${first} and ${second}`);
    }
  }
});
