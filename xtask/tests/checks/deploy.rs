//! What deploy/ gives to the programs that run there: secrets, rights, ports.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;
use testbed::Folder;

use crate::root;

/// Exposure by `systemd-analyze security`, times ten.
const EXPOSURE_MAX: &str = "30";

fn read(name: &str) -> String {
    fs::read_to_string(root().join("deploy").join(name))
        .unwrap_or_else(|error| panic!("deploy/{name}: {error}"))
}

#[test]
fn the_unit_has_no_right_that_it_does_not_need() {
    let unit = read("sailfish@.service");
    for line in [
        "EnvironmentFile=/etc/sailfish/%i.env",
        "DynamicUser=yes",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "StateDirectoryMode=0700",
        "SystemCallFilter=@system-service",
    ] {
        assert!(unit.lines().any(|own| own == line), "deploy/sailfish@.service: no {line}");
    }
    let mut analysis = Command::new("systemd-analyze");
    analysis.args(["security", "--offline=true", "--no-pager", &format!("--threshold={EXPOSURE_MAX}")]);
    // Where systemd is not installed, the lines above have to do.
    if let Ok(done) = analysis.arg(root().join("deploy/sailfish@.service")).output() {
        let report = String::from_utf8_lossy(&done.stdout);
        let level = report.lines().find(|line| line.contains("exposure level")).unwrap_or(&report);
        assert!(done.status.success(), "want at most {EXPOSURE_MAX} tenths: {level}");
    }
}

/// The services of compose.yaml, each with its own lines and those that it takes over.
fn services() -> BTreeMap<String, String> {
    let text = read("compose.yaml");
    let mut blocks: BTreeMap<String, String> = BTreeMap::new();
    let mut anchors: BTreeMap<String, String> = BTreeMap::new();
    let mut names = Vec::new();
    let (mut name, mut is_in_services) = (String::new(), false);
    let counts = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    for line in text.lines().filter(counts) {
        let depth = line.len() - line.trim_start().len();
        if depth == 0 {
            is_in_services = line == "services:";
        }
        if depth == 0 || is_in_services && depth == 2 {
            name = line.trim().split(':').next().unwrap_or_default().to_owned();
            if depth == 2 {
                names.push(name.clone());
            }
            if let Some((_, anchor)) = line.split_once('&') {
                anchors.insert(anchor.trim().to_owned(), name.clone());
            }
        }
        blocks.entry(name.clone()).or_default().push_str(&format!("{line}\n"));
    }
    let whole = |name: &str| {
        let mut text = blocks[name].clone();
        while let Some((before, after)) = text.clone().split_once("<<: *") {
            let (anchor, rest) = after.split_once('\n').expect("a line ends");
            text = format!("{before}{}{rest}", blocks[&anchors[anchor]]);
        }
        text
    };
    names.iter().map(|name| (name.clone(), whole(name))).collect()
}

#[test]
fn containers_are_confined() {
    let services = services();
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    let all = [
        "backend1", "backend2", "bridge", "gateway1", "gateway2", "primary", "redis", "replica", "router1",
        "router2",
    ];
    assert_eq!(names, all);
    for (name, text) in &services {
        for wanted in ["cap_drop: [ALL]", "no-new-privileges:true", "user: \"", "env_file: env/"] {
            assert!(text.contains(wanted), "{name}: no {wanted}");
        }
        assert!(!text.contains("unconfined") && !text.contains("privileged: true"), "{name}");
        let has_profile = text.contains("seccomp=./seccomp.json");
        let is_node = ["gateway", "router", "bridge"].iter().any(|role| name.starts_with(role));
        assert_eq!(has_profile, is_node, "{name}: io_uring is for nodes");
        // A command can be read by every user of the machine.
        assert!(!text.contains("${"), "{name}: a secret on the command line");
    }
    for (name, text) in &services {
        let ports: Vec<&str> = text.lines().filter(|line| line.trim().starts_with("ports:")).collect();
        let is_local = ports.iter().all(|line| line.contains("\"127.0.0.1:"));
        assert!(is_local || name.starts_with("gateway"), "{name}: clients come to gateways alone");
        assert_eq!(ports.is_empty(), !name.starts_with("gateway") && !name.starts_with("backend"), "{name}");
    }
    assert!(services["redis"].contains("requirepass"), "redis: no password");
}

