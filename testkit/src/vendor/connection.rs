//! One connection: a request is read, an answer is written as the script says.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Captured, Dialect, Entry, Fault, Outcome, Script, State};

const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Why nothing more is written.
enum Stop {
    Whole,
    Failed,
    Gone,
}

pub(super) async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let Some(captured) = read_request(&mut stream).await else { return };
    let dialect = Dialect::of(&captured.path);
    let whole = dialect.is_some_and(|dialect| dialect.wants_whole(&captured));
    let asked = captured.json();
    let script = state.capture(captured);
    let stop = match dialect {
        None => {
            let head = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            Stop::Failed
        }
        Some(dialect) => {
            let whole = whole && !script.only_frames;
            answer(&mut stream, (dialect, whole), (&script, &asked)).await
        }
    };
    let outcome = match stop {
        Stop::Whole => Outcome::Whole,
        Stop::Failed => Outcome::Failed,
        Stop::Gone => Outcome::Disconnected,
    };
    // Whoever refuses asks no money; whatever else happens, the answer may have been made.
    let usage = match script.fault {
        Fault::Status { .. } => super::Truth::default(),
        _ => script.usage,
    };
    state.account(Entry { outcome, usage });
}

async fn answer(
    stream: &mut TcpStream,
    (dialect, whole): (Dialect, bool),
    (script, asked): (&Script, &serde_json::Value),
) -> Stop {
    match &script.fault {
        Fault::Close => return Stop::Failed,
        Fault::HangBeforeHead => return hang(stream).await,
        Fault::Status { status, retry_after, code } => {
            let retry = retry_after.as_ref().map(|after| format!("retry-after: {after}\r\n"));
            return refuse(stream, *status, &retry.unwrap_or_default(), &dialect.error(code)).await;
        }
        Fault::Page(page) => {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
                page.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            return Stop::Failed;
        }
        Fault::TooLong => return refuse(stream, 400, "", &dialect.too_long()).await,
        _ => {}
    }
    match whole {
        true => piece(stream, dialect, (script, asked)).await,
        false => body(stream, dialect, script).await,
    }
}

/// Writes the head of an answer of so many bytes, or of one in chunks.
async fn head(stream: &mut TcpStream, kind: &str, length: Option<usize>) -> bool {
    let length = match length {
        Some(bytes) => format!("content-length: {bytes}"),
        None => "transfer-encoding: chunked".to_owned(),
    };
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.is_ok()
}

/// An answer in one piece, whose length is told beforehand unless it drips.
async fn piece(
    stream: &mut TcpStream,
    dialect: Dialect,
    (script, asked): (&Script, &serde_json::Value),
) -> Stop {
    let whole = match &script.fault {
        Fault::ErrorAfter(_) => dialect.error("mock_failure"),
        _ => dialect.whole(script, asked),
    };
    let whole = whole.to_string().into_bytes();
    let sent = match &script.fault {
        Fault::HangAfter(n) | Fault::CutAfter(n) | Fault::BrokenAfter(n) => {
            (*n).min(whole.len() - 1)
        }
        _ => whole.len(),
    };
    let told = if matches!(script.fault, Fault::BrokenAfter(_)) { sent } else { whole.len() };
    if !head(stream, "application/json", (!script.drip).then_some(told)).await {
        return Stop::Gone;
    }
    if let Some(pace) = script.pace
        && gone_within(stream, pace).await
    {
        return Stop::Gone;
    }
    let (now, _) = whole.split_at(sent);
    let written = match script.drip {
        true => write_frame(stream, now, true).await,
        false => stream.write_all(now).await.is_ok(),
    };
    match &script.fault {
        _ if !written => Stop::Gone,
        Fault::HangAfter(_) => hang(stream).await,
        Fault::CutAfter(_) => Stop::Failed,
        _ if script.drip => end(stream, script).await,
        Fault::None => Stop::Whole,
        _ => Stop::Failed,
    }
}

/// Says that the body is over.
async fn end(stream: &mut TcpStream, script: &Script) -> Stop {
    let whole = stream.write_all(b"0\r\n\r\n").await.is_ok() && stream.flush().await.is_ok();
    match (whole, script.fault == Fault::None) {
        (true, true) => Stop::Whole,
        (true, false) => Stop::Failed,
        (false, _) => Stop::Gone,
    }
}

async fn refuse(
    stream: &mut TcpStream,
    status: u16,
    headers: &str,
    error: &serde_json::Value,
) -> Stop {
    let body = error.to_string();
    let head = format!(
        "HTTP/1.1 {status} Mock\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
    Stop::Failed
}

async fn body(stream: &mut TcpStream, dialect: Dialect, script: &Script) -> Stop {
    if !head(stream, dialect.content_type(), None).await {
        return Stop::Gone;
    }
    let (frames, ends) = dialect.frames(script);
    let all = frames.len();
    let sent = match &script.fault {
        Fault::HangAfter(n) | Fault::CutAfter(n) | Fault::BrokenAfter(n) | Fault::ErrorAfter(n) => {
            (*n).min(all)
        }
        Fault::NoEnd => all - ends,
        _ => all,
    };
    for frame in frames.iter().take(sent) {
        if let Some(pace) = script.pace
            && gone_within(stream, pace).await
        {
            return Stop::Gone;
        }
        if !write_frame(stream, frame.as_bytes(), script.drip).await {
            return Stop::Gone;
        }
    }
    let last = match &script.fault {
        Fault::HangAfter(_) => return hang(stream).await,
        Fault::CutAfter(_) => return Stop::Failed,
        Fault::BrokenAfter(_) => Some("data: {\"half\": \n\n{\n".to_owned()),
        Fault::ErrorAfter(_) => Some(dialect.error_frame()),
        _ => None,
    };
    if let Some(last) = &last {
        write_frame(stream, last.as_bytes(), false).await;
    }
    end(stream, script).await
}

/// Whether it could be written.
async fn write_frame(stream: &mut TcpStream, frame: &[u8], drip: bool) -> bool {
    let size = if drip { 1 } else { frame.len().max(1) };
    for chunk in frame.chunks(size) {
        let mut bytes = format!("{:x}\r\n", chunk.len()).into_bytes();
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        if stream.write_all(&bytes).await.is_err() {
            return false;
        }
    }
    stream.flush().await.is_ok()
}

/// Waits for the client to go.
async fn hang(stream: &mut TcpStream) -> Stop {
    let mut byte = [0; 1];
    while matches!(stream.read(&mut byte).await, Ok(1..)) {}
    Stop::Gone
}

async fn gone_within(stream: &mut TcpStream, pace: std::time::Duration) -> bool {
    tokio::select! {
        _ = hang(stream) => true,
        () = tokio::time::sleep(pace) => false,
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Captured> {
    let mut raw = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if let Some(captured) = parse(&raw) {
            return Some(captured);
        }
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 && raw.len() < MOST_BYTES => {
                raw.extend_from_slice(buffer.get(..count)?);
            }
            _ => return None,
        }
    }
}

/// The request, where it is whole.
fn parse(raw: &[u8]) -> Option<Captured> {
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(raw.get(..end)?);
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let body = raw.get(end + 4..end + 4 + length)?.to_vec();
    Some(Captured { raw: raw.to_vec(), method, path, headers, body })
}
