//! Gets one file over HTTP, going on where an earlier attempt or an earlier process stopped.

use reqwest::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE,
};
use reqwest::{Response, StatusCode};
use tieline_types::Bytes;
use tokio::time::Instant;

use super::error::MirrorError;
use super::http::{self, Question};
use super::ingest::Origin;
use super::job::{Job, Writer, lock};
use super::options::PullEvent;

/// Less than this in a stall's time is a stall: one byte now and then keeps no pull alive.
const LEAST_PER_STALL: u64 = 1024;

/// Gets `question` as `source`, in as many attempts as the tuning allows without progress.
pub(crate) async fn download(
    job: &Job<'_>,
    source: &str,
    question: &Question,
) -> Result<(), MirrorError> {
    let tuning = job.environment.tuning;
    let mut best = 0;
    let mut failures = 0;
    loop {
        let error = match attempt(job, source, question).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let reached = lock(&job.ingest).len();
        if reached >= best + tuning.chunk.0 {
            (best, failures) = (reached, 0);
        }
        failures += 1;
        if failures >= tuning.attempts || !error.is_passing() {
            // What came is worth keeping for the next pull.
            job.blocking(|ingest| Ok(ingest.record()?)).await?;
            return Err(error);
        }
        tokio::time::sleep(tuning.retry_delay * 2_u32.pow(failures.min(6) - 1)).await;
    }
}

async fn attempt(job: &Job<'_>, source: &str, question: &Question) -> Result<(), MirrorError> {
    let at = resumable(job, source);
    let mut question = question.clone();
    question.headers.extend(range_headers(job, at));
    let url = http::show(&question.url);
    let response = job.http.get(question).await?.response;
    if let Some(coding) = response.headers().get(CONTENT_ENCODING)
        && coding != "identity"
    {
        let problem = "it is packed though we asked for plain bytes".to_owned();
        return Err(MirrorError::Nonsense { url, problem });
    }
    let total = match response.status() {
        StatusCode::PARTIAL_CONTENT if at > 0 => resume(job, &url, at, &response).await?,
        StatusCode::RANGE_NOT_SATISFIABLE if at > 0 => {
            return not_satisfiable(job, source, &url, &response).await;
        }
        StatusCode::OK => begin(job, source, &response).await?,
        status => return Err(MirrorError::Status { url, status: status.as_u16() }),
    };
    receive(job, &url, response, total).await
}

/// How many bytes are there to go on from: none where they are another file's, or where nothing
/// could tell that the file changed meanwhile.
fn resumable(job: &Job<'_>, source: &str) -> u64 {
    let ingest = lock(&job.ingest);
    let origin = ingest.origin();
    let is_safe = origin.validator.is_some() || job.expected.is_some();
    if origin.source == source && is_safe { ingest.len() } else { 0 }
}

fn range_headers(job: &Job<'_>, at: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if at == 0 {
        return headers;
    }
    headers.insert(
        RANGE,
        HeaderValue::try_from(format!("bytes={at}-"))
            .unwrap_or_else(|_| HeaderValue::from_static("bytes=0-")),
    );
    let validator = lock(&job.ingest).origin().validator.clone();
    if let Some(value) = validator.and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(IF_RANGE, value);
    }
    headers
}

