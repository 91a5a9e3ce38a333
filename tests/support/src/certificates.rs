//! A certificate authority and what it signed, made anew for each test.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::Folder;

/// PEM files: an authority, a server certificate for `localhost` and `127.0.0.1`, and a client certificate.
#[derive(Debug)]
pub struct Certificates {
    pub ca: PathBuf,
    pub server: PathBuf,
    pub server_key: PathBuf,
    pub client: PathBuf,
    pub client_key: PathBuf,
    _folder: Folder,
}

impl Certificates {
    /// `client` is the common name of the client certificate: to PostgreSQL, the user's name.
    ///
    /// # Panics
    /// When they cannot be made or written.
    pub fn new(client: &str) -> Certificates {
        let folder = Folder::new("certificates");
        let mut ca = named("Towpath test authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, new_key()).expect("the authority's parameters are valid");

        let mut server =
            CertificateParams::new(["localhost".to_string(), "127.0.0.1".to_string()]).expect("these names are valid");
        server.distinguished_name.push(DnType::CommonName, "localhost");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut client = named(client);
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];

        let ca_path = folder.write("ca.pem", ca.pem());
        let (server, server_key) = sign(&folder, "server", server, &ca);
        let (client, client_key) = sign(&folder, "client", client, &ca);
        Certificates { ca: ca_path, server, server_key, client, client_key, _folder: folder }
    }
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}

fn sign(
    folder: &Folder,
    name: &str,
    params: CertificateParams,
    issuer: &CertifiedIssuer<'_, KeyPair>,
) -> (PathBuf, PathBuf) {
    let key = new_key();
    let certificate = params.signed_by(&key, issuer).expect("the parameters are valid");
    (folder.write(&format!("{name}.pem"), certificate.pem()), folder.write(&format!("{name}.key"), key.serialize_pem()))
}
