//! Connections to Redis: one server, the master that Sentinels name, or the masters of a Cluster.
//!
//! After a timeout, the redis crate's own pipelines read on, with a timeout for each command of a batch. Here
//! a batch has one timeout, and a connection on which anything failed is dropped, so that no late reply
//! counts as another command's.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use redis::cluster_routing::Slot;
use redis::{
    Cmd, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult, Value, cmd,
};
use trust::Roots;

use super::sentinels::Sentinels;
use crate::redis_urls::{address, is_tls};

/// How often a batch follows a Cluster that moves its slots, before it fails and is tried again later.
const REDIRECTS_MAX: usize = 3;

/// A command and the slot of its key.
pub struct Command {
    slot: Slot,
    packed: Vec<u8>,
}

impl Command {
    pub fn new(key: &str, command: Cmd) -> Self {
        Self { slot: Slot::for_key(key), packed: command.get_packed_command() }
    }
}

/// A server's answer: a value, or why it refused.
pub type Reply = RedisResult<Value>;

/// Open connections to all servers that hold a part of the directory.
pub struct Link {
    servers: Vec<Server>,
    /// Which server has a slot; `None` for a single server, which has all.
    slots: Option<HashMap<Slot, usize>>,
    seeds: Vec<ConnectionInfo>,
    sentinels: Option<Sentinels>,
    roots: Roots,
    timeout: Duration,
}

struct Server {
    host: String,
    port: u16,
    connection: Connection,
}

impl Link {
    /// Connects: to the one server, to the master that sentinels name, or to all masters of the Cluster that
    /// the servers belong to.
    pub fn connect(
        seeds: &[ConnectionInfo],
        sentinels: Option<Sentinels>,
        roots: &Roots,
        timeout: Duration,
    ) -> RedisResult<Self> {
        let (roots, all) = (roots.clone(), seeds.to_vec());
        let mut link = Self { servers: Vec::new(), slots: None, seeds: all, sentinels, roots, timeout };
        match seeds {
            _ if link.sentinels.is_some() => link.find_master()?,
            [only] => {
                let (host, port) = address(only)?;
                link.server(&host, port)?;
            }
            _ => link.read_slots()?,
        }
        Ok(link)
    }

    /// Whether masters may change behind an open link.
    pub fn is_cluster(&self) -> bool {
        self.slots.is_some()
    }

    /// Fails if the sentinels name another master than this link's. If none answers, the link stays.
    pub fn check_master(&self) -> RedisResult<()> {
        let Some(sentinels) = &self.sentinels else { return Ok(()) };
        let named = sentinels.ask(&self.roots, self.timeout);
        let is_named = |(host, port): &(String, u16)| {
            self.servers.iter().any(|server| server.host == *host && server.port == *port)
        };
        match named.first() {
            Some(first) if !is_named(first) => Err(failure("the sentinels name another master")),
            _ => Ok(()),
        }
    }

    /// Connects to the first server that the sentinels name and that confirms that it is a master.
    fn find_master(&mut self) -> RedisResult<()> {
        let sentinels = self.sentinels.clone();
        let mut why = failure("no sentinel answers, or none knows the master by this name");
        for (host, port) in sentinels.map(|it| it.ask(&self.roots, self.timeout)).unwrap_or_default() {
            match self.role_of(&host, port) {
                Ok(role) if role == "master" => return Ok(()),
                Ok(_) => why = failure("the sentinels name a server that is no master"),
                Err(error) => why = error,
            }
            self.servers.clear();
        }
        Err(why)
    }

    /// The role that a server reports, the first of several values.
    fn role_of(&mut self, host: &str, port: u16) -> RedisResult<String> {
        let at = self.server(host, port)?;
        let connection = &mut self.servers[at].connection;
        let role: Vec<Value> = cmd("ROLE").query(connection)?;
        Ok(redis::from_redis_value(role.into_iter().next().unwrap_or(Value::Nil))?)
    }

    /// Sends all commands and then takes all replies, in the order of the commands. After an error the link
    /// is of no use.
    pub fn run(&mut self, commands: &[Command]) -> RedisResult<Vec<Reply>> {
        let all: Vec<usize> = (0..commands.len()).collect();
        let mut replies: Vec<Reply> = all.iter().map(|_| Ok(Value::Nil)).collect();
        let mut open = all;
        for _ in 0..=REDIRECTS_MAX {
            self.round(commands, &open, &mut replies)?;
            let mut moved = Vec::new();
            for &at in &open {
                match redirect(&replies[at]) {
                    Some(Redirect::Moved) => moved.push(at),
                    Some(Redirect::Ask(host, port)) => replies[at] = self.ask(&host, port, &commands[at])?,
                    None => {}
                }
            }
            if moved.is_empty() {
                return Ok(replies);
            }
            self.read_slots()?;
            open = moved;
        }
        Err(failure("the Cluster keeps moving its slots"))
    }

