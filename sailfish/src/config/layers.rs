//! The layers a value can come from, put on top of each other: default, file, environment, flags.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use toml::{Table, Value};

use super::keys::{KEYS, SECTIONS};
use super::{Config, ConfigError, without_password};

/// The prefix of environment variables.
pub const ENV_PREFIX: &str = "SAILFISH_";
/// Variables with the prefix that are no keys: the path of the file, and the token of `sailfish chat`.
const ENV_OTHERS: [&str; 2] = ["CONFIG", "CHAT_TOKEN"];
/// Variables that containers get about a service end in these, or name one of its ports.
const ENV_SERVICES: [&str; 2] = ["_SERVICE_HOST", "_SERVICE_PORT"];
const ENV_PORT_PARTS: [&str; 6] =
    ["_TCP_ADDR", "_TCP_PORT", "_TCP_PROTO", "_UDP_ADDR", "_UDP_PORT", "_UDP_PROTO"];

/// The given values, by dotted key, each with its source; a later layer replaces the value of an earlier one.
#[derive(Default)]
pub struct Layers {
    given: BTreeMap<String, Given>,
    defaults: BTreeMap<String, Value>,
    warnings: Vec<String>,
}

struct Given {
    value: Value,
    /// The beginning of an error line.
    source: String,
}

impl Layers {
    /// No layer but the defaults.
    pub fn new() -> Self {
        let defaults = Table::try_from(Config::default()).expect("the defaults are plain TOML values");
        Self { given: BTreeMap::new(), defaults: flatten(defaults).collect(), warnings: Vec::new() }
    }

