//! Answers `ping` in room 7 with `pong`:
//! `cargo run -p sailfish-client --example chat_bot -- HOST:PORT TOKEN`.

use sailfish_client::{Config, Event, Outgoing, RoomId, start};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, token] = arguments.as_slice() else { panic!("want HOST:PORT TOKEN") };
    let (client, mut events) = start(Config::new(address), token.clone());
    client.join(RoomId(7), None);
    while let Some(event) = events.next().await {
        if let Event::Message(message) = event
            && message.payload == "ping"
        {
            client
                .send(Outgoing::to_room(RoomId(7), "pong"))
                .expect("a bot that says little has room for it");
        }
    }
}
