//! Asks servers for files: who is trusted, which redirects are followed, when a token is sent.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Response, Url};

use super::error::{MirrorError, PullError};
use super::options::Environment;
use crate::model::shown;

const MOST_REDIRECTS: usize = 5;
/// The most of what is read into memory.
const MOST_BYTES: usize = 8 * 1024 * 1024;

#[derive(Clone, Debug)]
pub(crate) struct Http {
    world: Client,
    /// Never through a proxy: there, "this machine" would be another one.
    loopback: Client,
    stall: Duration,
}

/// One question. The token goes to the first server's origin only.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) token: Option<String>,
}

/// The last server's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// What the servers of the first origin said on the way.
    pub(crate) announced: HeaderMap,
}

impl Http {
    pub(crate) fn new(environment: &Environment) -> Result<Self, PullError> {
        // Whoever installed one before us in this process chose it; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let world = builder(environment).build().map_err(PullError::Client)?;
        let loopback = builder(environment).no_proxy().build().map_err(PullError::Client)?;
        Ok(Self { world, loopback, stall: environment.tuning.stall })
    }

    /// Asks, following redirects. An answer other than success is not an error here.
    pub(crate) async fn get(&self, question: Question) -> Result<Answer, MirrorError> {
        let origin = question.url.origin();
        let mut url = question.url;
        let mut announced = HeaderMap::new();
        for _ in 0..=MOST_REDIRECTS {
            check_url(&url)?;
            let at_origin = url.origin() == origin;
            let token = question.token.as_deref().filter(|_| at_origin);
            let response = self.ask(&url, question.headers.clone(), token).await?;
            if at_origin {
                announced.extend(response.headers().clone());
            }
            match target(&url, &response)? {
                Some(next) if url.scheme() == "https" && next.scheme() != "https" => {
                    let problem = "a redirect leads from https to http";
                    return Err(MirrorError::Refused { url: show(&next), problem });
                }
                Some(next) => url = next,
                None => return Ok(Answer { response, announced }),
            }
        }
        Err(MirrorError::Refused { url: show(&url), problem: "more than 5 redirects led to it" })
    }

    /// Asks for JSON.
    pub(crate) async fn json(&self, question: Question) -> Result<serde_json::Value, MirrorError> {
        let url = show(&question.url);
        serde_json::from_slice(&self.bytes(question).await?)
            .map_err(|error| MirrorError::Nonsense { url, problem: error.to_string() })
    }

    /// Asks for something small and reads a bounded amount of it.
    pub(crate) async fn bytes(&self, question: Question) -> Result<Vec<u8>, MirrorError> {
        let url = show(&question.url);
        let mut response = success(&url, self.get(question).await?.response)?;
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&url, &mut response).await? {
            if body.len() + piece.len() > MOST_BYTES {
                return Err(MirrorError::Nonsense { url, problem: "it is too long".to_owned() });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    async fn piece(
        &self,
        url: &str,
        response: &mut Response,
    ) -> Result<Option<bytes::Bytes>, MirrorError> {
        match tokio::time::timeout(self.stall, response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(source)) => Err(transfer(url, source)),
            Err(_) => Err(self.stalled(url)),
        }
    }

    pub(crate) fn stalled(&self, url: &str) -> MirrorError {
        MirrorError::Stalled { url: url.to_owned(), seconds: self.stall.as_secs() }
    }

    /// The client for this URL. It follows no redirect by itself.
    pub(crate) fn client(&self, url: &Url) -> &Client {
        if is_loopback(url) { &self.loopback } else { &self.world }
    }

    async fn ask(
        &self,
        url: &Url,
        headers: HeaderMap,
        token: Option<&str>,
    ) -> Result<Response, MirrorError> {
        let mut request = self.client(url).get(url.clone()).headers(headers);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, secret(url, token)?);
        }
        match tokio::time::timeout(self.stall, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) if source.is_connect() => {
                Err(MirrorError::Connect { host: host(url), source: source.without_url() })
            }
            Ok(Err(source)) => Err(transfer(&show(url), source)),
            Err(_) => Err(self.stalled(&show(url))),
        }
    }
}

