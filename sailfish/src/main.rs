//! The `sailfish` binary: reads the configuration, composes the cores on threads, owns signals and the admin
//! port.
//!
//! No protocol and no business rule lives here.
// Clocks, threads and sleeping are this binary's to use; the cores get them as arguments.
#![allow(clippy::disallowed_methods)]
#![warn(clippy::print_stdout)] // `cli::print` tells what could not be written

mod admin;
mod backend;
mod bridge;
mod certificates;
mod chat;
mod cli;
mod config;
mod control;
mod ctl;
mod database_lock;
mod demo;
mod directory;
mod file_watch;
mod files;
mod keys;
mod load;
mod log;
mod manual;
mod outside;
mod ports;
mod printable;
mod read;
mod redis_urls;
mod role;
mod secret;
mod serve;
mod shell;
mod signals;
mod token;
mod top;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An IM gateway for live streaming and chat.
#[derive(Parser)]
#[command(name = "sailfish", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(serve::UpArgs),
    Gateway(serve::GatewayArgs),
    Router(serve::RouterArgs),
    Backend(backend::BackendArgs),
    Bridge(serve::BridgeArgs),
    Token(token::TokenArgs),
    Chat(chat::ChatArgs),
    Load(Box<load::LoadArgs>),
    Ctl(ctl::CtlArgs),
    Top(top::TopArgs),
    Demo(demo::DemoArgs),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
    /// One of the processes that `load` starts.
    #[command(hide = true)]
    LoadWorker,
}

fn main() -> ExitCode {
    let outcome = match arguments().command {
        Command::Up(args) => serve::up(&args),
        Command::Gateway(args) => serve::gateway(&args),
        Command::Router(args) => serve::router(&args),
        Command::Backend(args) => backend::run(&args),
        Command::Bridge(args) => serve::bridge(&args),
        Command::Token(args) => token::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Chat(args) => chat::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Ctl(args) => ctl::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Completions(args) => {
            manual::completions(&args, Cli::command());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man(args) => manual::man(&args, Cli::command()).map(|()| ExitCode::SUCCESS),
        Command::LoadWorker => load::run_worker(),
    };
    outcome.unwrap_or_else(|error| {
        if error.is::<signals::Interrupted>() {
            return ExitCode::SUCCESS;
        }
        // What happened, and what it came from.
        cli::complain(&format!("{error:#}"));
        let is_config = error.downcast_ref::<config::ConfigError>().is_some();
        ExitCode::from(if is_config { 2 } else { 1 })
    })
}

/// The command line. Help and version go to stdout, as work does that must not be lost.
fn arguments() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            error.exit();
        }
        cli::written(error.print().and_then(|()| cli::write("")));
        std::process::exit(0);
    })
}