    /// The keys of a TOML file.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let source = path.display().to_string();
        let text =
            crate::read::read_to_string(path).map_err(|error| ConfigError(format!("{source}: {error}")))?;
        self.toml(&text, &source)?;
        let is_open = std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0);
        let secret =
            self.given.iter().find(|(key, given)| given.source == source && has_secret(key, &given.value));
        if let Some((key, _)) = secret.filter(|_| is_open) {
            self.warnings
                .push(format!("every user of this machine may read {key} in {source}; chmod 600 {source}"));
        }
        Ok(())
    }

    fn toml(&mut self, text: &str, source: &str) -> Result<(), ConfigError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
            ConfigError(format!("{source}:{line}: {}", error.message().replace('\n', " ")))
        })?;
        for (key, value) in flatten(table) {
            self.put(&key, value, source)?;
        }
        Ok(())
    }

    /// The environment: `SAILFISH_LIMITS__FRAME_BYTES_MAX` is `limits.frame_bytes_max`. A variable with the
    /// prefix that is no key is refused, as it would be in a file.
    pub fn env(&mut self, vars: impl Iterator<Item = (String, String)>) -> Result<(), ConfigError> {
        for (name, text) in vars {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            if ENV_OTHERS.contains(&rest) || is_of_a_service(rest, &text) {
                continue;
            }
            let key = rest.replace("__", ".").to_lowercase();
            if !key.contains('.') && !self.defaults.contains_key(&key) {
                let hint = match nearest_key(&key) {
                    Some(meant) => format!("is {} meant?", variable(meant)),
                    None => format!("want one like {}, with __ for the dot", variable("token.secret")),
                };
                return Err(ConfigError(format!("{name}: no key has this variable; {hint}")));
            }
            self.text(&key, &text, &name)?;
        }
        Ok(())
    }

    /// One `KEY=VALUE` of `--set`.
    pub fn set(&mut self, assignment: &str) -> Result<(), ConfigError> {
        let (key, text) = assignment.split_once('=').ok_or_else(|| {
            ConfigError(format!("--set {assignment}: want KEY=VALUE, like --set limits.frame_bytes_max=4096"))
        })?;
        self.text(key.trim(), text.trim(), "--set")
    }

    /// A value as text, from a flag or the environment.
    pub fn text(&mut self, key: &str, text: &str, source: &str) -> Result<(), ConfigError> {
        let bare = || Value::String(text.to_owned());
        let parsed = || {
            let table: Option<Table> = format!("value = {text}").parse().ok();
            table.and_then(|mut table| table.remove("value")).unwrap_or_else(bare)
        };
        let value = match self.defaults.get(key) {
            Some(Value::String(_)) => bare(),
            _ => parsed(),
        };
        if source.starts_with('-') && has_secret(key, &value) {
            let variable = variable(key);
            self.warnings
                .push(format!("{source} shows {key} to every user of this machine; use {variable} instead"));
        }
        self.put(key, value, source)
    }

    /// Warnings about secrets that others may read: a line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn put(&mut self, key: &str, value: Value, source: &str) -> Result<(), ConfigError> {
        let Some(default) = self.defaults.get(key) else {
            return Err(ConfigError(format!("{source}: {key}: {}", no_such_key(key))));
        };
        let wanted = match default {
            Value::String(_) => "a text",
            Value::Integer(_) | Value::Float(_) => "a whole number",
            Value::Boolean(_) => "true or false",
            Value::Array(_) if ["cluster.routers", "cluster.bridges"].contains(&key) => {
                "an array of addresses, like [\"10.0.0.1:5350\"]"
            }
            Value::Array(_) if key == "backend.replicas" => "an array of URLs, like [\"mysql://...\"]",
            Value::Array(_) if ["http.trusted_proxies", "node.proxy_from"].contains(&key) => {
                "an array of addresses or ranges, like [\"10.0.0.0/8\"]"
            }
            Value::Array(_) if key == "node.origins" => {
                "an array of texts, like [\"https://chat.example.com\"]"
            }
            Value::Array(_) if key == "node.certificates" => {
                "an array of tables, like [{ chain = \"im.pem\", key = \"im.key\" }]"
            }
            Value::Array(_) if key == "drain.alternatives" => "an array of texts, like [\"10.0.0.2:5346\"]",
            Value::Array(_) => {
                "an array of tables, like [{ biz_code = 5555, to = \"room\", class = \"lossy\" }]"
            }
            Value::Datetime(_) | Value::Table(_) => unreachable!("no key has such a default"),
        };
        if !default.same_type(&value) {
            return Err(ConfigError(format!("{source}: {key} = {value}: want {wanted}")));
        }
        self.given.insert(key.to_owned(), Given { value, source: source.to_owned() });
        Ok(())
    }

    /// Where the value of a key came from, unless it is the default.
    pub fn source(&self, key: &str) -> Option<&str> {
        self.given.get(key).map(|given| given.source.as_str())
    }

    /// The whole configuration, checked.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let mut root = Table::new();
        for (key, given) in &self.given {
            match key.split_once('.') {
                Some((section, name)) => {
                    let section = root.entry(section).or_insert_with(|| Value::Table(Table::new()));
                    let section = section.as_table_mut().expect("a section is no key");
                    section.insert(name.to_owned(), given.value.clone());
                }
                None => {
                    root.insert(key.clone(), given.value.clone());
                }
            }
        }
        let mut config: Config = serde_path_to_error::deserialize(Value::Table(root)).map_err(|error| {
            let path = error.path().to_string();
            self.refusal(&path, error.inner().message())
        })?;
        config.trust().and_then(|()| config.validate()).map_err(|line| {
            let key = line.split([' ', ':']).next().unwrap_or_default();
            ConfigError(match self.source(key) {
                Some(source) => format!("{source}: {line}"),
                None => line,
            })
        })?;
        Ok(config)
    }

    /// The type's message about a value that has the right TOML type, but is not possible.
    fn refusal(&self, path: &str, message: &str) -> ConfigError {
        let key = path.split('[').next().unwrap_or(path);
        let source = self.source(key).unwrap_or_default();
        let value = self.given.get(path).map_or(String::new(), |given| format!(" = {}", given.value));
        let integer_max = [("u8", u64::from(u8::MAX)), ("u16", u16::MAX.into()), ("u32", u32::MAX.into())]
            .into_iter()
            .chain([("u64", i64::MAX as u64)])
            .find(|(name, _)| message.ends_with(&format!("expected {name}")))
            .map(|(_, max)| format!("want a whole number from 0 to {max}"));
        let wanted = match integer_max {
            Some(wanted) => wanted,
            None if message.contains("socket address") => {
                "want an address and a port, like 127.0.0.1:5346".into()
            }
            None => message.replace('\n', " "),
        };
        ConfigError(format!("{source}: {path}{value}: {wanted}"))
    }
}

