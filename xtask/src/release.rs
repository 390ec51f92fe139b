//! `cargo xtask release`: the archive that is given away, with its checksum.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::{ci, root};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What is copied as it is: where it lies in the repository, and where in the archive.
const FILES: [(&str, &str); 6] = [
    ("LICENSE", "LICENSE"),
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("SECURITY.md", "SECURITY.md"),
    ("deploy/sailfish@.service", "systemd/sailfish@.service"),
    ("deploy/make-secrets", "systemd/make-secrets"),
];
/// Where shells look for completions, by the names that they want.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "completions/bash/sailfish"),
    ("zsh", "completions/zsh/_sailfish"),
    ("fish", "completions/fish/sailfish.fish"),
];

/// Builds the binary and packs it, with all that goes with it, into target/release-pack/.
pub fn run() -> anyhow::Result<()> {
    // glibc, since glommio does not compile for musl: its threads are pointers there.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let binary = build(&target)?;
    let is_static = is_static(&fs::read(&binary)?).context("the binary is no ELF file of 64 bits")?;
    ensure!(is_static, "{} wants libraries of the system", binary.display());
    let folder = root().join("target/release-pack");
    let name = format!("sailfish-{VERSION}-{target}");
    let staged = folder.join(&name);
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    stage(&binary, &staged)?;
    let archive = pack(&folder, &name, commit_time()?)?;
    write_sums(&folder)?;
    println!("{} ({:.1} MB)", archive.display(), fs::metadata(&archive)?.len() as f64 / 1e6);
    Ok(())
}

/// Builds the binary with the C library in it, without symbols and without the paths of this machine; answers
/// where it is.
fn build(target: &str) -> anyhow::Result<PathBuf> {
    let output = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.push(format!("--remap-path-prefix={}=/sailfish", root().display()));
    flags.push(format!("--remap-path-prefix={}=/target", output.display()));
    flags.extend(home.map(|home| format!("--remap-path-prefix={}=/cargo", home.display())));
    // With a target named, the flags are for it alone, and not for what runs while it is built.
    let mut cargo = ci::cargo(&["build", "--release", "--locked", "--bin", "sailfish", "--target", target]);
    cargo.env("CARGO_TARGET_DIR", &output).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols").env("CARGO_PROFILE_RELEASE_DEBUG", "none");
    ensure!(cargo.status().context("cannot start cargo")?.success(), "the build failed, see above");
    Ok(output.join(target).join("release/sailfish"))
}

/// Puts all files of the archive into a folder.
fn stage(binary: &Path, staged: &Path) -> anyhow::Result<()> {
    let place = |name: &str| -> anyhow::Result<PathBuf> {
        let place = staged.join(name);
        fs::create_dir_all(place.parent().expect("it has a folder"))?;
        Ok(place)
    };
    fs::copy(binary, place("sailfish")?)?;
    for (from, to) in FILES {
        fs::copy(root().join(from), place(to)?).with_context(|| from.to_owned())?;
    }
    let mut man = Command::new(binary);
    output(man.args(["man", "--out"]).arg(place("man/man1")?))?;
    for (shell, to) in COMPLETIONS {
        fs::write(place(to)?, output(Command::new(binary).args(["completions", shell]))?)?;
    }
    Ok(())
}

/// Packs folder/NAME/ into folder/NAME.tar.gz. The same files give the same bytes at any time, on any
/// machine.
fn pack(folder: &Path, name: &str, time: u64) -> anyhow::Result<PathBuf> {
    let (tar, packed) = (folder.join(format!("{name}.tar")), folder.join(format!("{name}.tar.gz")));
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--format=ustar", "--owner=0", "--group=0", "--numeric-owner"]);
    command.args(["--mode=u+rw,go-w,a+rX", &format!("--mtime=@{time}")]).env("LC_ALL", "C");
    output(command.arg("--create").arg("--file").arg(&tar).arg("--directory").arg(folder).arg(name))?;
    output(Command::new("gzip").args(["--no-name", "--best", "--force"]).arg(&tar))?;
    Ok(packed)
}

