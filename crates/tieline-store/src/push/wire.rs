//! Speaks to one registry: is it there, take it, this is what it means.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};
use serde_json::Value;
use tieline_types::RegistryRef;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::content::{Blob, Source};
use super::error::PushError;
use super::{PushOptions, step};
use crate::pull::{Http, PullError, Tuning, chain, host, is_loopback, show};
use crate::registry::{self, MANIFEST};

const MOST_REDIRECTS: usize = 5;
/// How much of a file is read at once, in bytes.
const PIECE: usize = 256 * 1024;
/// How often it is told how much was sent, and looked whether more was.
const TICK: Duration = Duration::from_millis(100);
/// A registry that has all bytes checks them before it answers: it may take so many stalls' time.
const SETTLING: u32 = 10;
/// What is read of a registry's words about an error, in bytes.
const MOST_WORDS: usize = 8 * 1024;

/// A registry, and how it is spoken to.
pub(super) struct Wire<'a> {
    http: Http,
    place: &'a RegistryRef,
    /// The registry itself: the only one that is spoken to in http, where it is not all of this machine.
    origin: Url,
    tuning: Tuning,
    options: &'a PushOptions<'a>,
}

/// A request that can be sent again: to where it is redirected, or after a failure.
struct Ask<'a> {
    method: Method,
    url: Url,
    media_type: Option<&'static str>,
    body: What<'a>,
}

/// What is sent.
#[derive(Clone, Copy)]
enum What<'a> {
    Nothing,
    Text(&'a str),
    Blob(&'a Blob),
}

impl What<'_> {
    fn size(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Text(text) => text.len() as u64,
            Self::Blob(blob) => blob.size,
        }
    }
}

impl<'a> Wire<'a> {
    pub(super) fn new(
        place: &'a RegistryRef,
        options: &'a PushOptions<'a>,
    ) -> Result<Self, PushError> {
        let http = Http::new(options.environment).map_err(|error| match error {
            PullError::Client(source) => PushError::Client(source),
            _ => PushError::Stopped,
        })?;
        let scheme = if options.insecure { "http" } else { registry::scheme(place) };
        let nonsense = |problem| PushError::Nonsense { url: place.to_string(), problem };
        let origin = registry::url(scheme, place, ("blobs", &"")).map_err(nonsense)?;
        Ok(Self { http, place, origin, tuning: options.environment.tuning, options })
    }

    /// Sees to it that the registry has this file.
    pub(super) async fn send(&self, blob: &Blob) -> Result<(), PushError> {
        if !self.again(|| self.has(blob)).await? {
            self.again(|| self.upload(blob)).await?;
        }
        (self.options.tell)(step(blob, blob.size));
        Ok(())
    }

    /// Gives the tag its meaning.
    pub(super) async fn manifest(&self, text: &str) -> Result<(), PushError> {
        let url = self.url(("manifests", &self.place.tag()))?;
        let (method, media_type, body) = (Method::PUT, Some(MANIFEST), What::Text(text));
        let put = || async {
            let ask = Ask { method: method.clone(), url: url.clone(), media_type, body };
            self.success(self.ask(ask).await?).await.map(drop)
        };
        self.again(put).await
    }

