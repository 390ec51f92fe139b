//! `--print-config`: every key with its value and its meaning.

use std::fmt::Write;

use toml::{Table, Value};

use super::keys::{KEYS, Key, SECTIONS};
use super::{Config, without_password};

/// The configuration as a TOML file with comments. It reads back as the same configuration, but for secrets,
/// which are not shown.
pub fn print(config: &Config) -> String {
    let mut shown = config.clone();
    shown.token.secret.clear();
    shown.cluster.secret.clear();
    shown.control.secret.clear();
    shown.bridge = shown.bridge.without_secrets();
    shown.directory = shown.directory.without_password();
    let backend = &mut shown.backend;
    backend.internal_secret.clear();
    backend.provider_secret.clear();
    backend.sms_secret.clear();
    backend.hook_secret.clear();
    let lists = backend.replicas.iter_mut().chain(&mut backend.redis_sentinels);
    for url in [&mut backend.database, &mut backend.redis].into_iter().chain(lists) {
        *url = without_password(url);
    }
    let table = Table::try_from(shown).expect("a configuration is plain TOML values");
    let mut out = String::from(
        "# Sailfish. Every key may also stand in the environment, as SAILFISH_SECTION__KEY, or in --set section.key=VALUE;\n\
         # flags go over the environment, the environment over this file.\n",
    );
    for key in KEYS.iter().filter(|key| !key.name.contains('.')) {
        out.push('\n');
        entry(&mut out, key, key.name, &table[key.name]);
    }
    for section in SECTIONS {
        out.push('\n');
        comment(&mut out, section.comment);
        let _ = writeln!(out, "[{}]", section.name);
        for key in KEYS {
            if let Some((of, name)) = key.name.split_once('.')
                && of == section.name
            {
                entry(&mut out, key, name, &table[of][name]);
            }
        }
    }
    out
}

fn entry(out: &mut String, key: &Key, name: &str, value: &Value) {
    comment(out, key.comment);
    let _ = match value {
        Value::Array(rows) if !rows.is_empty() => {
            let rows: String = rows.iter().map(|row| format!("  {row},\n")).collect();
            writeln!(out, "{name} = [\n{rows}]")
        }
        value => writeln!(out, "{name} = {value}"),
    };
}

fn comment(out: &mut String, text: &str) {
    for line in text.lines() {
        let _ = writeln!(out, "# {}", line.trim_start());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed() -> Config {
        let mut config = Config::default();
        config.node.listen = "0.0.0.0:1".parse().unwrap();
        config.limits.outbox_bytes_max = 1 << 30;
        config.token.secret_file = "/etc/sail\"fish/secret".into();
        config.log.filter = "info,sailfish=debug".into();
        config.routes = Vec::from(config.routes)[..2].to_vec().into();
        config
    }

    #[test]
    fn it_reads_back_as_the_same() {
        for config in [Config::default(), changed()] {
            assert_eq!(toml::from_str(&print(&config)), Ok(config));
        }
    }

    #[test]
    fn it_mentions_every_key() {
        let table: Table = print(&changed()).parse().unwrap();
        for key in KEYS {
            let value = match key.name.split_once('.') {
                Some((section, name)) => table.get(section).and_then(|section| section.get(name)),
                None => table.get(key.name),
            };
            assert!(value.is_some(), "{}", key.name);
        }
    }

    #[test]
    fn it_keeps_a_secret() {
        let mut config = Config::default();
        config.token.secret = "hush".into();
        config.bridge.secret = "hush".into();
        config.bridge.redis = "redis://:hush@d:1".into();
        config.directory.redis = "redis://me:hush@a:1,redis://:hush@b:2,redis://c:3/4".into();
        config.backend.database = "mysql://me:hush@a:1/b".into();
        config.backend.replicas = vec!["mysql://me:hush@a:2/b".into()];
        config.backend.redis = "redis://:hush@a:3".into();
        config.backend.redis_sentinels = vec!["redis://:hush@a:4".into()];
        config.backend.internal_secret = "hush".into();
        config.backend.provider_secret = "hush".into();
        for text in [print(&config), format!("{config:?}")] {
            assert!(!text.contains("hush"));
            assert!(text.contains("\"redis://me@a:1,redis://b:2,redis://c:3/4\""), "{text}");
        }
    }
}
