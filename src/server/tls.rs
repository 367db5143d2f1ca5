//! TLS for the API: the certificate, its chain and its key out of one PEM file, read at the start. TLS 1.2 and 1.3, with rustls and ring.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// Largest file that is read.
const MAX_BYTES: u64 = 1024 * 1024;

/// What a Java keystore begins with.
const JKS: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];

/// What every ASN.1 structure of that size begins with: a PKCS#12 keystore, or a certificate that is not in PEM.
const ASN1: u8 = 0x30;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[error("--ssl_keystore_path {}: {reason}", path.display())]
pub struct TlsError {
    path: PathBuf,
    reason: String,
}

/// Reads `path` and makes of it what TLS connections are accepted with.
///
/// # Errors
/// A file that cannot be read, is no PEM, lacks a certificate or a key, or has two that do not belong together.
pub fn acceptor(path: &Path) -> Result<TlsAcceptor, TlsError> {
    let failed = |reason: String| TlsError { path: path.to_owned(), reason };
    let pem = read(path).map_err(|error| failed(format!("it cannot be read: {error}")))?;
    let config = config(&pem).map_err(failed)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_BYTES {
        return Err(io::Error::other(format!("it has {size} bytes, more than any certificate")));
    }
    std::fs::read(path)
}

fn config(pem: &[u8]) -> Result<ServerConfig, String> {
    if pem.starts_with(&JKS) || pem.first() == Some(&ASN1) {
        return Err("keystores of Java (JKS) and PKCS#12 are not read by this version; convert it to PEM: \
                    openssl pkcs12 -in KEYSTORE -out FILE -nodes"
            .into());
    }
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|error| format!("it is damaged: {error}"))?;
    if chain.is_empty() {
        return Err("it has no certificate (-----BEGIN CERTIFICATE-----)".into());
    }
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            "it has no key (-----BEGIN PRIVATE KEY-----), or one behind a password: put the key without a password into the same file"
                .into()
        }
        error => format!("its key is damaged: {error}"),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| format!("certificate and key cannot be used: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_is_no_certificate_with_its_key_is_refused_in_words() {
        let (certificate, key) = pair();
        let (_, other) = pair();
        let check = |content: &[u8], expected: &str| {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("server.pem");
            std::fs::write(&file, content).unwrap();
            let found = acceptor(&file).map_or_else(|error| error.to_string(), |_| "good".into());
            let found = found.replace(file.to_str().unwrap(), "FILE");
            assert!(found.contains(expected), "{found}");
        };
        check(format!("{certificate}{key}").as_bytes(), "good");
        check(format!("{key}{certificate}").as_bytes(), "good");
        check(b"", "--ssl_keystore_path FILE: it has no certificate");
        check(certificate.as_bytes(), "it has no key");
        check(key.as_bytes(), "it has no certificate");
        check(format!("{certificate}{other}").as_bytes(), "certificate and key cannot be used");
        check(&[0x30, 0x82, 1, 2], "openssl pkcs12 -in KEYSTORE");
        check(&[0xfe, 0xed, 0xfe, 0xed, 0], "Java");
        check(b"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n", "it is damaged");
        let missing = acceptor(Path::new("/nowhere/server.pem")).map(|_| ()).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "--ssl_keystore_path /nowhere/server.pem: it cannot be read: No such file or directory (os error 2)"
        );
    }
}
