//! `sailfish up` as an operator meets it: the ready line, the configuration, signals, and errors in one line.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::time::Instant;

use rustix::process::Signal;
use wire::client::{NoticeCode, Outcome};

use crate::common::{Folder, SECRET, Server, output, sailfish, until};

/// Runs `sailfish` with arguments that it refuses; answers the code and the one line it says.
fn refused(arguments: &[&str]) -> (i32, String) {
    let output = output(sailfish().args(arguments).env("SAILFISH_TOKEN__SECRET", SECRET), "");
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(line.trim_end().lines().count(), 1, "more than one line: {line}");
    (output.status.code().unwrap(), line)
}

#[test]
fn it_is_ready_at_once_and_tells_how_to_go_on() {
    let began = Instant::now();
    let server = Server::start(&[]);
    let took = began.elapsed();
    assert!(took.as_secs() < 10, "{took:?}");
    let first = server.stdout.lines().next().unwrap();
    assert!(first.contains(" engine=") && first.ends_with(" shards=2 node=0"), "{first}");
    for part in ["/metrics", " chat --user 10001 --room 7", " token --app 1", " load chat "] {
        assert!(server.stdout.contains(part), "{part} is not in {}", server.stdout);
    }
    assert!(server.stdout.contains(&format!("--target {}", server.clients)));
    until("the log says why the engine was chosen", || server.log().contains("reason="));
}

/// Each command of the ready text works as it stands, from another directory and in an environment without
/// our variables.
#[test]
fn its_commands_work_as_printed() {
    let folder = Folder::new("commands with spaces");
    for given in ["state", "config"] {
        let mut command = sailfish();
        command.args(["up", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--shards", "1"]);
        command.current_dir(&folder.0);
        match given {
            "state" => command.env("XDG_STATE_HOME", folder.0.join("state")),
            _ => {
                folder.file("sailfish.toml", "[token]\nsecret = \"the secret of the file\"\n");
                command.args(["--config", "sailfish.toml"])
            }
        };
        let server = Server::spawn(&mut command);
        let line = server.stdout.lines().find(|line| line.contains(" chat --user 10001")).unwrap();
        let shell = output(
            std::process::Command::new("sh").args(["-c", line]).current_dir("/").env_remove("XDG_STATE_HOME"),
            "hello\n",
        );
        let said = String::from_utf8(shell.stdout).unwrap();
        assert!(shell.status.success() && said.contains("sequenced"), "{given}: {line} said {said}");
        let line = server.stdout.lines().find(|line| line.contains(" token --app 1")).unwrap();
        let shell = output(std::process::Command::new("sh").args(["-c", line]).current_dir("/"), "");
        let token = String::from_utf8(shell.stdout).unwrap();
        let mut client = server.connect();
        client.send_login(token.trim());
        assert!(matches!(client.next(), Some(wire::client::ServerFrame::LoggedIn { .. })), "{given}: {line}");
    }
}

#[test]
fn the_first_secret_is_kept_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new("secret");
    let token = || {
        let mut command = sailfish();
        let output = output(
            command.args(["token", "--user", "1", "--ttl", "30d"]).env("XDG_STATE_HOME", &folder.0),
            "",
        );
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let (first, second) = (token(), token());
    let header = |token: &str| token.split('.').next().unwrap().to_owned();
    assert_eq!(first.split('.').count(), 3);
    assert_eq!(header(&first), header(&second));
    let path = folder.0.join("sailfish/token-secret");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read(&path).unwrap();
    let keys = gateway::TokenKeys::hs256(&secret);
    assert!(keys.verify(first.trim(), 0).is_ok() && keys.verify(second.trim(), 0).is_ok());
}

#[test]
fn the_printed_configuration_is_one() {
    let folder = Folder::new("print");
    let printed = output(sailfish().args(["up", "--print-config", "--set", "limits.rooms_max=3"]), "");
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.contains("rooms_max = 3") && text.contains("# Rooms that one session may be in."), "{text}");
    let file = folder.file("printed.toml", &text);
    let again = output(sailfish().args(["up", "--print-config", "--config", &file]), "");
    assert_eq!(String::from_utf8(again.stdout).unwrap(), text);
}

#[test]
fn a_bad_configuration_names_the_key_and_its_wish() {
    let folder = Folder::new("config");
    let file = folder.file("sailfish.toml", "[limits]\nframe_bytes_max = 1\n");
    let (code, line) = refused(&["up", "--config", &file]);
    assert_eq!(code, 2);
    assert_eq!(
        line,
        format!("sailfish: {file}: limits.frame_bytes_max = 1: want a number from 768 to 1048576\n")
    );
    let (code, line) = refused(&["up", "--shards", "many"]);
    assert_eq!(
        (code, line.as_str()),
        (2, "sailfish: --shards: node.shards = \"many\": want a whole number\n")
    );
    let (code, line) = refused(&["token", "--user", "1", "--set", "limits.frames=1"]);
    assert!(code == 2 && line.contains("limits.frames: no such key"), "{line}");
    let (code, line) = refused(&["up", "--config", "/no/such/file.toml"]);
    assert!(code == 2 && line.contains("/no/such/file.toml"), "{line}");
}

#[test]
fn a_port_in_use_is_told_with_a_command_that_works() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for arguments in
        [["--listen", &address, "--admin", "127.0.0.1:0"], ["--listen", "127.0.0.1:0", "--admin", &address]]
    {
        let arguments = [&["up", "--shards", "2"][..], &arguments].concat();
        let output = output(sailfish().args(&arguments), "");
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        let lines: Vec<&str> = told.lines().collect();
        assert!(
            lines.len() == 3 && lines[0].contains(&format!("{address} (--")) && lines[0].contains("in use"),
            "{told}"
        );
    }
}

