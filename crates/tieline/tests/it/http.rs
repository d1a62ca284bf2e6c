//! A client of the plainest kind, for tests: one request, one connection, all of the answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// No answer of a test takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a server said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Said {
    /// The body, of an answer with this status.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Posts JSON.
pub(crate) fn post(address: SocketAddr, path: &str, body: &Value) -> Said {
    send(address, ("POST", path), &[("content-type", "application/json")], &body.to_string())
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Said {
    send(address, ("GET", path), &[], "")
}

/// Sends a request and reads the whole answer.
pub(crate) fn send(
    address: SocketAddr,
    line: (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> Said {
    watched(address, line, headers, body, |_| {})
}

/// The same; `seen` sees what has come of a stream after each of its pieces.
pub(crate) fn watched(
    address: SocketAddr,
    line: (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
    seen: impl FnMut(&[u8]),
) -> Said {
    let mut reader = begin(address, line, headers, body);
    let (status, headers) = head(&mut reader);
    let value = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let body = match (value("transfer-encoding"), value("content-length")) {
        _ if line.0 == "HEAD" => Vec::new(),
        (Some(_), _) => chunked(&mut reader, seen),
        (None, Some(length)) => {
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            body
        }
        (None, None) => Vec::new(),
    };
    Said { status, headers, body: String::from_utf8(body).unwrap() }
}

/// Sends a request; what comes back is read by whoever wants it.
pub(crate) fn begin(
    address: SocketAddr,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text += &format!("content-length: {}\r\n", body.len());
    }
    stream.write_all(format!("{text}\r\n{body}").as_bytes()).unwrap();
    BufReader::new(stream)
}

fn head(reader: &mut BufReader<TcpStream>) -> (u16, Vec<(String, String)>) {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let status = line().split_whitespace().nth(1).unwrap().parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let line = line();
        let Some((name, value)) = line.split_once(':') else { return (status, headers) };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
}

fn chunked(reader: &mut BufReader<TcpStream>, mut seen: impl FnMut(&[u8])) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let at = body.len();
        body.resize(at + size, 0);
        reader.read_exact(&mut body[at..]).unwrap();
        reader.read_exact(&mut [0; 2]).unwrap();
        if size == 0 {
            return body;
        }
        seen(&body);
    }
}
