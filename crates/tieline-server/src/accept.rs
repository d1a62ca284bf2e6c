//! Listeners, and connections that do nothing for too long.

mod admission;
mod eager;
mod patient;
mod refusal;
mod renewal;

use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::{fs, io};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use crate::doors::Peer;

pub(crate) use admission::Admissions;
pub(crate) use eager::Eager;
pub(crate) use patient::Patient;
pub(crate) use refusal::Refusals;
pub use renewal::Renewal;

/// Certificates and a key to encrypt with. Clones share them.
#[derive(Clone, Debug)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

/// Why a certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no certificate or no key in it.
    #[error("no certificate, or no key, in PEM form: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// They do not go together.
    #[error("the certificate and the key cannot be used")]
    Rustls(#[from] rustls::Error),
}

impl tieline_types::Hint for TlsError {}

impl Tls {
    /// A chain of certificates and a private key, both in PEM files.
    ///
    /// # Errors
    /// A file cannot be read, holds nothing of the kind, or they do not go together.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| TlsError::File { path: path.into(), source })
        };
        Self::from_pem(&read(chain)?, &read(key)?)
    }

    /// A chain of certificates and a private key, both in PEM form.
    ///
    /// # Errors
    /// They hold nothing of the kind, or do not go together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>()?;
        if chain.is_empty() {
            return Err(rustls::pki_types::pem::Error::NoItemsFound.into());
        }
        let key = PrivateKeyDer::from_pem_slice(key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self(Arc::new(RwLock::new(Arc::new(config)))))
    }

    /// What whoever comes now is encrypted with.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whoever comes from now on is encrypted with the certificates and the key of `other`.
    pub fn replace(&self, other: &Self) {
        let other = other.current();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = other;
    }
}

/// Where connections come in.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    pub(crate) tls: Option<Tls>,
    port: u16,
    pub(crate) loopback: bool,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// Bytes from and to somebody.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) type Boxed = Pin<Box<dyn Stream>>;

impl Listener {
    /// A bound listener. Whether only this machine reaches it is told by its address.
    ///
    /// # Errors
    /// It has no address, or there is no runtime to wait for it.
    pub fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let socket = Socket::Tcp(TcpListener::from_std(listener)?);
        let loopback = address.ip().to_canonical().is_loopback();
        Ok(Self { socket, tls: None, port: address.port(), loopback })
    }

    /// A bound socket in the file system. Who may reach it is told by its file's rights; it counts as this machine's.
    ///
    /// # Errors
    /// There is no runtime to wait for it.
    #[cfg(unix)]
    pub fn unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let socket = Socket::Unix(UnixListener::from_std(listener)?);
        Ok(Self { socket, tls: None, port: 80, loopback: true })
    }

    /// Encrypted.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Waits for somebody.
    pub(crate) async fn accept(&self) -> io::Result<(Boxed, Option<IpAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Small pieces of an answer are sent when they are there.
                stream.set_nodelay(true)?;
                Ok((Box::pin(stream), Some(address.ip().to_canonical())))
            }
            #[cfg(unix)]
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::pin(stream), None))
            }
        }
    }

    /// Whoever comes through here.
    pub(crate) fn peer(&self, address: Option<IpAddr>) -> Peer {
        Peer { address, port: self.port, loopback: self.loopback, tls: self.tls.is_some() }
    }
}