#[test]
fn one_address_for_two_things_is_told_as_such() {
    let address = format!("127.0.0.1:{}", testbed::free_port());
    let output =
        output(sailfish().args(["up", "--shards", "2", "--listen", &address, "--admin", &address]), "");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("{address} is wanted twice, by --listen and by --admin")), "{told}");
}

/// The second `up` on a machine: all that is in its way is named at once, and the command line that it prints
/// starts it.
#[test]
fn a_second_up_is_told_all_that_is_in_its_way() {
    let folder = Folder::new("second");
    let up = |command: &mut std::process::Command| {
        command.env("XDG_STATE_HOME", &folder.0).env("SAILFISH_BRIDGE__MODE", "auto");
    };
    let mut first = sailfish();
    up(first.args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1"]));
    let first = Server::spawn(first.args(["--set", "backend.listen=127.0.0.1:0"]));
    let line = first.stdout.lines().next().unwrap().to_owned();
    let backend = line.split("backend=").nth(1).unwrap();
    let mut second = sailfish();
    up(second.args(["up", "--listen", &first.clients.to_string(), "--admin", &first.admin.to_string()]));
    let output = output(second.args(["--shards", "1", "--set", &format!("backend.listen={backend}")]), "");
    let told = String::from_utf8(output.stderr).unwrap();
    let refused =
        told.lines().find(|line| line.starts_with("sailfish: ")).unwrap_or_else(|| panic!("{told}"));
    let database = folder.0.join("sailfish/backend.db").display().to_string();
    for part in [
        &format!("{} (--listen)", first.clients),
        &format!("{} (--admin)", first.admin),
        &format!("{backend} (backend.listen)"),
        &format!("{database} is in use by another sailfish (process {})", first.pid()),
    ] {
        assert!(refused.contains(part), "{part} is not in {told}");
    }
    assert_eq!(output.status.code(), Some(1));
    let pasted = told.lines().last().unwrap().trim();
    let mut shell = std::process::Command::new("sh");
    up(shell.args(["-c", &format!("{pasted} --print-config")]));
    let config = crate::common::output(&mut shell, "");
    let config = String::from_utf8(config.stdout).unwrap();
    assert!(
        config.contains(&format!("database = \"sqlite:{}", folder.0.join("sailfish/backend-2.db").display())),
        "{config}"
    );
    for taken in [&first.clients.to_string(), &first.admin.to_string(), backend] {
        assert!(!config.contains(&format!("\"{taken}\"")), "{pasted}");
    }
}

/// The kernel takes the io_uring of a killed process down behind its back, and its listeners with it.
#[test]
fn a_node_is_back_at_once_after_it_was_killed() {
    let [clients, admin] = [(); 2].map(|()| format!("127.0.0.1:{}", testbed::free_port()));
    for _ in 0..6 {
        let mut command = sailfish();
        command.args(["up", "--listen", &clients, "--admin", &admin, "--shards", "2"]);
        drop(Server::spawn(command.env("SAILFISH_TOKEN__SECRET", SECRET))); // kill -9
    }
}

/// A backend that waits for its database says so, and ends when it is told to.
#[test]
fn a_start_that_waits_for_its_database_ends_at_a_signal() {
    let nobody = format!("127.0.0.1:{}", testbed::free_port());
    let folder = Folder::new("waits");
    let database = format!("mysql://u:hush@{nobody}/b");
    let set = format!("backend.database={database}");
    let backend = ["backend", "--listen", "127.0.0.1:0", "--database", &database];
    let up = [
        "up",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--set",
        "backend.listen=127.0.0.1:0",
        "--set",
        &set,
    ];
    for arguments in [&backend[..], &up] {
        let mut command = sailfish();
        command.env("XDG_STATE_HOME", &folder.0).env("SAILFISH_BRIDGE__MODE", "auto").args(arguments);
        let mut child =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let line = log.find(|line| line.contains("waiting for")).expect("it says what it waits for");
        let wanted = format!("waiting for the database mysql://u@{nobody}/b");
        assert!(line.contains(&wanted) && !line.contains("hush"), "{line}");
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
        until("it ends", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}");
    }
}

/// With and without clients: code 0, and nothing in the log to look at.
#[test]
fn a_clean_stop_is_quiet() {
    for round in 0..8 {
        let folder = Folder::new("quiet");
        let mut command = sailfish();
        command.env("XDG_STATE_HOME", &folder.0).env("SAILFISH_BRIDGE__MODE", "auto");
        command.args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "2"]);
        command.args(["--set", "backend.listen=127.0.0.1:0"]).env("SAILFISH_TOKEN__SECRET", SECRET);
        let mut server = Server::spawn(&mut command);
        let mut clients: Vec<_> = (0..4 * (round % 2)).map(|at| server.login(100 + at)).collect();
        clients.iter_mut().for_each(|client| client.join(7));
        server.signal(Signal::TERM);
        assert_eq!(server.wait().code(), Some(0));
        until("the log says that it is over", || server.log().contains("stopped"));
        let log = server.log();
        assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "round {round}: {log}");
    }
}