/// The server begins at the first byte: because we did, or because it cannot or will not go on.
async fn begin(
    job: &Job<'_>,
    source: &str,
    response: &Response,
) -> Result<Option<u64>, MirrorError> {
    let headers = response.headers();
    let validator = text(headers, &ETAG).filter(|etag| etag.starts_with('"'));
    let total = text(headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let source = source.to_owned();
    job.restart(Origin { source, validator: validator.map(str::to_owned), total }).await?;
    Ok(total)
}

async fn resume(
    job: &Job<'_>,
    url: &str,
    at: u64,
    response: &Response,
) -> Result<Option<u64>, MirrorError> {
    let range = text(response.headers(), &CONTENT_RANGE).and_then(parse_range);
    let known = lock(&job.ingest).origin().total;
    let agrees = |(first, total): (Option<u64>, Option<u64>)| {
        first == Some(at) && (total.is_none() || known.is_none() || total == known)
    };
    let is_same = is_same_version(job, response);
    let Some((_, total)) = range.filter(|range| is_same && agrees(*range)) else {
        // Whatever it sends does not belong here. The next attempt begins anew.
        job.restart(Origin::default()).await?;
        let (received, total) = (Bytes(at), Bytes(known.unwrap_or(0)));
        return Err(MirrorError::CutShort { url: url.to_owned(), received, total });
    };
    let total = total.or(known);
    job.check_size(total)?;
    job.blocking(move |ingest| Ok(ingest.require_room(total.unwrap_or(0))?)).await?;
    job.progress.event(PullEvent::Resumed { at: Bytes(at) });
    Ok(total)
}

/// Whether the answer is about the version that we have bytes of: some servers honour `Range` and
/// overlook `If-Range`.
fn is_same_version(job: &Job<'_>, response: &Response) -> bool {
    let ingest = lock(&job.ingest);
    match (&ingest.origin().validator, text(response.headers(), &ETAG)) {
        (Some(known), Some(etag)) => known == etag,
        _ => true,
    }
}

/// Either all bytes are there, or those that are there belong to another file.
async fn not_satisfiable(
    job: &Job<'_>,
    source: &str,
    url: &str,
    response: &Response,
) -> Result<(), MirrorError> {
    let range = text(response.headers(), &CONTENT_RANGE).and_then(parse_range);
    let len = lock(&job.ingest).len();
    if let Some((None, Some(total))) = range
        && total == len
        && is_same_version(job, response)
    {
        return Ok(());
    }
    job.restart(Origin { source: source.to_owned(), ..Origin::default() }).await?;
    let (received, total) = (Bytes(len), Bytes(0));
    Err(MirrorError::CutShort { url: url.to_owned(), received, total })
}

async fn receive(
    job: &Job<'_>,
    url: &str,
    mut response: Response,
    total: Option<u64>,
) -> Result<(), MirrorError> {
    let mut writer = Writer::new(&job.ingest);
    let mut ticker = job.ticker(total);
    let mut done = lock(&job.ingest).len();
    let is_too_long = |done: u64| total.is_some_and(|total| done > total);
    let ended = loop {
        match piece(job, url, &mut response).await {
            Ok(Some(bytes)) => {
                done += bytes.len() as u64;
                if is_too_long(done) {
                    break Ok(());
                }
                job.check_size(Some(done).filter(|done| job.size.is_some_and(|s| *done > s.0)))?;
                writer.push(&bytes).await?;
                ticker.at(done);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // Also after a failure: what came is what the next attempt goes on from.
    writer.finish().await?;
    ticker.now(done);
    ended?;
    if is_too_long(done) {
        job.restart(Origin::default()).await?;
        let problem = "it is longer than it says".to_owned();
        return Err(MirrorError::Nonsense { url: url.to_owned(), problem });
    }
    match total {
        Some(total) if total != done => {
            let (received, total) = (Bytes(done), Bytes(total));
            Err(MirrorError::CutShort { url: url.to_owned(), received, total })
        }
        _ => Ok(()),
    }
}

/// The next bytes, at least [`LEAST_PER_STALL`] of them unless the file ends.
async fn piece(
    job: &Job<'_>,
    url: &str,
    response: &mut Response,
) -> Result<Option<Vec<u8>>, MirrorError> {
    let deadline = Instant::now() + job.environment.tuning.stall;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < LEAST_PER_STALL {
        match tokio::time::timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(more))) => bytes.extend_from_slice(&more),
            Ok(Ok(None)) => break,
            Ok(Err(source)) => return Err(http::transfer(url, source)),
            Err(_) => return Err(job.http.stalled(url)),
        }
    }
    Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
}

/// First byte and total length of `bytes 5-9/10` or `bytes */10`.
fn parse_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    if range == "*" {
        return Some((None, total));
    }
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let is_whole = first <= last && total.is_none_or(|total| last.checked_add(1) == Some(total));
    is_whole.then_some((Some(first), total))
}

fn text<'h>(headers: &'h HeaderMap, name: &reqwest::header::HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_strictly() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((Some(5), Some(10))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((Some(5), None)));
        assert_eq!(parse_range("bytes */10"), Some((None, Some(10))));
        assert_eq!(parse_range("bytes 5-8/10"), None);
        assert_eq!(parse_range("bytes 9-5/6"), None);
        assert_eq!(parse_range("bytes 0-18446744073709551615/5"), None);
        assert_eq!(parse_range("items 5-9/10"), None);
        assert_eq!(parse_range("bytes x"), None);
    }
}
