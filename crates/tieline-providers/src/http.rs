//! Posts to vendors: who is trusted, what a connection may cost, and that nothing is followed or kept.
//!
//! No redirect is followed (the body and the key would go with it), there are no cookies, and answers are not
//! packed. A backend on this machine or the local network is never reached through a proxy: that would be another
//! zone. URLs come from the configuration and are never logged.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, Url};
use tieline_types::Zone;

use crate::endpoint::Endpoint;
use crate::protocol::Written;

/// The most bytes that are read of an error's body.
const MOST_ERROR_BYTES: usize = 64 * 1024;

/// A backend that cannot be asked as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The URL is none, or one that must not be used.
    #[error("the URL of the backend {backend} cannot be used: {problem}")]
    Url {
        /// The backend.
        backend: String,
        /// What is wrong; without the URL, which may hold a secret.
        problem: &'static str,
    },
    /// A header or the key has characters that no header can have.
    #[error("the key or a header of the backend {0} has characters that cannot be sent")]
    Header(String),
    /// The system cannot make TLS connections.
    #[error("cannot prepare connections to the backend {backend}")]
    Client {
        /// The backend.
        backend: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
}

/// All connections to vendors. Share one: connections are kept and used again.
#[derive(Debug, Default)]
pub struct Transport {
    clients: Mutex<HashMap<(Duration, bool), Client>>,
}

impl Transport {
    /// No connections yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The client for a backend. Those that may take the same time to connect share one.
    pub(crate) fn client(&self, endpoint: &Endpoint) -> Result<Client, EndpointError> {
        let near = match endpoint.zone {
            Zone::Host | Zone::Lan => true,
            Zone::CloudZeroRetention | Zone::Cloud => is_loopback(&parse(endpoint)?),
        };
        let key = (endpoint.connect, near);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = build(endpoint.connect, near)
            .map_err(|source| EndpointError::Client { backend: endpoint.name.clone(), source })?;
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// The system's certificates are always trusted, and `SSL_CERT_FILE` replaces them; the bundled ones help where
/// the system has none.
fn build(connect: Duration, near: bool) -> Result<Client, reqwest::Error> {
    // Whoever installed one before us in this process chose it; either will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bundled = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .filter_map(|der| Certificate::from_der(der).ok());
    let builder = Client::builder()
        .tls_certs_merge(bundled)
        .redirect(Policy::none())
        .connect_timeout(connect)
        .http2_max_header_list_size(64 * 1024)
        .referer(false)
        .user_agent(concat!("tieline/", env!("CARGO_PKG_VERSION")));
    if near { builder.no_proxy().build() } else { builder.build() }
}

/// The base URL, checked.
pub(crate) fn parse(endpoint: &Endpoint) -> Result<Url, EndpointError> {
    let refuse = |problem| Err(EndpointError::Url { backend: endpoint.name.clone(), problem });
    let Ok(url) = Url::parse(&endpoint.base_url) else { return refuse("it is no URL") };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("it holds a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("it holds a query; keys belong to the backend's `key`");
    }
    let cloud = matches!(endpoint.zone, Zone::Cloud | Zone::CloudZeroRetention);
    match url.scheme() {
        "https" => Ok(url),
        "http" if !cloud || is_loopback(&url) => Ok(url),
        "http" => refuse("http is for this machine and the local network, elsewhere use https"),
        _ => refuse("only https and http are spoken"),
    }
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where `path` of the protocol is, at an endpoint whose base was [checked](parse).
pub(crate) fn join(endpoint: &Endpoint, path: &str) -> Result<Url, EndpointError> {
    let text = format!("{}{path}", endpoint.base_url.trim_end_matches('/'));
    Url::parse(&text).map_err(|_| EndpointError::Url {
        backend: endpoint.name.clone(),
        problem: "with the protocol's path it is no URL",
    })
}

/// All headers: the protocol's, then the user's in their place.
pub(crate) fn headers(endpoint: &Endpoint, written: &Written) -> Result<HeaderMap, EndpointError> {
    let fault = || EndpointError::Header(endpoint.name.clone());
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let written = written.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let configured = endpoint.headers.iter().map(|(name, value)| (name.as_str(), value.expose()));
    for (name, value) in written.chain(configured) {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| fault())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| fault())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The JSON of an error's body, where it is short and JSON.
pub(crate) async fn error_body(mut response: Response) -> Option<serde_json::Value> {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        if body.len() + piece.len() > MOST_ERROR_BYTES {
            return None;
        }
        body.extend_from_slice(&piece);
    }
    serde_json::from_slice(&body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Secret;

    fn endpoint(zone: Zone, base_url: &str) -> Endpoint {
        Endpoint {
            name: "v/m".to_owned(),
            zone,
            base_url: base_url.to_owned(),
            key: Some(Secret::new("CANARY")),
            model: "m".to_owned(),
            headers: Vec::new(),
            connect: Duration::from_secs(5),
        }
    }

    #[track_caller]
    fn check(zone: Zone, url: &str, want: Result<&str, &str>) {
        let endpoint = endpoint(zone, url);
        let found = parse(&endpoint).and_then(|_| join(&endpoint, "/chat"));
        let found = found.map(|url| url.to_string());
        match want {
            Ok(want) => assert_eq!(found.unwrap(), want),
            Err(part) => {
                let error = found.unwrap_err().to_string();
                assert!(error.contains(part) && !error.contains("CANARY"), "{error}");
            }
        }
    }

    #[test]
    fn the_cloud_is_reached_with_tls_only() {
        check(Zone::Cloud, "https://a.example/v1/", Ok("https://a.example/v1/chat"));
        check(Zone::Cloud, "http://a.example/v1", Err("use https"));
        check(Zone::CloudZeroRetention, "http://10.0.0.1/v1", Err("use https"));
        check(Zone::Cloud, "http://127.0.0.1:8/v1", Ok("http://127.0.0.1:8/v1/chat"));
        check(Zone::Lan, "http://10.0.0.1:8000/v1", Ok("http://10.0.0.1:8000/v1/chat"));
        check(Zone::Host, "ftp://localhost/v1", Err("only https"));
    }

    #[test]
    fn a_url_holds_no_secret() {
        check(Zone::Cloud, "https://u:CANARY@a.example", Err("user name"));
        check(Zone::Cloud, "https://a.example/v1?key=CANARY", Err("query"));
        check(Zone::Cloud, "CANARY", Err("no URL"));
    }

    #[test]
    fn headers_show_no_secret() {
        let written = Written {
            path: String::new(),
            headers: vec![("authorization", "Bearer CANARY".to_owned())],
            body: serde_json::Value::Null,
            whole: false,
            warnings: Vec::new(),
        };
        let mut endpoint = endpoint(Zone::Cloud, "https://a.example");
        endpoint.headers.push(("x-title".to_owned(), Secret::new("CANARY")));
        let headers = headers(&endpoint, &written).unwrap();
        assert_eq!(headers["x-title"], "CANARY");
        assert!(!format!("{headers:?}{endpoint:?}").contains("CANARY"));
        endpoint.headers.push(("x".to_owned(), Secret::new("a\nb")));
        assert!(super::headers(&endpoint, &written).is_err());
    }

    #[test]
    fn backends_share_connections() {
        let transport = Transport::new();
        for name in ["https://a.example", "https://b.example"] {
            transport.client(&endpoint(Zone::Cloud, name)).unwrap();
        }
        assert_eq!(transport.clients.lock().unwrap().len(), 1);
        transport.client(&endpoint(Zone::Lan, "http://10.0.0.1")).unwrap();
        assert_eq!(transport.clients.lock().unwrap().len(), 2);
    }
}
