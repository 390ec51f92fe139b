//! The cache in Redis, shared by all processes.

use std::sync::Arc;
use std::time::Duration;

use redis::{AsyncCommands, Script};

use super::{Hold, HoldAsk, RATE_TIME, available_key, held_key, rate_key};
use crate::batches::{self, Batches};
use crate::connection::{self, Servers};
use crate::error::Error;

/// How long a command may take. Short: a cache that is slower than the database is of no use.
const COMMAND_TIME: Duration = Duration::from_millis(1_000);

/// Several steps in one, as Redis runs them: alone.
struct Scripts {
    take_if: Script,
    count: Script,
    swap: Script,
}

/// A connection that comes back by itself.
pub struct Redis {
    connection: connection::Redis,
    prefix: String,
    scripts: Scripts,
    holds: Batches<HoldAsk, Hold>,
}

impl Redis {
    pub async fn open(servers: &Servers, prefix: &str) -> Result<Self, Error> {
        let connection = servers.shared(COMMAND_TIME)?;
        let scripts = Scripts {
            take_if: Script::new(
                "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
            ),
            count: Script::new(
                "local n = redis.call('INCRBY', KEYS[1], ARGV[2])
                 if n == tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
                 return n",
            ),
            swap: Script::new(
                "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end",
            ),
        };
        let prefix = format!("{prefix}:cache:");
        let holds = Batches::new(HOLDS_WAITING_MAX);
        if let Some(asks) = holds.entries() {
            let holder = Arc::new(Holder {
                connection: connection.clone(),
                prefix: prefix.clone(),
                script: Script::new(HOLD),
            });
            let work = move |asks| {
                let holder = holder.clone();
                async move { holder.hold(asks).await }
            };
            tokio::spawn(batches::run(asks, HOLDS_MAX, std::future::pending(), work));
        }
        Ok(Self { connection, prefix, scripts, holds })
    }

    pub async fn get(&self, key: &str) -> Result<Option<String>, Error> {
        Ok(self.connection.clone().get(self.key(key)).await?)
    }

    /// A text or none for each key, in order: callers rely on the positions.
    pub async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<String>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = keys.iter().map(|key| self.key(key)).collect();
        let texts: Vec<Option<String>> = self.connection.clone().mget(&keys).await?;
        match texts.len() == keys.len() {
            true => Ok(texts),
            false => Err(Error::internal(format!("Redis answered {} of {} keys", texts.len(), keys.len()))),
        }
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

    /// Atomic, since NX and GET go together only from Redis 7 on.
    pub async fn set_if_absent(&self, key: &str, text: &str, ttl: Duration) -> Result<Option<String>, Error> {
        let ttl_ms = ttl.as_millis().max(1) as u64;
        let mut pipe = redis::pipe();
        pipe.atomic().get(self.key(key));
        pipe.cmd("SET").arg(self.key(key)).arg(text).arg("NX").arg("PX").arg(ttl_ms).ignore();
        let (there,) = pipe.query_async(&mut self.connection.clone()).await?;
        Ok(there)
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

    pub async fn count(&self, key: &str, by: u32, window: Duration) -> Result<i64, Error> {
        let mut call = self.scripts.count.key(self.key(key));
        Ok(call.arg(window.as_millis() as u64).arg(by).invoke_async(&mut self.connection.clone()).await?)
    }

    pub async fn swap(&self, key: &str, text: &str, other: &str, ttl: Duration) -> Result<(), Error> {
        let mut call = self.scripts.swap.key(self.key(key));
        call.arg(text).arg(other).arg(ttl.as_millis().max(1) as u64);
        Ok(call.invoke_async(&mut self.connection.clone()).await?)
    }

    pub async fn hold(&self, ask: HoldAsk) -> Result<Hold, Error> {
        self.holds.ask(ask).await
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

/// Sets coins aside for many at once: a command for each would cost Redis and this process more than all the
/// rest of a gift.
struct Holder {
    connection: connection::Redis,
    prefix: String,
    script: Script,
}

impl Holder {
    async fn hold(&self, asks: Vec<HoldAsk>) -> Result<Vec<Hold>, Error> {
        let mut call = self.script.arg(RATE_TIME.as_millis() as u64);
        for HoldAsk { user_id, id, amount, ttl, rate_max } in &asks {
            for key in [available_key(*user_id), held_key(*user_id, id), rate_key(*user_id)] {
                call.key(format!("{}{key}", self.prefix));
            }
            call.arg(*amount).arg(ttl.as_millis() as u64).arg(rate_max.map_or(-1, i64::from));
        }
        let answers: Vec<i64> = call.invoke_async(&mut self.connection.clone()).await?;
        let hold = |answer| match answer {
            0 => Ok(Hold::Held),
            1 => Ok(Hold::Repeat),
            2 => Ok(Hold::Short),
            3 => Ok(Hold::Unknown),
            4 => Ok(Hold::TooMany),
            _ => Err(Error::internal(format!("the hold script answered {answer}"))),
        };
        answers.into_iter().map(hold).collect()
    }
}

/// Three keys for each, and three arguments after the first, which is for all.
const HOLD: &str = "
    local function hold(available, held, rate, amount, ttl, most)
        if most >= 0 then
            local n = redis.call('INCR', rate)
            if n == 1 then redis.call('PEXPIRE', rate, ARGV[1]) end
            if n > most then return 4 end
        end
        if not redis.call('SET', held, '1', 'PX', ttl, 'NX') then return 1 end
        local has = tonumber(redis.call('GET', available) or '')
        if has and has >= tonumber(amount) then
            redis.call('DECRBY', available, amount)
            return 0
        end
        redis.call('DEL', held)
        return has and 2 or 3
    end
    local answers = {}
    for i = 0, #KEYS / 3 - 1 do
        local k, a = 3 * i, 3 * i + 1
        answers[i + 1] = hold(KEYS[k + 1], KEYS[k + 2], KEYS[k + 3], ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 3]))
    end
    return answers";
/// How many are one command.
const HOLDS_MAX: usize = 256;
/// How many may wait for it.
const HOLDS_WAITING_MAX: usize = 20_000;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Something in the place of Redis that answers every MGET with so many values.
    async fn answering(values: usize) -> Redis {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                let text = String::from_utf8_lossy(&bytes[..count]); // a command comes in one piece
                let answer = |command: &str| match command.contains("MGET") {
                    true => format!("*{values}\r\n{}", "$1\r\n1\r\n".repeat(values)),
                    false => "+OK\r\n".to_owned(), // as to a greeting
                };
                let answers: String = text.split('*').skip(1).map(answer).collect();
                stream.write_all(answers.as_bytes()).await.unwrap();
            }
        });
        let config = crate::config::Config { redis: url, ..Default::default() };
        Redis::open(&Servers::open(&config).unwrap().unwrap(), "t").await.unwrap()
    }

    #[tokio::test]
    async fn an_answer_for_other_keys_than_were_asked_for_is_an_error() {
        let keys = ["a".to_owned(), "b".to_owned()];
        for values in 0..4 {
            let answer = answering(values).await.get_many(&keys).await;
            assert_eq!(answer.is_ok(), values == keys.len(), "{values}: {answer:?}");
        }
    }
}