/// The leaves of a configuration by dotted key. Arrays are leaves, and so is an empty table: no key in it
/// could be reported.
fn flatten(root: Table) -> impl Iterator<Item = (String, Value)> {
    root.into_iter().flat_map(|(section, value)| match value {
        Value::Table(keys) if !keys.is_empty() || is_section(&section) => {
            keys.into_iter().map(|(key, value)| (format!("{section}.{key}"), value)).collect::<Vec<_>>()
        }
        leaf => vec![(section, leaf)],
    })
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// Whether a variable is one that Kubernetes and Docker set for a service whose name begins like ours.
fn is_of_a_service(rest: &str, text: &str) -> bool {
    let rest = format!("_{rest}");
    let is_port = format!("{rest}_").contains("_PORT_");
    let is_url = text.starts_with("tcp://") || text.starts_with("udp://");
    let is_part = || ENV_PORT_PARTS.iter().any(|end| rest.ends_with(end));
    let is_service = ENV_SERVICES.iter().any(|end| rest.ends_with(end)) || rest.contains("_SERVICE_PORT_");
    !rest.contains("__") && (is_service || is_port && (is_url || is_part()))
}

/// The key that a name without a section most likely means, if it resembles any: its dot may have got lost.
fn nearest_key(name: &str) -> Option<&'static str> {
    let letters = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<Vec<_>>();
    let wanted = letters(name);
    let far = KEYS.iter().map(|key| (distance(&wanted, &letters(key.name)), key.name));
    far.min_by_key(|(far, _)| *far).filter(|(far, _)| 2 * far <= wanted.len()).map(|(_, name)| name)
}

/// How many letters must be inserted, deleted or replaced (Levenshtein).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Whether a value is a secret, or a URL with a password.
fn has_secret(key: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => key.ends_with("secret") && !text.is_empty() || without_password(text) != *text,
        Value::Array(values) => values.iter().any(|value| has_secret(key, value)),
        _ => false,
    }
}

fn is_section(name: &str) -> bool {
    SECTIONS.iter().any(|section| section.name == name)
}

fn no_such_key(key: &str) -> String {
    if is_section(key) {
        return format!("it is a section; want keys below it, like {}", siblings(key).join(", "));
    }
    match key.split_once('.') {
        Some((section, _)) if is_section(section) => {
            format!("no such key; want one of {}", siblings(section).join(", "))
        }
        _ => {
            let sections: Vec<_> = SECTIONS.iter().map(|section| section.name).collect();
            format!("no such key; want routes or a key below {}", sections.join(", "))
        }
    }
}

