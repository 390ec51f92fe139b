//! The servers are what tests take them for.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use testbed::{MariaDb, Redis};

#[test]
fn redis_keeps_what_it_answered_through_a_kill() {
    let redis = Redis::start();
    assert_eq!(ask(&redis, "SET a 1"), "+OK\r\n");
    redis.kill();
    assert!(TcpStream::connect(redis.address()).is_err());
    redis.start_again();
    assert_eq!(ask(&redis, "GET a"), "$1\r\n1\r\n");
}

#[test]
fn mariadb_keeps_what_it_committed_and_a_replica_follows() {
    let primary = MariaDb::primary();
    primary.create("books");
    primary.sql("CREATE TABLE books.t (a INT); INSERT INTO books.t VALUES (7)");
    primary.kill();
    primary.start_again();
    let replica = MariaDb::replica_of(&primary);
    primary.sql("INSERT INTO books.t VALUES (8)");
    for _ in 0..500 {
        let tables =
            replica.sql("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'books'");
        if tables.trim() == "1" && replica.sql("SELECT SUM(a) FROM books.t").trim() == "15" {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the replica does not follow: {}", replica.sql("SHOW SLAVE STATUS\\G"));
}

fn ask(redis: &Redis, command: &str) -> String {
    let mut stream = TcpStream::connect(redis.address()).unwrap();
    write!(stream, "{command}\r\n").unwrap();
    let mut answer = [0; 64];
    let count = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..count]).into_owned()
}
