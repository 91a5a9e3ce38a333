//! TLS to the server: what is trusted, who we are, and what a login is bound to.

use std::path::Path;
use std::sync::Arc;

use ring::digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use towpath_contract::{Error, ErrorKind, Result};

use crate::config::TlsConfig;

/// What every handshake uses. The certificate and the full host name are always verified.
pub(crate) fn client_config(config: &TlsConfig) -> Result<Arc<ClientConfig>> {
    let roots = roots(config.ca.as_deref())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::bug("setting up TLS", error))?
        .with_root_certificates(roots);
    let client = match (&config.certificate, &config.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("private key", key, error))?;
            builder
                .with_client_auth_cert(chain, key_der)
                .map_err(|error| unreadable("client certificate", certificate, error))?
        }
        _ => {
            return Err(Error::operator(
                ErrorKind::Setup,
                "setting up TLS",
                "one of `tls.certificate` and `tls.key` is given without the other",
            )
            .with_help("give both, or none"));
        }
    };
    Ok(Arc::new(client))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unreadable("authority", path, error))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(Error::operator(
                    ErrorKind::Setup,
                    "setting up TLS",
                    "this system has no trusted certificate authorities",
                )
                .with_help("install the package ca-certificates, or name the authority's PEM file in `tls.ca`"));
            }
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable("certificate", path, error))?;
    if found.is_empty() {
        return Err(unreadable("certificate", path, "it holds none"));
    }
    Ok(found)
}

fn unreadable(what: &str, path: &Path, error: impl std::fmt::Display) -> Error {
    let message = format!("the {what} in {} cannot be used: {error}", path.display());
    Error::operator(ErrorKind::Storage, "setting up TLS", message)
        .with_help("give a PEM file that this process may read")
}

/// The server's certificate, hashed as SCRAM's channel binding `tls-server-end-point` wants it (RFC 5929, section 4.1).
/// `None` for signatures whose hash that RFC leaves open (Ed25519, RSA-PSS): the login is then not bound.
pub(crate) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (certificate_content, _) = der_value(certificate, 0x30)?;
    let (_, after_tbs) = der_value(certificate_content, 0x30)?;
    let (algorithm, _) = der_value(after_tbs, 0x30)?;
    let (oid, _) = der_value(algorithm, 0x06)?;
    const RSA_PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    // MD5 and SHA-1 are raised to SHA-256.
    let hash = match (oid, oid.split_last()) {
        (_, Some((4 | 5 | 11, RSA_PKCS1))) | (_, Some((2, ECDSA_SHA2))) | (ECDSA_SHA1, _) => &digest::SHA256,
        (_, Some((12, RSA_PKCS1))) | (_, Some((3, ECDSA_SHA2))) => &digest::SHA384,
        (_, Some((13, RSA_PKCS1))) | (_, Some((4, ECDSA_SHA2))) => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// The content of a DER element with this tag, and what follows it.
fn der_value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..0x80 => (usize::from(first), rest),
        _ => {
            let (digits, rest) =
                rest.split_at_checked(usize::from(first & 0x7f)).filter(|(digits, _)| digits.len() <= 4)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The outline of a certificate whose signature algorithm is `oid`.
    fn outline(oid: &[u8]) -> Vec<u8> {
        let algorithm = [&[0x30, oid.len() as u8 + 2, 0x06, oid.len() as u8], oid].concat();
        let body = [&[0x30, 0x81, 3, 1, 2, 3], &algorithm[..], &[0x03, 1, 0]].concat();
        [&[0x30, body.len() as u8], &body[..]].concat()
    }

    #[test]
    fn the_binding_uses_the_hash_of_the_certificates_signature() {
        for (oid, length) in [
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 11][..], Some(32)),
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 5], Some(32)),
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 13], Some(64)),
            (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3], Some(48)),
            (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], Some(32)),
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 10], None),
            (&[0x2b, 0x65, 0x70], None),
        ] {
            assert_eq!(server_end_point(&outline(oid)).map(|hash| hash.len()), length, "{oid:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_certificate_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = server_end_point(&bytes);
        }
    }

    #[test]
    fn a_key_without_its_certificate_is_refused() {
        let config = TlsConfig { key: Some("key.pem".into()), ca: None, ..TlsConfig::default() };
        // Either this machine has no authorities, or the pair is incomplete: an operator's error both ways.
        assert_eq!(client_config(&config).unwrap_err().kind, ErrorKind::Setup);
    }

    #[test]
    fn a_missing_authority_names_its_file() {
        let config = TlsConfig { ca: Some("/nowhere/ca.pem".into()), ..TlsConfig::default() };
        assert!(client_config(&config).unwrap_err().to_string().contains("/nowhere/ca.pem"));
    }
}
