//! The cache in Redis, shared by all processes.

use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{AsyncCommands, Script};

use super::Hold;
use crate::connection;
use crate::error::Error;

/// How long a command may take. Short: a cache that is slower than the database is of no use.
const COMMAND_TIME: Duration = Duration::from_millis(1_000);

/// Several steps in one, as Redis runs them: alone.
struct Scripts {
    take_if: Script,
    count: Script,
    hold: Script,
    swap: Script,
}

/// A connection that comes back by itself.
pub struct Redis {
    connection: ConnectionManager,
    prefix: String,
    scripts: Scripts,
}

impl Redis {
    pub async fn open(url: &str, prefix: &str) -> Result<Self, Error> {
        let connection = connection::to_redis(url, COMMAND_TIME)?;
        let scripts = Scripts {
            take_if: Script::new(
                "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
            ),
            count: Script::new(
                "local n = redis.call('INCR', KEYS[1])
                 if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
                 return n",
            ),
            hold: Script::new(
                "if redis.call('EXISTS', KEYS[2]) == 1 then return 'repeat' end
                 local has = tonumber(redis.call('GET', KEYS[1]) or '')
                 if not has then return 'unknown' end
                 if has < tonumber(ARGV[1]) then return 'short' end
                 redis.call('DECRBY', KEYS[1], ARGV[1])
                 redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
                 return 'held'",
            ),
            swap: Script::new(
                "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end",
            ),
        };
        Ok(Self { connection, prefix: format!("{prefix}:cache:"), scripts })
    }

    pub async fn get(&self, key: &str) -> Result<Option<String>, Error> {
        Ok(self.connection.clone().get(self.key(key)).await?)
    }

    pub async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<String>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = keys.iter().map(|key| self.key(key)).collect();
        Ok(self.connection.clone().mget(keys).await?)
    }

    pub async fn set(&self, key: &str, text: &str, ttl: Duration) -> Result<(), Error> {
        Ok(self.connection.clone().pset_ex(self.key(key), text, ttl.as_millis().max(1) as u64).await?)
    }

    pub async fn set_many(&self, entries: &[(&str, String, Duration)]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        for (key, text, ttl) in entries {
            pipe.pset_ex(self.key(key), text, ttl.as_millis().max(1) as u64).ignore();
        }
        Ok(pipe.query_async(&mut self.connection.clone()).await?)
    }

    pub async fn set_if_absent(&self, key: &str, text: &str, ttl: Duration) -> Result<(), Error> {
        let mut command = redis::cmd("SET");
        command.arg(self.key(key)).arg(text).arg("NX").arg("PX").arg(ttl.as_millis().max(1) as u64);
        let _: Option<String> = command.query_async(&mut self.connection.clone()).await?;
        Ok(())
    }

    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        Ok(self.connection.clone().del(self.key(key)).await?)
    }

    pub async fn delete_many(&self, keys: &[String]) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = keys.iter().map(|key| self.key(key)).collect();
        Ok(self.connection.clone().del(keys).await?)
    }

    pub async fn take_if(&self, key: &str, text: &str) -> Result<bool, Error> {
        let mut call = self.scripts.take_if.key(self.key(key));
        Ok(call.arg(text).invoke_async::<i64>(&mut self.connection.clone()).await? == 1)
    }

    pub async fn count(&self, key: &str, window: Duration) -> Result<i64, Error> {
        let mut call = self.scripts.count.key(self.key(key));
        Ok(call.arg(window.as_millis() as u64).invoke_async(&mut self.connection.clone()).await?)
    }

    pub async fn swap(&self, key: &str, text: &str, other: &str, ttl: Duration) -> Result<(), Error> {
        let mut call = self.scripts.swap.key(self.key(key));
        call.arg(text).arg(other).arg(ttl.as_millis().max(1) as u64);
        Ok(call.invoke_async(&mut self.connection.clone()).await?)
    }

    pub async fn hold(&self, available: &str, held: &str, amount: i64, ttl: Duration) -> Result<Hold, Error> {
        let mut call = self.scripts.hold.key(self.key(available));
        call.key(self.key(held)).arg(amount).arg(ttl.as_millis() as u64);
        let answer: String = call.invoke_async(&mut self.connection.clone()).await?;
        match answer.as_str() {
            "held" => Ok(Hold::Held),
            "repeat" => Ok(Hold::Repeat),
            "short" => Ok(Hold::Short),
            "unknown" => Ok(Hold::Unknown),
            _ => Err(Error::internal(format!("the hold script answered {answer}"))),
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}