fn siblings(section: &str) -> Vec<&'static str> {
    let below = |name: &'static str| name.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
    KEYS.iter().map(|key| key.name).filter(|name| below(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let mut layers = Layers::new();
        match layers.toml(text, "sailfish.toml") {
            Ok(()) => layers.config().unwrap_err().0,
            Err(error) => error.0,
        }
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(Layers::new().config(), Ok(Config::default()));
    }

    #[test]
    fn a_filter_is_levels_and_targets() {
        for filter in ["INFO", "off", "info,sailfish=debug", "warn, router::owner", "hyper=debug", ""] {
            let mut layers = Layers::new();
            layers.set(&format!("log.filter={filter}")).unwrap();
            assert!(layers.config().is_ok(), "{filter}");
        }
    }

    #[test]
    fn every_key_has_a_comment_and_every_comment_a_key() {
        let documented: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        let mut sorted = documented.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, Layers::new().defaults.keys().collect::<Vec<_>>());
        for key in documented {
            assert!(!key.contains('.') || is_section(key.split('.').next().unwrap()), "{key}");
        }
    }

    #[test]
    fn flags_go_over_the_environment_over_the_file() {
        let mut layers = Layers::new();
        layers.toml("limits = { frame_bytes_max = 1000, rooms_max = 1, frames_burst = 1 }", "f").unwrap();
        let vars = [
            ("SAILFISH_LIMITS__ROOMS_MAX", "2"),
            ("SAILFISH_LIMITS__FRAMES_BURST", "2"),
            ("SAILFISH_DRAIN__ALTERNATIVES", "[\"a:1\", \"b:2\"]"),
            ("SAILFISH_CONFIG", "x"),
        ];
        layers.env(vars.map(|(name, value)| (name.into(), value.into())).into_iter()).unwrap();
        layers.set("limits.frames_burst=3").unwrap();
        let Config { limits, drain, .. } = layers.config().unwrap();
        assert_eq!(drain.alternatives, ["a:1", "b:2"]);
        assert_eq!((limits.frame_bytes_max, limits.rooms_max, limits.frames_burst), (1000, 2, 3));
    }

    #[test]
    fn secrets_that_others_see_are_warned_of() {
        let mut layers = Layers::new();
        layers
            .env([("SAILFISH_TOKEN__SECRET".to_owned(), "sixteen bytes at least".to_owned())].into_iter())
            .unwrap();
        for plain in ["token.secret_file=/etc/secret", "backend.redis=redis://host:1/2", "control.secret="] {
            layers.set(plain).unwrap();
        }
        assert_eq!(layers.warnings(), [""; 0]);
        layers.set("control.secret=sixteen bytes at least").unwrap();
        layers.text("backend.database", "mysql://u:p@h/d", "--database").unwrap();
        layers.text("backend.replicas", "[\"mysql://h/d\", \"mysql://u:p@h/d\"]", "--replicas").unwrap();
        let [control, database, replicas] = layers.warnings() else { panic!("{:?}", layers.warnings()) };
        assert!(
            control.starts_with("--set shows control.secret ")
                && control.contains("SAILFISH_CONTROL__SECRET")
        );
        assert!(database.starts_with("--database shows backend.database ") && !database.contains(":p@"));
        assert!(replicas.starts_with("--replicas shows backend.replicas "), "{replicas}");
    }

    #[test]
    fn short_secrets_are_refused() {
        for key in [
            "token.secret",
            "cluster.secret",
            "control.secret",
            "bridge.secret",
            "backend.internal_secret",
            "backend.provider_secret",
            "backend.sms_secret",
            "backend.hook_secret",
        ] {
            let set = |value: &str| {
                let mut layers = Layers::new();
                layers.set(&format!("{key}={value}")).unwrap();
                layers.config().map(|_| ())
            };
            assert_eq!(
                set("15 bytes are no").unwrap_err().0,
                format!("--set: {key}: want at least 16 bytes")
            );
            assert_eq!(set("16 bytes will do"), Ok(()));
        }
        let secrets = KEYS.iter().filter(|key| key.name.ends_with("secret")).count();
        assert_eq!(secrets, 8, "a new one needs the minimum too");
    }

    #[test]
    fn an_error_names_source_key_and_wish() {
        assert_eq!(
            refused("[limits]\nframe_bytes_max = -1"),
            "sailfish.toml: limits.frame_bytes_max = -1: want a whole number from 0 to 4294967295"
        );
        assert_eq!(
            refused("[delivery]\ntries = 9"),
            "sailfish.toml: delivery.tries = 9: want a number from 1 to 8"
        );
        assert_eq!(
            refused("[heartbeat]\nperiod = 9"),
            "sailfish.toml: heartbeat.period: no such key; want one of heartbeat.period_ms, heartbeat.grace_ms"
        );
        assert_eq!(
            refused("[node]\nlisten = \"5346\""),
            "sailfish.toml: node.listen = \"5346\": want an address and a port, like 127.0.0.1:5346"
        );
        assert_eq!(refused("[node]\npin = 1"), "sailfish.toml: node.pin = 1: want true or false");
    }

    #[test]
    fn other_bad_files_are_refused_in_one_line() {
        for (text, part) in [
            ("[limits", "sailfish.toml:1: "),
            ("\n\n[node]\nx = = 2", "sailfish.toml:4: "),
            ("[nonsense]", "nonsense: no such key"),
            ("limits = 3", "limits: it is a section"),
            (
                "routes = [{ biz_code = 1, to = \"moon\", class = \"lossy\" }]",
                "routes[0].to: unknown variant `moon`",
            ),
            ("[drain]\nalternatives = \"a:1\"", "drain.alternatives = \"a:1\": want an array of texts"),
            ("[drain]\nalternatives = [\"a\"]", "sailfish.toml: drain.alternatives: \"a\": want a host and"),
            (
                "[drain]\nalternatives = [1]",
                "drain.alternatives[0]: invalid type: integer `1`, expected a string",
            ),
            ("[node]\nengine = \"tokio\"", "node.engine = \"tokio\": want one of auto, uring"),
            ("[log]\nfilter = \"warning\"", "log.filter = \"warning\": \"warning\" is no level and no part"),
            ("[log]\nfilter = \"info, loud\"", "\"loud\" is no level"),
            ("[log]\nfilter = \"sailfish=loud\"", "log.filter = \"sailfish=loud\": want a level or"),
            ("[log]\nformat = \"xml\"", "log.format = \"xml\": want text or json"),
            ("[token]\ned25519_public_key = \"abc\"", "token.ed25519_public_key: want the 64 hexadecimal"),
            ("[directory]\nredis = \"http://a:1\"", "directory.redis: want redis://HOST:PORT"),
            (
                "[directory]\nredis = \"redis://a/1,redis://b\"",
                "directory.redis: a Cluster has database 0 only",
            ),
            ("[directory]\nprefix = \"{a}\"", "directory.prefix = \"{a}\": want 1 to 64 letters"),
            ("[directory]\nlease_ms = 2999", "directory.lease_ms = 2999: want a number from 3000 to 600000"),
            ("[bridge]\nmode = \"kafka\"", "bridge.mode = \"kafka\": want auto, off, http or redis"),
            ("[cluster]\ntls = \"maybe\"", "cluster.tls = \"maybe\": want off, optional or required"),
            ("[bridge]\nmode = \"http\"", "bridge.url: want http://HOST:PORT"),
            ("[bridge]\nmode = \"http\"\nurl = \"http://a?b\"", "bridge.url: want http://HOST:PORT"),
            ("[bridge]\nmode = \"redis\"", "bridge.redis: want redis://HOST:PORT"),
            ("[bridge]\nmode = \"redis\"\nredis = \"redis://a:b\"", "bridge.redis: want redis://HOST:PORT"),
            ("[bridge]\nretry_max_ms = 99", "bridge.retry_max_ms = 99: want a number from 100"),
            ("[backend]\ndatabase = \"postgres://a\"", "backend.database: want sqlite:FILE or mysql://"),
            ("[backend]\nredis_sentinels = [\"a:1\"]", "backend.redis_sentinels: want redis://HOST:26379"),
            ("[backend]\nredis_sentinels = [\"redis://a:1\"]", "backend.redis: want the name that sentinels"),
            (
                "[bridge]\nmode = \"redis\"\nredis = \"redis://a\"\n[backend]\nredis = \"redis://a\"\nredis_sentinels = [\"redis://b\"]",
                "backend.redis_sentinels: with bridge.mode = \"redis\" want one server",
            ),
            ("[backend]\ngift_batch_max = 0", "backend.gift_batch_max = 0: want a number from 1"),
            ("[cluster]\nbridges = \"a\"", "cluster.bridges = \"a\": want an array of addresses"),
            ("[engine]\nrecv_buffers = 1000", "engine.recv_buffers = 1000: want a power of two"),
        ] {
            let line = refused(text);
            assert!(line.contains(part) && !line.contains('\n'), "{text:?} gave {line:?}");
        }
    }

    #[test]
    fn a_variable_that_is_no_key_is_refused_with_the_one_that_is_meant() {
        let env = |name: &str, text: &str| Layers::new().env([(name.into(), text.into())].into_iter());
        for (name, meant) in [
            ("SAILFISH_TOKEN_SECRET", "SAILFISH_TOKEN__SECRET"),
            ("SAILFISH_NODE_LISTEN", "SAILFISH_NODE__LISTEN"),
            ("SAILFISH_ROUTE", "SAILFISH_ROUTES"),
            ("SAILFISH_LIMIT_ROOM_MAX", "SAILFISH_LIMITS__ROOMS_MAX"),
        ] {
            let line = env(name, "x").unwrap_err().0;
            assert_eq!(line, format!("{name}: no key has this variable; is {meant} meant?"));
        }
        for name in ["SAILFISH_FOO", "SAILFISH_"] {
            assert!(
                env(name, "1")
                    .unwrap_err()
                    .0
                    .ends_with("; want one like SAILFISH_TOKEN__SECRET, with __ for the dot")
            );
        }
        for (name, text) in [
            ("SAILFISH_CONFIG", "x"),
            ("SAILFISH_CHAT_TOKEN", "x"),
            ("SAILFISH_SERVICE_HOST", "10.0.0.1"),
            ("SAILFISH_ROUTER_SERVICE_PORT_LINKS", "5350"),
            ("SAILFISH_ROUTER_PORT", "tcp://10.0.0.1:5350"),
            ("SAILFISH_PORT_5350_TCP_ADDR", "10.0.0.1"),
            ("SAILOR", "x"),
        ] {
            assert_eq!(env(name, text), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_bad_variable_or_assignment_is_refused_by_name() {
        let mut layers = Layers::new();
        let var = ("SAILFISH_LIMITS__FRAME_BYTES".to_owned(), "1".to_owned());
        let line = layers.env([var].into_iter()).unwrap_err().0;
        assert!(line.starts_with("SAILFISH_LIMITS__FRAME_BYTES: limits.frame_bytes: no such key"), "{line}");
        assert!(layers.set("limits.rooms_max").unwrap_err().0.contains("want KEY=VALUE"));
        assert_eq!(
            layers.set("limits.rooms_max=many").unwrap_err().0,
            "--set: limits.rooms_max = \"many\": want a whole number"
        );
    }
}