/// The system's certificates are always trusted, and `SSL_CERT_FILE` replaces them; the bundled ones
/// help where the system has none.
fn builder(environment: &Environment) -> ClientBuilder {
    let bundled = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .filter_map(|der| Certificate::from_der(der).ok());
    Client::builder()
        .tls_certs_merge(bundled)
        .redirect(Policy::none())
        .connect_timeout(environment.connect_timeout)
        .user_agent(concat!("tieline/", env!("CARGO_PKG_VERSION")))
}

/// Reads a URL that a user or a server wrote.
pub(crate) fn parse_url(text: &str) -> Result<Url, MirrorError> {
    let nonsense = |error| MirrorError::Nonsense {
        url: shown(text).chars().take(200).collect(),
        problem: format!("it is no URL: {error}"),
    };
    Url::parse(text).map_err(nonsense)
}

fn check_url(url: &Url) -> Result<(), MirrorError> {
    let refuse = |problem| Err(MirrorError::Refused { url: show(url), problem });
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(url) => {}
        "http" => return refuse("http is for this machine only, elsewhere use https"),
        _ => return refuse("only https is fetched"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("it holds a user name or password");
    }
    Ok(())
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where a redirect leads.
fn target(url: &Url, response: &Response) -> Result<Option<Url>, MirrorError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let next = location.and_then(|text| url.join(text).ok());
    next.map(Some).ok_or_else(|| MirrorError::Nonsense {
        url: show(url),
        problem: "it is a redirect to nowhere".to_owned(),
    })
}

/// Passes a successful answer on.
pub(crate) fn success(url: &str, response: Response) -> Result<Response, MirrorError> {
    match response.status() {
        status if status.is_success() => Ok(response),
        status => Err(MirrorError::Status { url: url.to_owned(), status: status.as_u16() }),
    }
}

pub(crate) fn transfer(url: &str, source: reqwest::Error) -> MirrorError {
    MirrorError::Transfer { url: url.to_owned(), source: source.without_url() }
}

/// The bytes themselves, not a packed form of them: ranges and lengths count those.
pub(crate) fn plain_headers() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))])
}

fn secret(url: &Url, token: &str) -> Result<HeaderValue, MirrorError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
        MirrorError::Refused { url: show(url), problem: "the access token has odd characters" }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

pub(crate) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A URL for messages: what follows `?` may be a signature.
pub(crate) fn show(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), host(url), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, want: Result<(), &str>) {
        let found = check_url(&Url::parse(url).unwrap()).map_err(|error| error.to_string());
        match want {
            Ok(()) => assert_eq!(found, Ok(())),
            Err(part) => assert!(found.as_ref().unwrap_err().contains(part), "{found:?}"),
        }
    }

    #[test]
    fn http_is_for_this_machine() {
        check("https://a.example/x", Ok(()));
        check("http://127.0.0.1:80/x", Ok(()));
        check("http://127.9.9.9/x", Ok(()));
        check("http://[::1]:80/x", Ok(()));
        check("http://localhost/x", Ok(()));
        check("http://localhost.evil.example/x", Err("this machine only"));
        check("http://127.0.0.1.evil.example/x", Err("this machine only"));
        check("http://10.0.0.1/x", Err("this machine only"));
        check("ftp://a.example/x", Err("only https"));
        check("file:///etc/passwd", Err("only https"));
        check("https://user@a.example/x", Err("user name"));
    }

    #[test]
    fn messages_hold_no_signature() {
        let error = parse_url("https://a.example:port/f.gguf?sig=1").unwrap_err().to_string();
        assert!(error.contains("a.example") && !error.contains("sig"), "{error}");
        let url = Url::parse("https://user:pw@a.example:99/f.gguf?sig=1#x").unwrap();
        assert_eq!(show(&url), "https://a.example:99/f.gguf");
    }
}
