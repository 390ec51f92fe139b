//! `sailfish completions` and `sailfish man`: made from the command line itself, so that neither misses a
//! flag.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli;
use crate::config::ConfigError;

/// Prints the completions of `sailfish` for a shell.
///
/// For bash: `sailfish completions bash > /etc/bash_completion.d/sailfish`.
#[derive(clap::Args)]
pub struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Shows a manual page, or writes all of them into a folder.
///
/// To a terminal it is shown by `man`; anything else gets its source: `sailfish man ctl push | man -l -`.
#[derive(clap::Args)]
pub struct ManArgs {
    /// The subcommand that the page is about [default: sailfish itself].
    #[arg(value_name = "SUBCOMMAND", conflicts_with = "out")]
    subcommand: Vec<String>,
    /// Writes the page of each subcommand into this folder: sailfish.1, sailfish-up.1 and so on.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs `sailfish completions`.
pub fn completions(args: &CompletionsArgs, mut sailfish: Command) {
    let mut script = Vec::new();
    let name = sailfish.get_name().to_owned();
    clap_complete::generate(args.shell, &mut sailfish, name, &mut script);
    cli::written(cli::write_bytes(&script));
}

/// Runs `sailfish man`.
///
/// # Errors
/// There is no such subcommand, or the folder cannot be written to.
pub fn man(args: &ManArgs, mut sailfish: Command) -> anyhow::Result<()> {
    if let Some(folder) = &args.out {
        let name = || format!("--out {}", folder.display());
        std::fs::create_dir_all(folder).with_context(name)?;
        return clap_mangen::generate_to(sailfish, folder).with_context(name);
    }
    sailfish.build();
    let mut page = &sailfish;
    for word in &args.subcommand {
        let names = || {
            let shown = page.get_subcommands().filter(|command| !command.is_hide_set());
            shown.map(Command::get_name).collect::<Vec<_>>().join(", ")
        };
        page = page
            .find_subcommand(word)
            .filter(|command| !command.is_hide_set())
            .ok_or_else(|| ConfigError(format!("no subcommand {word:?}; there are: {}", names())))?;
    }
    let mut text = Vec::new();
    Man::new(page.clone()).render(&mut text).context("a page in memory")?;
    if io::stdout().is_terminal() {
        let words = ["sailfish"].into_iter().chain(args.subcommand.iter().map(String::as_str));
        return show(&text, &words.collect::<Vec<_>>().join(" "));
    }
    cli::written(cli::write_bytes(&text));
    Ok(())
}

/// Shows a page on the terminal.
///
/// # Errors
/// There is no `man`, or it failed.
fn show(page: &[u8], command: &str) -> anyhow::Result<()> {
    let man = Process::new("man").args(["-l", "-"]).stdin(Stdio::piped()).spawn();
    let is_shown = man.and_then(|mut man| {
        // The reader may quit the pager before the end.
        let _ = man.stdin.take().map(|mut stdin| stdin.write_all(page));
        Ok(man.wait()?.success())
    });
    match is_shown {
        Ok(true) => Ok(()),
        _ => anyhow::bail!(
            "man cannot show the page here: {command} --help says the same, and behind a pipe its source is printed"
        ),
    }
}
