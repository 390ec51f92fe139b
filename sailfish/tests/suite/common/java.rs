//! A client as the Java platform has it.

use std::io::{Read, Write};
use std::net::TcpStream;

/// A client of the Java platform: the header of 10 bytes, and text.
pub struct Java(pub TcpStream);

impl Java {
    pub fn write(&mut self, code: i32, body: &str) {
        let mut frame = 18677_u16.to_be_bytes().to_vec();
        frame.extend(code.to_be_bytes());
        frame.extend((body.len() as i32).to_be_bytes());
        frame.extend(body.as_bytes());
        self.0.write_all(&frame).unwrap();
    }

    pub fn read_any(&mut self) -> (i32, String) {
        let mut header = [0; 10];
        self.0.read_exact(&mut header).unwrap();
        assert_eq!(header[..2], 18677_u16.to_be_bytes());
        let number = |at: usize| i32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let mut body = vec![0; number(6) as usize];
        self.0.read_exact(&mut body).unwrap();
        (number(2), String::from_utf8(body).unwrap())
    }

    pub fn read(&mut self, code: i32) -> String {
        let (found, body) = self.read_any();
        assert_eq!(found, code, "{body}");
        body
    }

    pub fn expect(&mut self, code: i32, body: &str) {
        assert_eq!(self.read(code), body);
    }
}