    /// Tries again what may only have been a passing failure.
    async fn again<T, W: Future<Output = Result<T, PushError>>>(
        &self,
        attempt: impl Fn() -> W,
    ) -> Result<T, PushError> {
        let mut failures = 0;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            failures += 1;
            if failures >= self.tuning.attempts || !error.is_passing() {
                return Err(error);
            }
            tokio::time::sleep(self.tuning.retry_delay * 2_u32.pow(failures.min(6) - 1)).await;
        }
    }

    async fn has(&self, blob: &Blob) -> Result<bool, PushError> {
        let url = self.url(("blobs", &blob.digest))?;
        let ask = Ask { method: Method::HEAD, url, media_type: None, body: What::Nothing };
        let response = self.ask(ask).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            // Where the files lie elsewhere, that place need not answer this question.
            _ if response.url().origin() != self.origin.origin() => Ok(false),
            _ => self.success(response).await.map(|_| true),
        }
    }

    async fn upload(&self, blob: &Blob) -> Result<(), PushError> {
        let url = self.url(("blobs", &"uploads/"))?;
        let ask = Ask { method: Method::POST, url, media_type: None, body: What::Nothing };
        let begun = self.success(self.ask(ask).await?).await?;
        let mut url = location(&begun)?;
        url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let media_type = Some("application/octet-stream");
        let ask = Ask { method: Method::PUT, url, media_type, body: What::Blob(blob) };
        self.success(self.ask(ask).await?).await.map(drop)
    }

    fn url(&self, what: (&str, &dyn std::fmt::Display)) -> Result<Url, PushError> {
        let nonsense = |problem| PushError::Nonsense { url: self.place.to_string(), problem };
        registry::url(self.origin.scheme(), self.place, what).map_err(nonsense)
    }

    /// Asks, following redirects with the same method and body. There are no credentials that could go along.
    async fn ask(&self, mut ask: Ask<'_>) -> Result<Response, PushError> {
        for _ in 0..=MOST_REDIRECTS {
            self.check(&ask.url)?;
            let response = self.ask_once(&ask).await?;
            match response.status().as_u16() {
                307 | 308 => {}
                301..=303 if ask.method == Method::HEAD => {}
                _ => return Ok(response),
            }
            ask.url = location(&response)?;
        }
        let problem = "more than 5 redirects led to it";
        Err(PushError::Refused { url: show(&ask.url), problem })
    }

    async fn ask_once(&self, ask: &Ask<'_>) -> Result<Response, PushError> {
        let sent = Arc::new(AtomicU64::new(0));
        let mut request = self.http.client(&ask.url).request(ask.method.clone(), ask.url.clone());
        if let Some(media_type) = ask.media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        if ask.method != Method::HEAD {
            request = request.header(CONTENT_LENGTH, HeaderValue::from(ask.body.size()));
        }
        request = match ask.body {
            What::Nothing => request,
            What::Text(text) => request.body(text.to_owned()),
            What::Blob(blob) => request.body(body(blob, &sent).await?),
        };
        self.watched(request.send(), ask, &sent).await
    }

    /// Waits for an answer as long as something goes on.
    async fn watched(
        &self,
        work: impl Future<Output = reqwest::Result<Response>>,
        ask: &Ask<'_>,
        sent: &AtomicU64,
    ) -> Result<Response, PushError> {
        let mut work = pin!(work);
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            if let Ok(done) = tokio::time::timeout(TICK, &mut work).await {
                return done.map_err(|source| broken(&ask.url, source));
            }
            let now = sent.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
                if let What::Blob(blob) = ask.body {
                    (self.options.tell)(step(blob, now.min(blob.size)));
                }
            }
            let is_all_there = ask.body.size() > 0 && seen >= ask.body.size();
            let patience = self.tuning.stall * if is_all_there { SETTLING } else { 1 };
            if since.elapsed() > patience {
                return Err(PushError::Stalled {
                    url: show(&ask.url),
                    seconds: patience.as_secs(),
                });
            }
        }
    }

    /// Whether this address is spoken to: http only to the registry that was asked for, or within this machine.
    fn check(&self, url: &Url) -> Result<(), PushError> {
        let refuse = |problem| Err(PushError::Refused { url: show(url), problem });
        let is_here = || is_loopback(url) && is_loopback(&self.origin);
        match url.scheme() {
            "https" => {}
            "http" if url.origin() == self.origin.origin() || is_here() => {}
            "http" => return refuse("the registry leads to another host over http"),
            _ => return refuse("only https is spoken"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("it holds a user name or password");
        }
        Ok(())
    }

    /// Passes a successful answer on.
    async fn success(&self, response: Response) -> Result<Response, PushError> {
        let (status, url) = (response.status(), show(response.url()));
        if status.is_success() {
            return Ok(response);
        }
        let said = tokio::time::timeout(self.tuning.stall, words(response)).await;
        let said = said.unwrap_or_default().map_or_else(String::new, |said| format!(": {said}"));
        let status = status.as_u16();
        Err(match status {
            401 | 403 => PushError::Denied { url, status, said },
            _ => PushError::Status { url, status, said },
        })
    }
}