/// Writes the checksums of this version's archives as `sha256sum --check` wants them.
fn write_sums(folder: &Path) -> anyhow::Result<()> {
    let names = fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_archive =
        |name: &String| name.starts_with(&format!("sailfish-{VERSION}-")) && name.ends_with(".tar.gz");
    let mut names: Vec<String> = names.filter(is_archive).collect();
    names.sort();
    let sums = output(Command::new("sha256sum").args(&names).current_dir(folder))?;
    Ok(fs::write(folder.join("SHA256SUMS"), sums)?)
}

/// What the files' times are: `SOURCE_DATE_EPOCH`, or the time of the last commit, in seconds since 1970.
fn commit_time() -> anyhow::Result<u64> {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let time = given.map_or_else(
        || {
            let mut git = Command::new("git");
            let said = output(git.args(["log", "-1", "--format=%ct"]).current_dir(root()))?;
            Ok::<_, anyhow::Error>(String::from_utf8(said)?)
        },
        Ok,
    )?;
    time.trim().parse().context("SOURCE_DATE_EPOCH: want seconds since 1970")
}

/// What a command prints.
fn output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let done = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let done = done.with_context(|| format!("cannot start {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?} failed ({})", done.status);
    }
    Ok(done.stdout)
}

/// Whether an ELF file of 64 bits names no loader of libraries (System V ABI, program headers); `None` if it
/// is no such file.
fn is_static(file: &[u8]) -> Option<bool> {
    const LOADER: u32 = 3; // PT_INTERP
    let bytes = |at: usize, count: usize| file.get(at..at.checked_add(count)?);
    let number =
        |at, count| Some(bytes(at, count)?.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    if bytes(0, 6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (first, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for header in 0..count {
        let at = usize::try_from(first.checked_add(header * size)?).ok()?;
        if number(at, 4)? == u64::from(LOADER) {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use testbed::Folder;

    use super::*;

    #[test]
    fn the_same_files_give_the_same_archive() {
        let folder = Folder::new("release").keep();
        let archive = |name: &str, umask: u32| {
            let own = folder.join(name);
            for file in ["pack/b", "pack/a", "pack/man/c.1"] {
                let path = own.join(file);
                fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
                fs::write(&path, file).expect("a file");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o666 & !umask)).expect("a mode");
            }
            fs::read(pack(&own, "pack", 1_700_000_000).expect("it is packed")).expect("an archive")
        };
        let (one, other) = (archive("one", 0o022), archive("other", 0o002));
        assert!(one == other, "{} and {} bytes", one.len(), other.len());
        let listed = output(Command::new("tar").args(["-tvzf"]).arg(folder.join("one/pack.tar.gz")));
        let listed = String::from_utf8(listed.expect("tar lists it")).expect("text");
        let names: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next_back()).collect();
        assert_eq!(names, ["pack/", "pack/a", "pack/b", "pack/man/", "pack/man/c.1"]);
        assert!(listed.lines().all(|line| line.contains(" 0/0 ") && line.contains("2023-11-14")), "{listed}");
    }

    #[test]
    fn a_binary_is_static_or_not() {
        let own = fs::read(std::env::current_exe().expect("a path")).expect("a file");
        assert_eq!(is_static(&own), Some(cfg!(target_feature = "crt-static")));
        let mut file = vec![0; 64 + 2 * 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (file[32], file[54], file[56]) = (64, 56, 2);
        file[64] = 1;
        assert_eq!(is_static(&file), Some(true));
        file[64 + 56] = 3;
        assert_eq!(is_static(&file), Some(false));
        assert_eq!(is_static(&file[..100]), None);
        assert_eq!(is_static(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn what_is_packed_is_there() {
        for (from, _) in FILES {
            assert!(root().join(from).is_file(), "{from}");
        }
    }
}
