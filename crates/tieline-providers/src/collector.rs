//! A collector of OpenTelemetry: takes spans by OTLP over HTTP, as JSON.

use std::time::Duration;

use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use tieline_types::Zone;

use crate::endpoint::Endpoint;
use crate::http::{self, EndpointError, Transport};

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where spans are sent.
#[derive(Debug)]
pub struct Collector {
    client: Client,
    url: reqwest::Url,
}

impl Collector {
    /// The collector at this base URL, such as `http://127.0.0.1:4318`: spans go to `/v1/traces` there.
    ///
    /// # Errors
    /// It is no URL, or plain HTTP beyond this machine and its network.
    pub fn new(base: &str, transport: &Transport) -> Result<Self, EndpointError> {
        let endpoint = Endpoint {
            name: "the collector".to_owned(),
            zone: Zone::Lan,
            base_url: base.trim_end_matches('/').to_owned(),
            key: None,
            model: String::new(),
            headers: Vec::new(),
            connect: PATIENCE,
        };
        http::parse(&endpoint)?;
        let url = http::join(&endpoint, "/v1/traces")?;
        Ok(Self { client: transport.client(&endpoint)?, url })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Nobody took it, in a few words without the URL.
    pub async fn send(&self, body: Vec<u8>) -> Result<(), String> {
        let request = self.client.post(self.url.clone()).timeout(PATIENCE).body(body);
        match request.header(CONTENT_TYPE, "application/json").send().await {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(format!("the collector said {}", response.status().as_u16())),
            Err(error) => Err(error.without_url().to_string()),
        }
    }
}
