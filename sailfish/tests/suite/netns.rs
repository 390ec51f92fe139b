//! Nodes on hosts of their own, as network namespaces, with links between them that are cut and healed.
//!
//! Needs `ip` and the right to make namespaces; without, it says so and is skipped.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::common::cluster::CLUSTER_SECRET;
use crate::common::{SECRET, output, until};

/// Hosts on one bridge. Gone when dropped, with all that runs on them.
struct Net {
    prefix: String,
    hosts: Vec<&'static str>,
    children: Vec<Child>,
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim()))
}

impl Net {
    /// Names are of this process alone.
    fn new(hosts: &[&'static str]) -> Result<Self, String> {
        let prefix = format!("sf{}", std::process::id());
        let mut net = Self { prefix, hosts: Vec::new(), children: Vec::new() };
        let switch = net.name("sw");
        ip(&["netns", "add", &switch])?;
        net.hosts.push("sw");
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for host in hosts {
            let name = net.name(host);
            ip(&["netns", "add", &name])?;
            net.hosts.push(host);
            ip(&[
                "-n", &switch, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ])?;
            ip(&["-n", &switch, "link", "set", host, "master", "br0", "up"])?;
            ip(&["-n", &name, "address", "add", &format!("{}/24", net.address(host)), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(net)
    }

    fn name(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    fn address(&self, host: &str) -> String {
        let number = self.hosts.iter().position(|known| *known == host).unwrap();
        format!("10.77.0.{}", 10 + number)
    }

    /// The binary on a host.
    fn sailfish(&self, host: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host), env!("CARGO_BIN_EXE_sailfish")]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SAILFISH_") {
                command.env_remove(name);
            }
        }
        command.env("SAILFISH_TOKEN__SECRET", SECRET).env("SAILFISH_CLUSTER__SECRET", CLUSTER_SECRET);
        command.env("SAILFISH_LINK__LEASE_MS", "1000").env("SAILFISH_LINK__PING_MS", "100");
        command.env("SAILFISH_ROUTER__SETTLE_MS", "1000").env("SAILFISH_NODE__PIN", "false");
        command
    }

    fn start(&mut self, host: &str, role: &str, id: u8, more: &[&str]) {
        let port = if role == "router" { 5350 } else { 5346 };
        let mut command = self.sailfish(host);
        command.args([role, "--shards", "2", "--id", &id.to_string()]);
        command.args(["--listen", &format!("{}:{port}", self.address(host))]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.children.push(command.spawn().unwrap());
    }

    /// How many router shards a gateway goes by, as an operator is told.
    fn owners(&self, host: &str) -> usize {
        owners_in(&output(self.sailfish(host).args(["ctl", "nodes", "--json"]), "").stdout)
    }

    /// What a shell runs to cut `from` off `to`, or to undo it: `from` sends nothing there any more.
    fn one_way(&self, cut: bool, from: &str, to: &str) -> String {
        let what = if cut { "add" } else { "del" };
        format!("ip -n {} route {what} blackhole {}/32", self.name(from), self.address(to))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill(); // `ip netns exec` has become the node; it may have ended
            let _ = child.wait();
        }
        for host in &self.hosts {
            let _ = ip(&["netns", "del", &self.name(host)]); // nothing better can be done
        }
    }
}

/// How many router shards own users in the answer of `ctl nodes --json`; 0 when it is none.
fn owners_in(answer: &[u8]) -> usize {
    let Ok(nodes) = serde_json::from_slice::<Value>(answer) else { return 0 };
    let links = nodes["routers"].as_array().into_iter().flatten();
    links.filter(|link| link["owner"] == true).count()
}

/// Chats from a host of its own over both gateways, while `gateway-1` and `router-1` lose sight of each other
/// for a while.
fn chat_during(net: &Net, cut: &[String], heal: &[String]) -> Value {
    let report = std::env::temp_dir().join(format!("{}.json", net.prefix));
    let targets = format!("{}:5346,{}:5346", net.address("g1"), net.address("g2"));
    let mut command = net.sailfish("c");
    command.args(["load", "chat", "--target", &targets, "--connections", "100", "--rate", "500"]);
    command.args(["--seconds", "8", "--repeat", "3", "--json"]).arg(&report);
    // What the gateway that nothing was cut off from goes by meanwhile.
    let meanwhile = std::env::temp_dir().join(format!("{}-nodes.json", net.prefix));
    let ask = format!(
        "ip netns exec {} {} ctl nodes --json > {}",
        net.name("g2"),
        env!("CARGO_BIN_EXE_sailfish"),
        meanwhile.display()
    );
    for (second, commands) in [("2", cut), ("4.5", &[ask]), ("5", heal)] {
        command.args(["--chaos", &format!("{second}:{}", commands.join(" && "))]);
    }
    let done = output(&mut command, "");
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{text}");
    let json = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let owners = owners_in(&std::fs::read(&meanwhile).unwrap());
    assert_eq!(owners, 2, "all went by the other router alone");
    let _ = (std::fs::remove_file(report), std::fs::remove_file(meanwhile));
    json
}

#[test]
fn a_cut_link_costs_nothing_but_time() {
    let mut net = match Net::new(&["r1", "r2", "g1", "g2", "c"]) {
        Ok(net) => net,
        Err(why) => {
            eprintln!("SKIPPED a_cut_link_costs_nothing_but_time: no network namespaces here: {why}");
            return;
        }
    };
    net.start("r1", "router", 1, &[]);
    net.start("r2", "router", 2, &[]);
    let routers = format!("{}:5350,{}:5350", net.address("r1"), net.address("r2"));
    net.start("g1", "gateway", 33, &["--routers", &routers]);
    net.start("g2", "gateway", 34, &["--routers", &routers]);
    let all_own = |net: &Net| ["g1", "g2"].iter().all(|host| net.owners(host) == 4);
    until("all routers own", || all_own(&net));
    let both_cut = [net.one_way(true, "g1", "r1"), net.one_way(true, "r1", "g1")];
    let both_healed = [net.one_way(false, "g1", "r1"), net.one_way(false, "r1", "g1")];
    let one_cut = [net.one_way(true, "r1", "g1")];
    let one_healed = [net.one_way(false, "r1", "g1")];
    for (cut, heal) in [(&both_cut[..], &both_healed[..]), (&one_cut[..], &one_healed[..])] {
        let report = chat_during(&net, cut, heal);
        let count = |key: &str| report[key].as_u64().unwrap();
        assert_eq!((count("lost"), count("duplicated"), count("out_of_order")), (0, 0, 0), "{report}");
        assert_eq!((count("unanswered"), count("reconnects")), (0, 0), "{report}");
        assert_eq!(count("accepted") + count("handed_over"), count("sent"), "{report}");
        assert!(count("accepted") * 10 > count("sent") * 9, "{report}");
        until("all routers own again", || all_own(&net));
    }
}