#[test]
fn too_few_open_files_are_told_in_one_line() {
    let mut shell = std::process::Command::new("sh");
    shell.env("SAILFISH_TOKEN__SECRET", SECRET);
    shell.args(["-c", "ulimit -n 100; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sailfish")]);
    shell.args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "2"]);
    shell.args(["--set", "backend.listen=127.0.0.1:0"]);
    let output = output(&mut shell, "");
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.trim_end().lines().count()), (Some(1), 1), "{line}");
    assert!(line.contains("100 open files are too few") && line.contains("ulimit -Hn"), "{line}");
}

#[test]
fn a_second_server_does_not_share_the_port() {
    let server = Server::start(&[]);
    let mut second = sailfish();
    second.args(["up", "--admin", "127.0.0.1:0", "--listen", &server.clients.to_string()]);
    let output = output(&mut second, "");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && told.contains("in use"), "{told}");
}

#[test]
fn sigterm_tells_the_clients_and_finishes_what_is_under_way() {
    let mut server = Server::start(&[]);
    let mut idle = server.login(1);
    let mut receiver = server.login(2);
    let mut sender = server.login(3);
    sender.say(6001, 2, "m1", "before the end");
    let message = receiver.message();
    server.signal(Signal::TERM);
    idle.expect_farewell(NoticeCode::Draining);
    assert_eq!(server.get("/readyz").0, 503);
    // The receiver's connection is kept for its ack.
    receiver.ack(message.id);
    receiver.expect_farewell(NoticeCode::Draining);
    let status = server.wait();
    assert_eq!(status.code(), Some(0));
    until("the log says how it ended", || server.log().contains("stopped"));
    assert!(server.log().contains("drained"), "{}", server.log());
}

#[test]
fn a_drain_ends_at_its_deadline_and_a_second_signal_at_once() {
    for (deadline, signals, said) in
        [("drain.deadline_ms=100", 1, "drained"), ("drain.deadline_ms=600000", 2, "at once")]
    {
        let mut server = Server::start(&["--set", deadline, "--set", "engine.linger_ms=200"]);
        let mut receiver = server.login(2);
        let mut sender = server.login(3);
        sender.say(6001, 2, "m1", "never acked");
        receiver.message();
        for _ in 0..signals {
            server.signal(Signal::TERM);
            until("the signal is seen", || server.log().contains("draining"));
        }
        assert_eq!(server.wait().code(), Some(0));
        until("the log says why", || server.log().contains(said));
    }
}

#[test]
fn sighup_reloads_limits_and_refuses_a_bad_file() {
    let folder = Folder::new("reload");
    let file = folder.file("sailfish.toml", "");
    let server = Server::start(&["--config", &file]);
    let mut client = server.login(1);
    client.join(7);
    client.say(5555, 7, "m1", "routed");
    assert!(matches!(client.outcome_beside_messages("m1"), Outcome::Sequenced { .. }));

    std::fs::write(&file, "routes = []\n[limits]\nrooms_max = 0\n").unwrap();
    server.signal(Signal::HUP);
    until("the bad file is refused", || server.log().contains("limits.rooms_max = 0: want"));
    client.say(5555, 7, "m2", "still routed");
    assert!(matches!(client.outcome_beside_messages("m2"), Outcome::Sequenced { .. }));

    std::fs::write(&file, "routes = []\n").unwrap();
    server.signal(Signal::HUP);
    until("the good file is taken", || server.log().contains("reloaded"));
    client.say(5555, 7, "m3", "no route");
    assert!(matches!(client.outcome_beside_messages("m3"), Outcome::Failed(_)));
    assert!(!server.log().contains("before the next start"), "{}", server.log());

    std::fs::write(&file, "routes = []\n[backend]\ngifts_per_second = 7\n").unwrap();
    server.signal(Signal::HUP);
    until("what needs a start is told", || server.log().contains("before the next start"));
}
