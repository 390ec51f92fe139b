//! `cargo xtask ci`: one verdict, the same on every machine.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::root;

/// A command of cargo that must succeed.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

/// Quickest first. All use the dev profile, so that there is one set of artefacts, but for what depends on
/// glommio; `cargo test` runs the doc tests too.
const STEPS: [Step; 5] = [
    Step { name: "format", arguments: &["fmt", "--all", "--check"], environment: &[] },
    Step {
        name: "lints",
        arguments: &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"],
        environment: &[],
    },
    // The members' other default features stay on, so that hardly anything else is compiled once more.
    Step {
        name: "lints without glommio",
        arguments: &[
            "clippy",
            "--locked",
            "--workspace",
            "--no-default-features",
            "--features",
            "hostile/default,sailfish-client/default",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        environment: &[],
    },
    Step {
        name: "tests",
        arguments: &["test", "--locked", "--workspace", "--no-fail-fast"],
        environment: &[],
    },
    Step {
        name: "docs",
        arguments: &["doc", "--locked", "--workspace", "--no-deps"],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
    },
];

impl Step {
    /// What a developer types to repeat the step.
    fn command_line(&self) -> String {
        let environment = self.environment.iter().map(|(name, value)| format!("{name}='{value}' "));
        format!("{}cargo {}", environment.collect::<String>(), self.arguments.join(" "))
    }
}

/// Runs the steps in order and stops at the first that fails.
pub fn run() -> anyhow::Result<()> {
    let start = Instant::now();
    install_tools()?;
    for (number, step) in STEPS.iter().enumerate() {
        let command = step.command_line();
        println!("\n=== {}/{} {}: {command}", number + 1, STEPS.len(), step.name);
        let step_start = Instant::now();
        let status = cargo(step.arguments)
            .envs(step.environment.iter().copied())
            .status()
            .with_context(|| format!("cannot start `{command}`"))?;
        let elapsed = seconds(step_start.elapsed());
        if !status.success() {
            bail!("ci failed in {} after {elapsed} ({status}); to repeat it: {command}", step.name);
        }
        println!("=== {} passed in {elapsed}", step.name);
    }
    println!("\n=== ci passed in {}", seconds(start.elapsed()));
    Ok(())
}

/// Adds what the steps need beyond cargo and a linker, without which this program would not run.
fn install_tools() -> anyhow::Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !succeeds(&mut cargo(&[subcommand, "--version"]))? {
            install(Command::new("rustup").args(["component", "add", component]), component)?;
        }
    }
    // The build script of glommio calls git; tests start a redis-server and a mariadbd, make network
    // namespaces by ip, run the examples of docs/BACKEND.md, build and test clients/typescript and
    // clients/java, and open the pages of web/.
    for (tool, version, package) in [
        ("git", "--version", "git"),
        ("redis-server", "--version", "redis-server"),
        ("mariadbd", "--version", "mariadb-server"),
        ("ip", "-V", "iproute2"),
        ("python3", "--version", "python3"),
        ("curl", "--version", "curl"),
        ("openssl", "version", "openssl"),
        ("node", "--version", "nodejs"),
        ("npm", "--version", "npm"),
        ("javac", "-version", "default-jdk-headless"),
        ("chromium", "--version", "chromium"),
    ] {
        if !succeeds(Command::new(tool).arg(version).env("PATH", path()))? {
            install(Command::new("sh").args(["-c", INSTALL, "sh", package]), tool)?;
        }
    }
    // A library of Java's has no command to ask. Who has it elsewhere says so to clients/java/test.sh by
    // JUNIT.
    if std::env::var_os("JUNIT").is_none() && !Path::new("/usr/share/java/junit4.jar").exists() {
        install(Command::new("sh").args(["-c", INSTALL, "sh", "junit4"]), "junit4")?;
    }
    Ok(())
}

/// Servers are in folders that not every user has in the path.
fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin"
}

fn install(command: &mut Command, tool: &str) -> anyhow::Result<()> {
    println!("=== installing {tool}: {command:?}");
    if !matches!(command.stdin(Stdio::null()).status(), Ok(status) if status.success()) {
        bail!(
            "ci needs {tool} and could not install it; install it by hand, then run `cargo xtask ci` again"
        );
    }
    Ok(())
}

/// Whether the command is there and succeeds; its output is dropped.
fn succeeds(command: &mut Command) -> anyhow::Result<bool> {
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) => Ok(status.success()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot start {command:?}")),
    }
}

pub fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

/// Installs the package `$1`. Tests start servers of their own, so the package's service is not to run: while
/// policy-rc.d says 101, Debian's scripts start none. A policy that is there stays, so what has been started
/// is stopped, and is not started at the next boot.
const INSTALL: &str = r#"
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT INT TERM
        printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy" || exit 1
    fi
    apt-get update && apt-get install --yes --no-install-recommends "$1" || exit 1
    case "$1" in
        mariadb-server) service=mariadb ;;
        redis-server) service=redis-server ;;
        *) exit 0 ;;
    esac
    if [ -d /run/systemd/system ]; then
        systemctl disable --now "$service"
    elif [ -x "/etc/init.d/$service" ]; then
        "/etc/init.d/$service" stop
    fi
    exit 0
"#;
