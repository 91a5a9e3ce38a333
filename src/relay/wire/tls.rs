//! TLS to the broker: the server's certificate and name are always verified.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use towpath_contract::{Error, ErrorKind, Result};

/// Authorities and our own certificate, read once at start.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    pub(crate) config: Arc<ClientConfig>,
    /// For lapin, which wants to make its own `ClientConfig`.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    pub(crate) identity: Option<Arc<Identity>>,
}

pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(***)")
    }
}

impl TlsSettings {
    /// `ca`: PEM file of the authorities to trust, instead of the system's. `certificate` and `key`: PEM files of the client's
    /// certificate chain and private key, both or neither.
    ///
    /// # Errors
    /// A file that cannot be read or holds no PEM of its kind, one of the pair without the other, a key that does not belong to
    /// the certificate, a system without authorities.
    pub fn load(ca: Option<&PathBuf>, certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> Result<TlsSettings> {
        let authorities = match ca {
            Some(path) => certificates(path, "tls.ca")?,
            None => system_authorities()?,
        };
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                for authority in &authorities {
                    roots.add(authority.clone()).map_err(|why| file_fault("tls.ca", path, why))?;
                }
            }
            // A system's bundle may hold a few that rustls refuses; the others count.
            None => _ = roots.add_parsable_certificates(authorities.iter().cloned()),
        }
        let identity = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate, "tls.certificate")?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|why| file_fault("tls.key", key, why))?;
                Some(Arc::new(Identity { chain, key }))
            }
            _ => {
                let message = "one of `certificate` and `key` is given without the other";
                return Err(Error::operator(ErrorKind::Setup, "reading rabbitmq.tls", message)
                    .with_help("give both for a client certificate, or neither"));
            }
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| Error::bug("setting up TLS", why))?
            .with_root_certificates(roots);
        let config = match &identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).map_err(|why| {
                    Error::operator(ErrorKind::Setup, "reading rabbitmq.tls", why)
                        .with_help("check that `key` is the private key of the first certificate in `certificate`")
                })?
            }
        };
        Ok(TlsSettings { config: Arc::new(config), authorities, identity })
    }
}

fn certificates(path: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found = found.map_err(|why| file_fault(option, path, why))?;
    match found.is_empty() {
        true => Err(file_fault(option, path, "no certificate in it")),
        false => Ok(found),
    }
}

fn file_fault(option: &str, path: &Path, why: impl std::fmt::Display) -> Error {
    Error::operator(ErrorKind::Storage, format!("reading rabbitmq.{option}, {}", path.display()), why)
        .with_help("it must be a readable PEM file")
}

fn system_authorities() -> Result<Vec<CertificateDer<'static>>> {
    let loaded = rustls_native_certs::load_native_certs();
    match loaded.certs.is_empty() {
        false => Ok(loaded.certs),
        true => {
            Err(Error::operator(ErrorKind::Setup, "reading the system's certificate authorities", "none was found")
                .with_help("install ca-certificates, or name a PEM file in rabbitmq.tls.ca"))
        }
    }
}
