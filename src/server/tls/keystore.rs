//! What a keystore file holds: a certificate, its chain and its key. PEM, or PKCS#12 with a password (of OpenSSL, of Java, also with their older ciphers).
//! Pure.

use p12_keystore::Pkcs12Archive;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

/// What a Java keystore begins with.
const JKS: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];

/// What every ASN.1 structure of that size begins with: a PKCS#12 keystore, or a certificate that is not in PEM.
const ASN1: u8 = 0x30;

/// A certificate with its key.
#[derive(Debug)]
pub struct Keystore {
    /// The certificate, then those that signed it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The certificate's key.
    pub key: PrivateKeyDer<'static>,
}

impl Keystore {
    /// Reads a file's content. `password`: of a PKCS#12 keystore.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn read(content: &[u8], password: Option<&str>) -> Result<Self, String> {
        if content.starts_with(&JKS) {
            return Err(
                "keystores in Java's own form (JKS) are not read; convert it to PKCS#12: keytool -importkeystore -srckeystore KEYSTORE \
                        -destkeystore FILE -deststoretype pkcs12"
                    .into(),
            );
        }
        if content.first() == Some(&ASN1) { pkcs12(content, password) } else { pem(content) }
    }
}

fn pem(content: &[u8]) -> Result<Keystore, String> {
    let chain =
        CertificateDer::pem_slice_iter(content).collect::<Result<Vec<_>, _>>().map_err(|error| format!("it is damaged: {error}"))?;
    if chain.is_empty() {
        return Err("it has no certificate (-----BEGIN CERTIFICATE-----)".into());
    }
    let key = PrivateKeyDer::from_pem_slice(content).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            "it has no key (-----BEGIN PRIVATE KEY-----), or one behind a password: put the key without a password into the same file, or all \
             into a PKCS#12 keystore: openssl pkcs12 -export -in FILE -out KEYSTORE"
                .into()
        }
        error => format!("its key is damaged: {error}"),
    })?;
    Ok(Keystore { chain, key })
}

fn pkcs12(content: &[u8], password: Option<&str>) -> Result<Keystore, String> {
    let archive = Pkcs12Archive::from_pkcs12(content, password.unwrap_or_default()).map_err(|error| match (error, password) {
        (p12_keystore::error::Error::MacError(_), None) => "it has a password: give it with --ssl_keystore_password".to_owned(),
        (p12_keystore::error::Error::MacError(_), Some(_)) => "its password is another one, or it is damaged".to_owned(),
        (error, _) => format!("it is neither PEM nor a PKCS#12 keystore that can be read: {error}"),
    })?;
    let key = archive.keys.first().ok_or("it has no key")?;
    let id = key.local_key_id.as_ref().map(AsRef::as_ref);
    let own = archive.certs.iter().position(|bag| id.is_some() && bag.local_key_id.as_deref() == id);
    let own = &archive.certs.get(own.unwrap_or_default()).ok_or("it has no certificate")?.cert;
    // In the order in which each is signed by the next, whatever the order in the file is.
    let mut chain = vec![own];
    while let Some(next) =
        chain.last().and_then(|last| archive.certs.iter().map(|bag| &bag.cert).find(|cert| cert.subject() == last.issuer()))
    {
        if chain.contains(&next) {
            break;
        }
        chain.push(next);
    }
    let chain = chain.into_iter().map(|cert| CertificateDer::from(cert.as_der().to_vec())).collect();
    Ok(Keystore { chain, key: PrivatePkcs8KeyDer::from(key.key.as_der().to_vec()).into() })
}