/// Each stage of the Dockerfile: its base, its name if it has one, and its other lines.
fn stages() -> Vec<(String, String, Vec<String>)> {
    let mut stages: Vec<(String, String, Vec<String>)> = Vec::new();
    let text = read("Dockerfile");
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("FROM ") {
            Some(from) => {
                let (base, name) = from.split_once(" AS ").unwrap_or((from, ""));
                stages.push((base.to_owned(), name.to_owned(), Vec::new()));
            }
            None => stages.last_mut().expect("a stage").2.push(line.to_owned()),
        }
    }
    stages
}

#[test]
fn images_have_the_released_binary_and_no_right() {
    let stages = stages();
    let [build, bare, with_shell] = &stages[..] else { panic!("{stages:?}") };
    assert_eq!((build.1.as_str(), bare.0.as_str(), bare.1.as_str()), ("build", "scratch", "bare"));
    assert!(with_shell.1.is_empty(), "the chart's image is what is built without a name");
    assert!(
        build.2.iter().any(|line| line.contains("cargo xtask release")),
        "not the binary that is released"
    );
    for (_, name, lines) in [bare, with_shell] {
        let of = |word: &str| lines.iter().filter_map(|line| line.strip_prefix(word)).collect::<Vec<_>>();
        assert_eq!(of("USER "), ["10001:10001"], "{name}: not an ordinary user");
        assert_eq!(of("ENTRYPOINT "), [r#"["/usr/local/bin/sailfish"]"#], "{name}");
        // What is not copied from the build is not there.
        assert_eq!(of("RUN "), [""; 0], "{name}: more than the binary");
        let copies = of("COPY ");
        assert!(copies.iter().all(|copy| copy.starts_with("--from=build ")), "{name}: {copies:?}");
        assert!(copies.iter().any(|copy| copy.ends_with("/pack/sailfish /usr/local/bin/sailfish")), "{name}");
        assert!(copies.iter().any(|copy| copy.ends_with("/etc/ssl/certs/ca-certificates.crt")), "{name}");
    }
    // The image of compose.yaml has no other program for its health checks.
    for (name, text) in services() {
        let is_ours = text.contains("image: sailfish");
        assert!(!is_ours || text.contains("target: bare"), "{name}");
        let check = text.lines().find(|line| line.trim().starts_with("test: [")).unwrap_or_default();
        let is_own = check.contains(r#"["CMD", "/usr/local/bin/sailfish", "ctl", "ready", "#);
        assert!(!is_ours || is_own, "{name}: {check}");
    }
}

#[test]
fn the_profile_adds_io_uring_and_no_way_out() {
    let profile: Value = serde_json::from_str(&read("seccomp.json")).expect("seccomp.json is JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = profile["syscalls"].as_array().expect("a list of rules");
    let is_free = |rule: &&Value| rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].is_null();
    let free: Vec<&str> = rules
        .iter()
        .filter(is_free)
        .flat_map(|rule| rule["names"].as_array().expect("a list of names"))
        .map(|name| name.as_str().expect("a name"))
        .collect();
    for wanted in
        ["io_uring_setup", "io_uring_enter", "io_uring_register", "execve", "futex", "sched_setaffinity"]
    {
        assert!(free.contains(&wanted), "{wanted}");
    }
    for banned in [
        "clone",
        "clone3",
        "unshare",
        "setns",
        "mount",
        "bpf",
        "ptrace",
        "keyctl",
        "perf_event_open",
        "setuid",
    ] {
        assert!(!free.contains(&banned), "{banned}");
    }
}

#[test]
fn each_role_gets_its_own_secrets_and_no_others() {
    let folder = Folder::new("secrets").keep();
    let make =
        || Command::new("sh").arg(root().join("deploy/make-secrets")).arg(&folder).output().expect("sh runs");
    assert!(make().status.success());
    let mut given = BTreeMap::new();
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        let text = fs::read_to_string(&path).expect("a text");
        let role = path.file_stem().expect("a name").to_string_lossy().into_owned();
        given.insert(role, text);
    }
    let keys = |role: &str| -> Vec<&str> {
        given[role].lines().map(|line| line.split_once('=').expect("NAME=VALUE").0).collect()
    };
    assert_eq!(keys("router"), ["SAILFISH_CLUSTER__SECRET", "SAILFISH_CONTROL__SECRET"]);
    assert_eq!(
        keys("gateway"),
        ["SAILFISH_TOKEN__SECRET", "SAILFISH_CLUSTER__SECRET", "SAILFISH_CONTROL__SECRET"]
    );
    assert_eq!(
        keys("bridge"),
        ["SAILFISH_CLUSTER__SECRET", "SAILFISH_CONTROL__SECRET", "SAILFISH_BRIDGE__SECRET"]
    );
    assert!(keys("backend").contains(&"SAILFISH_BACKEND__DATABASE"));
    assert!(!keys("backend").contains(&"SAILFISH_CLUSTER__SECRET"));
    assert_eq!(keys("redis"), ["REDIS_PASSWORD"]);
    assert_eq!(given.len(), 6, "{:?}", given.keys());
    let value = |role: &str, key: &str| {
        let line = given[role].lines().find(|line| line.starts_with(&format!("{key}=")));
        line.unwrap_or_else(|| panic!("{role}: no {key}")).split_once('=').expect("NAME=VALUE").1.to_owned()
    };
    assert_eq!(value("gateway", "SAILFISH_TOKEN__SECRET"), value("backend", "SAILFISH_TOKEN__SECRET"));
    assert_ne!(value("gateway", "SAILFISH_TOKEN__SECRET"), value("gateway", "SAILFISH_CLUSTER__SECRET"));
    assert!(value("backend", "SAILFISH_BACKEND__REDIS").contains(&value("redis", "REDIS_PASSWORD")));
    assert_eq!(value("redis", "REDIS_PASSWORD").len(), 64);
    assert!(!make().status.success(), "secrets that are there are not changed");
}

/// Each role of the chart has its own secrets, no rights, probes, and time to drain.
#[test]
fn pods_of_the_chart_are_confined() {
    let common = read("helm/templates/_helpers.tpl");
    for wanted in [
        "automountServiceAccountToken: false",
        "enableServiceLinks: false",
        "runAsNonRoot: true",
        "seccompProfile:",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "capabilities: { drop: [ALL] }",
        "secretRef: { name: {{ index .root.Values.secrets .role }} }",
        "preStop:",
        "path: /healthz",
        "path: /readyz",
        "kind: PodDisruptionBudget",
    ] {
        assert!(common.contains(wanted), "deploy/helm: no `{wanted}`");
    }
    let values = read("helm/values.yaml");
    for role in ["router", "bridge", "gateway", "backend"] {
        let text = read(&format!("helm/templates/{role}.yaml"));
        for part in ["pod", "container", "disruption", "settings"] {
            assert!(text.contains(&format!("include \"sailfish.{part}\"")), "{role}.yaml: no {part}");
        }
        assert!(values.contains(&format!("  {role}: sailfish-{role}\n")), "values.yaml: no secret of {role}");
    }
    // Helm is not among the tools that `ci` installs; whoever changes the chart has it.
    let mut helm = Command::new("helm");
    if let Ok(done) = helm.args(["lint", "--strict"]).arg(root().join("deploy/helm")).output() {
        let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
    }
}

/// The names of metrics in a text, without what a histogram adds to its own.
fn metrics(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("sailfish_") || word.starts_with("process_"))
        .map(|word| {
            ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word)
        })
}

#[test]
fn dashboards_and_alerts_ask_for_metrics_that_are_there() {
    let page = fs::read_to_string(root().join("docs/OPERATIONS.md")).expect("the page is there");
    let documented: Vec<&str> = metrics(&page).collect();
    let dashboard = read("grafana/sailfish.json");
    serde_json::from_str::<Value>(&dashboard).expect("a dashboard is JSON");
    let alerts = read("prometheus/alerts.yml");
    for (file, text) in [("grafana/sailfish.json", &dashboard), ("prometheus/alerts.yml", &alerts)] {
        assert!(metrics(text).count() > 20, "deploy/{file}: no metrics");
        for metric in metrics(text) {
            assert!(documented.contains(&metric), "deploy/{file}: {metric} is not in docs/OPERATIONS.md");
        }
    }
}

/// Each rule of a kind that is tested fires when it should and is silent when it should be.
#[test]
fn alerts_fire_and_stay_silent() {
    let mut promtool = Command::new("promtool");
    promtool.args(["test", "rules", "alerts_test.yml"]).current_dir(root().join("deploy/prometheus"));
    // Prometheus is not among the tools that `ci` installs; whoever changes a rule has it.
    if let Ok(done) = promtool.output() {
        let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
    }
}