    /// The run ids of the servers: an unknown one may lack data.
    pub fn run_ids(&mut self) -> RedisResult<BTreeSet<String>> {
        let mut info = cmd("INFO");
        info.arg("server");
        let mut ids = BTreeSet::new();
        for server in &mut self.servers {
            let text: String = match info.query(&mut server.connection) {
                Err(error) if error.is_io_error() => return Err(error),
                told => told.unwrap_or_default(), // some servers do not let every user ask
            };
            ids.extend(text.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::to_owned));
        }
        Ok(ids)
    }

    /// One round trip to each server with commands in the batch.
    fn round(&mut self, commands: &[Command], open: &[usize], replies: &mut [Reply]) -> RedisResult<()> {
        let deadline = Instant::now() + self.timeout;
        let mut of_server: Vec<Vec<usize>> = vec![Vec::new(); self.servers.len()];
        for &at in open {
            of_server[self.server_of(commands[at].slot)?].push(at);
        }
        for (server, indexes) in self.servers.iter_mut().zip(&of_server) {
            if !indexes.is_empty() {
                let packed: Vec<u8> = indexes.iter().flat_map(|&at| &commands[at].packed).copied().collect();
                server.connection.send_packed_command(&packed)?;
            }
        }
        for (server, indexes) in self.servers.iter_mut().zip(&of_server) {
            for &at in indexes {
                if Instant::now() > deadline {
                    return Err(failure("timed out"));
                }
                replies[at] = server.connection.recv_response()?.extract_error();
            }
        }
        Ok(())
    }

    fn server_of(&self, slot: Slot) -> RedisResult<usize> {
        match &self.slots {
            None => Ok(0),
            Some(slots) => {
                slots.get(&slot).copied().ok_or_else(|| failure("no master of the Cluster has a key's slot"))
            }
        }
    }

    /// Handles a slot that moves from one master to another, which has the key already.
    fn ask(&mut self, host: &str, port: u16, command: &Command) -> RedisResult<Reply> {
        let at = self.server(host, port)?;
        let connection = &mut self.servers[at].connection;
        connection.send_packed_command(&cmd("ASKING").get_packed_command())?;
        connection.send_packed_command(&command.packed)?;
        connection.recv_response()?.extract_error()?;
        Ok(connection.recv_response()?.extract_error())
    }

    /// Reads again which master has which slot, from the first server that answers.
    fn read_slots(&mut self) -> RedisResult<()> {
        self.servers.clear();
        let mut last = failure("no server of the Cluster was given");
        for seed in self.seeds.clone() {
            let told = address(&seed).and_then(|(host, port)| {
                let at = self.server(&host, port)?;
                let told = cmd("CLUSTER").arg("SLOTS").query(&mut self.servers[at].connection)?;
                Ok((host, told))
            });
            match told {
                Ok((host, told)) => return self.take_slots(&host, told),
                Err(error) => {
                    self.servers.clear();
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// `told` is a list of first slot, last slot, master and replicas; a master is host, port and more.
    fn take_slots(&mut self, teller: &str, told: Vec<Vec<Value>>) -> RedisResult<()> {
        let mut slots = HashMap::new();
        for range in told {
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else {
                return Err(failure("CLUSTER SLOTS has an unknown form"));
            };
            let [host, Value::Int(port), ..] = master.as_slice() else {
                return Err(failure("CLUSTER SLOTS has an unknown form"));
            };
            let host: Option<String> = redis::from_redis_value_ref(host)?;
            let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| teller.to_owned());
            let at = self.server(&host, *port as u16)?;
            let range = *first as u16..=*last as u16;
            slots.extend(range.filter_map(Slot::new).map(|slot| (slot, at)));
        }
        self.slots = Some(slots);
        Ok(())
    }

    /// The server at that address; connects if there is none.
    fn server(&mut self, host: &str, port: u16) -> RedisResult<usize> {
        if let Some(at) = self.servers.iter().position(|server| server.host == host && server.port == port) {
            return Ok(at);
        }
        // Without the crate's own greeting a frozen server costs one time-out, not one for each of its
        // commands.
        let settings = self.seeds[0].redis_settings().clone().set_skip_set_lib_name();
        let host_name = host.to_owned();
        let at = match is_tls(&self.seeds[0]) {
            true => ConnectionAddr::TcpTls { host: host_name, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host_name, port),
        };
        let info = at.into_connection_info()?.set_redis_settings(settings);
        let client = self.roots.redis_client(info)?;
        let connection = client.get_connection_with_timeout(self.timeout)?;
        connection.set_read_timeout(Some(self.timeout))?;
        connection.set_write_timeout(Some(self.timeout))?;
        self.servers.push(Server { host: host.to_owned(), port, connection });
        Ok(self.servers.len() - 1)
    }
}

enum Redirect {
    Moved,
    Ask(String, u16),
}

fn redirect(reply: &Reply) -> Option<Redirect> {
    let error = reply.as_ref().err()?;
    match error.code()? {
        "MOVED" => Some(Redirect::Moved),
        "ASK" => {
            let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
            Some(Redirect::Ask(host.to_owned(), port.parse().ok()?))
        }
        _ => None,
    }
}

fn failure(why: &'static str) -> RedisError {
    std::io::Error::other(why).into()
}