fn broken(url: &Url, source: reqwest::Error) -> PushError {
    let is_connect = source.is_connect();
    let why = chain(&source.without_url());
    match is_connect {
        true => PushError::Connect { host: host(url), why },
        false => PushError::Broke { url: show(url), why },
    }
}

/// Where an answer says to go on.
fn location(response: &Response) -> Result<Url, PushError> {
    let text = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let next = text.and_then(|text| response.url().join(text).ok());
    next.ok_or_else(|| PushError::Nonsense {
        url: show(response.url()),
        problem: "it does not say where to go on".to_owned(),
    })
}

/// What the registry says of an error, in one short line.
async fn words(mut response: Response) -> Option<String> {
    let mut body = Vec::new();
    while body.len() < MOST_WORDS
        && let Ok(Some(piece)) = response.chunk().await
    {
        body.extend_from_slice(&piece);
    }
    let value: Value = serde_json::from_slice(&body).ok()?;
    let text = value["errors"][0]["message"].as_str()?;
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    (!text.is_empty()).then_some(text)
}

/// The bytes of a file as they are asked for; `sent` counts them.
async fn body(blob: &Blob, sent: &Arc<AtomicU64>) -> Result<Body, PushError> {
    let path = match &blob.source {
        Source::Text(text) => {
            sent.store(blob.size, Ordering::Relaxed);
            return Ok(text.expose().to_owned().into());
        }
        Source::File(path) => path,
    };
    let file = open(path).await?.take(blob.size);
    let pieces = stream::try_unfold((file, Arc::clone(sent)), |(mut file, sent)| async move {
        let mut piece = vec![0; PIECE];
        let count = file.read(&mut piece).await?;
        piece.truncate(count);
        sent.fetch_add(count as u64, Ordering::Relaxed);
        Ok::<_, std::io::Error>((count > 0).then(|| (Bytes::from(piece), (file, sent))))
    });
    Ok(Body::wrap_stream(pieces))
}

async fn open(path: &Path) -> Result<File, PushError> {
    let failed = |source| PushError::Read { path: path.to_owned(), source };
    File::open(path).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull::Environment;

    /// Whether a push to `place` speaks to `url`, and how it begins.
    #[track_caller]
    fn check((place, insecure): (&str, bool), origin: &str, urls: &[(&str, Result<(), &str>)]) {
        let environment = Environment::new("https://hub.example");
        let options = PushOptions { environment: &environment, insecure, tell: &|_| {} };
        let place = place.parse().unwrap();
        let wire = Wire::new(&place, &options).unwrap();
        assert!(wire.origin.as_str().starts_with(origin), "{}", wire.origin);
        for (url, want) in urls {
            let found = wire.check(&Url::parse(url).unwrap()).map_err(|error| error.to_string());
            match want {
                Ok(()) => assert_eq!(found, Ok(()), "{url}"),
                Err(part) => assert!(found.as_ref().unwrap_err().contains(part), "{found:?}"),
            }
        }
    }

    #[test]
    fn http_is_for_this_machine_unless_somebody_says_so() {
        let (over_http, own) = (Err("another host over http"), "http://reg.example:5000/u");
        check(
            ("reg.example:5000/me/x", false),
            "https://reg.example:5000/",
            &[
                ("https://cdn.example/u", Ok(())),
                (own, over_http),
                ("http://127.0.0.1/u", over_http),
            ],
        );
        check(
            ("reg.example:5000/me/x", true),
            "http://reg.example:5000/",
            &[
                (own, Ok(())),
                ("http://cdn.example/u", over_http),
                ("http://127.0.0.1/u", over_http),
            ],
        );
        check(
            ("localhost:5000/me/x", false),
            "http://localhost:5000/",
            &[
                ("http://127.0.0.1:9/u", Ok(())),
                (own, over_http),
                ("file:///etc/x", Err("only https")),
            ],
        );
    }
}
