//! The key pair that signs tokens, and the certificate in which the registry wants the public half.
//!
//! distribution 2.8 reads a bundle of certificates and trusts their keys by fingerprint: libtrust's key id, which a token names in its header. The
//! certificate is a wrapper and nothing more: it is self-signed, names nobody, and its dates are not looked at for a key that is named by its id.

use ring::{
    digest::{SHA256, digest},
    error::{KeyRejected, Unspecified},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};

/// Object identifiers, encoded.
const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const PRIME256V1: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ECDSA_WITH_SHA256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];

/// A new private key, as PKCS #8.
///
/// # Errors
/// The operating system gives no randomness.
pub fn new_key() -> Result<Vec<u8>, Unspecified> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
    Ok(document.as_ref().to_vec())
}

/// The key pair for tokens: its signatures are two numbers of 32 bytes, as JWS wants them.
///
/// # Errors
/// It is no such key.
pub fn token_key(pkcs8: &[u8]) -> Result<EcdsaKeyPair, KeyRejected> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new())
}

/// libtrust's id of the public key: the first 240 bits of its SHA-256, in base32, in groups of four.
pub fn key_id(pair: &EcdsaKeyPair) -> String {
    let sum = digest(&SHA256, &public_key_info(pair));
    let text = data_encoding::BASE32_NOPAD.encode(&sum.as_ref()[..30]);
    let groups: Vec<String> = text.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    groups.join(":")
}

/// A certificate for the key, in PEM.
///
/// # Errors
/// It is no such key, or there is no randomness.
pub fn self_signed(pkcs8: &[u8]) -> Result<String, String> {
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &random).map_err(|error| error.to_string())?;
    let algorithm = sequence(&[ECDSA_WITH_SHA256]);
    let name = sequence(&[&tagged(0x31, &sequence(&[COMMON_NAME, &tagged(0x0c, b"xtao")]))]);
    // From 2020 to the end of time as certificates know it (RFC 5280, 4.1.2.5).
    let validity = sequence(&[&tagged(0x17, b"200101000000Z"), &tagged(0x18, b"99991231235959Z")]);
    let version = tagged(0xa0, &tagged(0x02, &[2]));
    let serial = tagged(0x02, &[1]);
    let body = sequence(&[&version, &serial, &algorithm, &name, &validity, &name, &public_key_info(&pair)]);
    let signature = pair.sign(&random, &body).map_err(|Unspecified| "the operating system gives no random numbers".to_owned())?;
    let certificate = sequence(&[&body, &algorithm, &bits(signature.as_ref())]);
    let text = data_encoding::BASE64.encode(&certificate);
    let lines: Vec<String> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    Ok(format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n")))
}

/// SubjectPublicKeyInfo.
fn public_key_info(pair: &EcdsaKeyPair) -> Vec<u8> {
    sequence(&[&sequence(&[EC_PUBLIC_KEY, PRIME256V1]), &bits(pair.public_key().as_ref())])
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    tagged(0x03, &[&[0], bytes].concat())
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(0x30, &parts.concat())
}

/// DER: tag, length, contents. Ours have less than 64 KiB.
fn tagged(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut bytes = vec![tag];
    match length {
        0..0x80 => bytes.push(length as u8),
        0x80..0x100 => bytes.extend([0x81, length as u8]),
        _ => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    bytes.extend_from_slice(contents);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_key_has_libtrusts_form() {
        let key = new_key().unwrap();
        let id = key_id(&token_key(&key).unwrap());
        let groups: Vec<&str> = id.split(':').collect();
        assert!(groups.len() == 12 && groups.iter().all(|group| group.len() == 4), "{id}");
        assert_eq!(id, key_id(&token_key(&key).unwrap()));
    }

    #[test]
    fn a_certificate_is_text_between_its_marks() {
        let certificate = self_signed(&new_key().unwrap()).unwrap();
        assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----\nMII") || certificate.starts_with("-----BEGIN CERTIFICATE-----\nMI"));
        assert!(certificate.lines().all(|line| line.len() <= 64));
        assert!(self_signed(b"no key").is_err());
    }
}
