//! A server whose certificate only `SSL_CERT_FILE` vouches for.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::probe::Probe;
use crate::server::{Reply, Server, file};
use crate::world::{digest, model};

/// A server's configuration, and the certificate that vouches for it.
fn identity() -> (Arc<rustls::ServerConfig>, String) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (Arc::new(config), issuer.pem())
}

#[test]
fn the_system_s_certificates_decide() {
    let (config, authority) = identity();
    let body = model(200_000);
    let want = digest(&body);
    let plain = Server::start(|_| Reply::new(200, "x"));
    let down = plain.url("/down");
    let server = Server::start_with(
        move |asked| match asked.path.as_str() {
            "/down" => Reply::redirect(&down),
            _ => file(asked, &body, "\"1\""),
        },
        Some(config),
    );
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("ca.pem");
    std::fs::write(&trusted, authority).unwrap();
    let probe = |path: &str| Probe::new(&folder.path().join("store"), &server.url(path));

    let said = probe("/a.gguf").run();
    assert!(said.contains("ERR") && said.contains("invalid peer certificate"), "{said}");
    let said = probe("/a.gguf").env("SSL_CERT_FILE", trusted.to_str().unwrap()).run();
    assert!(said.contains(&format!("OK {want}")), "{said}");
    let said = probe("/down").env("SSL_CERT_FILE", trusted.to_str().unwrap()).run();
    assert!(said.contains("a redirect leads from https to http"), "{said}");
    assert!(plain.asked().is_empty());
}
