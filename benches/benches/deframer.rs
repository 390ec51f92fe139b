//! What cutting a stream and reading a body costs: user-space time alone, to hold against the microseconds a
//! system call takes.

use std::borrow::Cow;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wire::client::{
    Business, ClientFrame, Code, Deframer, Encoding, Frame, HEADER_BYTES, Message, ServerFrame,
};
use wire::{AppId, BizCode, ClientMsgId, MessageId, RoomId, UserId};

const BODY_BYTES_MAX: usize = 64 * 1024;
const APP: AppId = AppId(1);
const USER: UserId = UserId(10_001);
/// Heartbeats that meet in one read.
const MERGED: usize = 64;
/// Cuts every 24-byte heartbeat, in header and body by turns.
const PIECE_BYTES: usize = 17;

criterion_group!(benches, deframe, decode, encode);
criterion_main!(benches);

fn deframe(c: &mut Criterion) {
    let mut heartbeat = Vec::new();
    ClientFrame::Heartbeat { echo: &[7; 14] }.encode(Encoding::Binary, APP, USER, &mut heartbeat);
    assert_eq!(heartbeat.len(), 24);
    let merged = heartbeat.repeat(MERGED);

    let mut group = c.benchmark_group("deframe");
    group.throughput(Throughput::Elements(1));
    group.bench_function("heartbeat", |b| {
        let mut deframer = Deframer::default();
        b.iter(|| assert_eq!(count_heartbeats(&mut deframer, black_box(&heartbeat)), 1));
    });
    group.throughput(Throughput::Elements(MERGED as u64));
    group.bench_function("heartbeats_merged_64", |b| {
        let mut deframer = Deframer::default();
        b.iter(|| assert_eq!(count_heartbeats(&mut deframer, black_box(&merged)), MERGED));
    });
    group.bench_function("heartbeats_split", |b| {
        let mut deframer = Deframer::default();
        b.iter(|| {
            let pieces = black_box(&merged).chunks(PIECE_BYTES);
            let frames: usize = pieces.map(|piece| count_heartbeats(&mut deframer, piece)).sum();
            assert_eq!(frames, MERGED);
        });
    });
    group.finish();
}

fn count_heartbeats(deframer: &mut Deframer, mut input: &[u8]) -> usize {
    let mut heartbeats = 0;
    while let Some(frame) = deframer.next(&mut input, BODY_BYTES_MAX).expect("good frames") {
        let decoded = ClientFrame::decode(&frame).expect("good bodies");
        heartbeats += usize::from(matches!(decoded, ClientFrame::Heartbeat { .. }));
    }
    heartbeats
}

fn decode(c: &mut Criterion) {
    let business = ClientFrame::Business(Business {
        biz_code: BizCode(5555),
        target: 7,
        client_msg_id: Cow::Borrowed("01J9ZQ4T7V6W8X"),
        payload: Cow::Owned(vec![b'a'; 200]),
    });
    let mut group = c.benchmark_group("decode");
    for (name, encoding) in [("business_binary", Encoding::Binary), ("business_json", Encoding::Json)] {
        let mut bytes = Vec::new();
        business.encode(encoding, APP, USER, &mut bytes);
        let frame = Frame { encoding, code: Code::Business, body: &bytes[HEADER_BYTES..] };
        group.bench_function(name, |b| b.iter(|| ClientFrame::decode(black_box(&frame)).is_ok()));
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let message = Message {
        id: MessageId(1 << 60),
        app: APP,
        sender: USER,
        biz_code: BizCode(5555),
        room: Some(RoomId(7)),
        sequence: 1 << 50,
        ack_wanted: false,
        client_msg_id: ClientMsgId::new(Bytes::from_static(b"01J9ZQ4T7V6W8X")),
        payload: Bytes::from_static(&[b'a'; 200]),
    };
    let frame = ServerFrame::Deliver(Cow::Owned(message));
    let mut group = c.benchmark_group("encode");
    for (name, encoding) in [("deliver_binary", Encoding::Binary), ("deliver_json", Encoding::Json)] {
        let mut out = Vec::with_capacity(1024);
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                black_box(&frame).encode(encoding, APP, USER, &mut out);
                out.len()
            });
        });
    }
    group.finish();
}
