//! Fan-out from one publisher to many receivers: against nats-server, an MQTT broker, the gateway or a raw
//! loop.

use std::net::SocketAddr;

use benches::peer::{Dialect, Mqtt, Nats, Plan, Sailfish, run};
use clap::{Parser, ValueEnum};

/// Publishes at a fixed rate and prints what came through, as one line of JSON.
#[derive(Parser)]
struct Args {
    /// What the server speaks.
    protocol: Protocol,
    /// The server.
    #[arg(long)]
    target: SocketAddr,
    /// Connections that read.
    #[arg(long, default_value_t = 1000)]
    receivers: usize,
    /// Connections that take part and never read.
    #[arg(long, default_value_t = 0)]
    stopped: usize,
    /// Messages a second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// How long to measure.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How long to publish before that.
    #[arg(long, default_value_t = 1.0)]
    warm_up_seconds: f64,
    /// Bytes of a message.
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// The server's process.
    #[arg(long)]
    server_pid: Option<u32>,
    /// What a Sailfish server checks tokens with.
    #[arg(long, default_value = "")]
    secret: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Nats,
    Mqtt,
    Sailfish,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let plan = Plan {
        target: args.target,
        receivers: args.receivers,
        stopped: args.stopped,
        rate: args.rate,
        seconds: args.seconds,
        warm_up_seconds: args.warm_up_seconds,
        payload: args.payload,
        server_pid: args.server_pid,
    };
    let dialect: &dyn Dialect = match args.protocol {
        Protocol::Nats => &Nats,
        Protocol::Mqtt => &Mqtt,
        Protocol::Sailfish => &Sailfish { secret: args.secret.into_bytes() },
    };
    println!("{}", serde_json::to_string(&run(dialect, &plan)?)?);
    Ok(())
}
