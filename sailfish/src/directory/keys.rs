//! The keys, their values, and the commands on them. OPERATIONS.md draws the layout.

use redis::{Cmd, Script, cmd};
use shard::ShardId;
use wire::{AppId, DeviceClass, UserId};

use super::link::Command;
use super::{Binding, NodeInfo, Record};

/// Sets or, with an empty value, removes a device's binding, unless a newer login has one. Stamps are
/// compared as texts, since a number of Lua holds only 53 bits of them.
const WRITE: &str = "\
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then
  local login = string.match(held, '[^.]*$')
  if #login > #ARGV[2] or (#login == #ARGV[2] and login > ARGV[2]) then return 0 end
end
if ARGV[3] == '' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1";

/// Removes a lease unless another process has taken the node's id over.
const GIVE_BACK: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Makes commands.
pub struct Keys {
    prefix: String,
    write: Script,
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), write: Script::new(WRITE) }
    }

    /// The write of a bind or unbind; with the script's text if the server does not know its hash.
    pub fn write(&self, record: &Record, by_text: bool) -> Command {
        let (app, user, device, login, value) = match record {
            Record::Bind(binding) => {
                (binding.app, binding.user, binding.device, binding.login, value(binding))
            }
            Record::Unbind { app, user, device, login } => (*app, *user, *device, *login, String::new()),
            Record::LookUp { .. } | Record::Keep { .. } | Record::Read { .. } => {
                unreachable!("it is no binding's")
            }
        };
        let key = self.user(app, user);
        let mut command = if by_text {
            script("EVAL", WRITE, &key)
        } else {
            script("EVALSHA", self.write.get_hash(), &key)
        };
        command.arg(device.name()).arg(login).arg(value);
        Command::new(&key, command)
    }

    pub fn read_user(&self, app: AppId, user: UserId) -> Command {
        one_key("HGETALL", &self.user(app, user))
    }

    pub fn read_lease(&self, node: u16) -> Command {
        one_key("GET", &self.node(node))
    }

    pub fn write_lease(&self, node: u16, text: &str, lease_ms: u32) -> Command {
        let key = self.node(node);
        let mut command = cmd("SET");
        command.arg(&key).arg(text).arg("PX").arg(lease_ms);
        Command::new(&key, command)
    }

    pub fn give_lease_back(&self, node: u16, text: &str) -> Command {
        let key = self.node(node);
        let mut command = script("EVAL", GIVE_BACK, &key);
        command.arg(text);
        Command::new(&key, command)
    }

    pub fn add_node(&self, node: u16) -> Command {
        self.nodes("SADD", Some(node))
    }

    pub fn remove_node(&self, node: u16) -> Command {
        self.nodes("SREM", Some(node))
    }

    pub fn read_nodes(&self) -> Command {
        self.nodes("SMEMBERS", None)
    }

    fn nodes(&self, name: &str, node: Option<u16>) -> Command {
        let key = format!("{}:nodes", self.prefix);
        let mut command = cmd(name);
        command.arg(&key).arg(node);
        Command::new(&key, command)
    }

    fn node(&self, id: u16) -> String {
        format!("{}:node:{id}", self.prefix)
    }

    fn user(&self, app: AppId, user: UserId) -> String {
        format!("{}:user:{{{}:{}}}", self.prefix, app.0, user.0)
    }
}

fn one_key(name: &str, key: &str) -> Command {
    let mut command = cmd(name);
    command.arg(key);
    Command::new(key, command)
}

fn script(name: &str, script: &str, key: &str) -> Cmd {
    let mut command = cmd(name);
    command.arg(script).arg(1).arg(key);
    command
}

/// `node.shard.incarnation.session.login`
fn value(binding: &Binding) -> String {
    let Binding { shard, incarnation, session, login, .. } = binding;
    format!("{}.{}.{incarnation}.{session}.{login}", shard.node(), shard.index())
}

/// One field of a user's hash; `None` if no node of ours wrote it.
pub fn binding(app: AppId, user: UserId, device: &str, value: &str) -> Option<Binding> {
    let device = DeviceClass::parse(device)?;
    let mut parts = value.split('.');
    let shard = ShardId::new(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let incarnation = parts.next()?.parse().ok()?;
    let session = parts.next()?.parse().ok()?;
    let login = parts.next()?.parse().ok()?;
    let binding = Binding { app, user, device, shard, incarnation, session, login };
    parts.next().is_none().then_some(binding)
}

/// The text of a lease.
pub fn lease_text(node: &NodeInfo) -> String {
    serde_json::to_string(node).expect("a node's fields are plain JSON")
}

/// The inverse of [`lease_text`]; `None` if no node of ours wrote it.
pub fn lease(text: &str) -> Option<NodeInfo> {
    serde_json::from_str(text).ok()
}
