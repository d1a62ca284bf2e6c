//! A vendor that answers at once, for measuring what stands before it: OpenAI's chat, always the same twenty words, on
//! one thread. It reads of a request only how long it is and whether it wants a stream; a stream's twenty pieces leave
//! in one write. Prints its address. Ends with Ctrl-C.

use std::io::{self, Write};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const WORDS: usize = 20;
/// The longest request that is read, its head included.
const MOST: usize = 1 << 20;
const USAGE: &str = r#"{"prompt_tokens":8,"completion_tokens":20,"total_tokens":28}"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut out = io::stdout();
    writeln!(out, "http://{}", listener.local_addr()?)?;
    out.flush()?;
    let (whole, stream) = (whole().leak(), stream().leak());
    let mut served = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        served.spawn(answer(socket, whole, stream));
        while served.try_join_next().is_some() {}
    }
}

/// Answers all requests of a connection, until it ends or sends what is no request.
async fn answer(mut socket: TcpStream, whole: &[u8], stream: &[u8]) -> io::Result<()> {
    let mut came = Vec::new();
    loop {
        let Some(length) = length(&came) else {
            if came.len() > MOST || socket.read_buf(&mut came).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let wants_stream = holds(&came[..length], b"\"stream\":true")
            || holds(&came[..length], b"\"stream\": true");
        socket.write_all(if wants_stream { stream } else { whole }).await?;
        came.drain(..length);
    }
}

/// How many bytes the first request of `came` has, once all of it came.
fn length(came: &[u8]) -> Option<usize> {
    let head = came.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&came[..head]).ok()?.to_ascii_lowercase();
    let said = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = head + said.map_or(Some(0), |said| said.trim().parse().ok())?;
    (came.len() >= length).then_some(length)
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn whole() -> Vec<u8> {
    let text = "word ".repeat(WORDS);
    let message = format!(r#"{{"role":"assistant","content":"{text}"}}"#);
    let choice = format!(r#"{{"index":0,"message":{message},"finish_reason":"stop"}}"#);
    let body = format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"mock","choices":[{choice}],"usage":{USAGE}}}"#
    );
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn stream() -> Vec<u8> {
    let chunk = |choices: &str, usage: &str| {
        let data = format!(
            r#"data: {{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"mock","choices":[{choices}],"usage":{usage}}}"#
        );
        framed(&format!("{data}\n\n"))
    };
    let piece = |delta: &str, end: &str| {
        chunk(&format!(r#"{{"index":0,"delta":{delta},"finish_reason":{end}}}"#), "null")
    };
    let mut text =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_owned();
    text += &piece(r#"{"role":"assistant","content":""}"#, "null");
    text += &piece(r#"{"content":"word "}"#, "null").repeat(WORDS);
    text += &piece("{}", "\"stop\"");
    text += &chunk("", USAGE);
    text += &framed("data: [DONE]\n\n");
    (text + "0\r\n\r\n").into_bytes()
}

fn framed(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}
