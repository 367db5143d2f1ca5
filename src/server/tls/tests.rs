//! Keystores as OpenSSL makes them, and what happens when the file changes.

use std::{process::Command, sync::Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use warp::Filter;

use super::*;
use crate::api::{
    Limits,
    server::{Listener, serve_filter},
};

/// A certificate for `localhost`, and its key.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// A certificate signed by an authority: the certificate, the authority's, and the key.
fn signed() -> (String, String, String) {
    let named = |name: &str| {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut authority = named("authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = named("localhost").signed_by(&key, &authority).unwrap();
    (cert.pem(), authority.pem(), key.serialize_pem())
}

fn openssl(directory: &Path, words: &str) {
    let done = Command::new("openssl").args(words.split(' ')).current_dir(directory).output();
    let done = done.expect("these tests need the program openssl (Debian: apt-get install openssl)");
    assert!(done.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn what_is_no_certificate_with_its_key_is_refused_in_words() {
    let (certificate, key) = pair();
    let (_, other) = pair();
    let check = |content: &[u8], expected: &str| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("server.pem");
        std::fs::write(&file, content).unwrap();
        let found = acceptor(&file, None).map_or_else(|error| error.to_string(), |_| "good".into());
        let found = found.replace(file.to_str().unwrap(), "FILE");
        assert!(found.contains(expected), "{found}");
    };
    check(format!("{certificate}{key}").as_bytes(), "good");
    check(format!("{key}{certificate}").as_bytes(), "good");
    check(b"", "--ssl_keystore_path FILE: it has no certificate");
    check(certificate.as_bytes(), "it has no key");
    check(key.as_bytes(), "it has no certificate");
    check(format!("{certificate}{other}").as_bytes(), "certificate and key cannot be used");
    check(&[0x30, 0x82, 1, 2], "it is neither PEM nor a PKCS#12 keystore that can be read");
    check(&[0xfe, 0xed, 0xfe, 0xed, 0], "keytool -importkeystore");
    check(b"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n", "it is damaged");
    check(&vec![b'-'; MAX_BYTES as usize + 1], "more than any certificate");
    let missing = acceptor(Path::new("/nowhere/server.pem"), None).map(|_| ()).unwrap_err();
    assert_eq!(missing.to_string(), "--ssl_keystore_path /nowhere/server.pem: it cannot be read: No such file or directory (os error 2)");
}

#[test]
fn keystores_of_openssl_are_read_with_their_password() {
    let (certificate, authority, key) = signed();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    // What is first in the file is not what it begins with.
    std::fs::write(directory.join("all.pem"), format!("{authority}{certificate}{key}")).unwrap();
    std::fs::write(directory.join("key.pem"), &key).unwrap();
    std::fs::write(directory.join("authority.pem"), &authority).unwrap();
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    for (options, password) in
        [("", "secret"), ("-legacy ", "secret"), ("-keypbe AES-128-CBC -certpbe NONE -macalg sha512 ", "pässwörd"), ("", "")]
    {
        openssl(
            directory,
            &format!("pkcs12 -export {options}-in all.pem -inkey key.pem -name web -out store.p12 -passout pass:{password}"),
        );
        let content = std::fs::read(directory.join("store.p12")).unwrap();
        let read = Keystore::read(&content, Some(password)).unwrap_or_else(|error| panic!("{options}: {error}"));
        assert_eq!(read.chain, [der(&certificate), der(&authority)], "{options}");
        server_config(read).unwrap();
        if !password.is_empty() {
            assert_eq!(Keystore::read(&content, None).unwrap_err(), "it has a password: give it with --ssl_keystore_password", "{options}");
            assert_eq!(Keystore::read(&content, Some("x")).unwrap_err(), "its password is another one, or it is damaged", "{options}");
        }
        let mut damaged = content.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        Keystore::read(&damaged, Some(password)).unwrap_err();
        Keystore::read(&content[..middle], Some(password)).unwrap_err();
    }
    openssl(directory, "pkcs12 -export -nokeys -in authority.pem -out store.p12 -passout pass:x");
    let content = std::fs::read(directory.join("store.p12")).unwrap();
    assert_eq!(Keystore::read(&content, Some("x")).unwrap_err(), "it has no key");
    openssl(directory, "pkcs12 -export -nocerts -inkey key.pem -out store.p12 -passout pass:x");
    let content = std::fs::read(directory.join("store.p12")).unwrap();
    assert_eq!(Keystore::read(&content, Some("x")).unwrap_err(), "it has no certificate");
}

/// Takes any certificate, and remembers it.
#[derive(Debug)]
struct Curious(Mutex<Option<CertificateDer<'static>>>);

mod verifier {
    use rustls::{
        DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        pki_types::{CertificateDer, ServerName, UnixTime},
    };

    impl ServerCertVerifier for super::Curious {
        fn verify_server_cert(
            &self,
            certificate: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            *self.0.lock().unwrap() = Some(certificate.clone().into_owned());
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}

/// The certificate that a server shows.
async fn shown(address: std::net::SocketAddr) -> CertificateDer<'static> {
    let curious = Arc::new(Curious(Mutex::default()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.dangerous().with_custom_certificate_verifier(curious.clone()).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    curious.0.lock().unwrap().take().unwrap()
}

#[tokio::test]
async fn a_new_certificate_serves_from_the_next_connection_on_and_a_broken_one_never() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.pem");
    let write = |content: &str| {
        // Put in its place whole, as renewals do.
        let part = directory.path().join("part");
        std::fs::write(&part, content).unwrap();
        std::fs::rename(part, &file).unwrap();
    };
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let ((first, first_key), (second, second_key), (third, third_key)) = (pair(), pair(), pair());
    write(&format!("{first}{first_key}"));
    let (mut watched, acceptors) = Watched::open(&file, None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pong = warp::any().map(|| warp::reply::Response::new("pong".into())).boxed();
    tokio::spawn(serve_filter(Listener::Tls(listener, acceptors.clone()), pong, Limits::default(), std::future::pending()));
    assert_eq!(shown(address).await, der(&first));

    watched.look();
    assert!(!acceptors.has_changed().unwrap(), "the same file is not read again");
    write(&format!("{second}{second_key}"));
    watched.look();
    assert_eq!(shown(address).await, der(&second));

    // Half of a renewal, no file at all, and another's key.
    for broken in [third.clone(), String::new(), format!("{third}{first_key}")] {
        write(&broken);
        watched.look();
        assert_eq!(shown(address).await, der(&second));
    }
    std::fs::remove_file(&file).unwrap();
    watched.look();
    assert_eq!(shown(address).await, der(&second));

    // By itself, and written in two goes.
    tokio::spawn(watched.run(Duration::from_millis(1)));
    std::fs::write(&file, &third).unwrap();
    std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .and_then(|mut file| io::Write::write_all(&mut file, third_key.as_bytes()))
        .unwrap();
    let mut acceptors = acceptors;
    acceptors.mark_unchanged();
    acceptors.changed().await.unwrap();
    assert_eq!(shown(address).await, der(&third));
}

/// A server with a certificate of its own, and these limits.
async fn serving(limits: Limits) -> (std::net::SocketAddr, Watched, std::path::PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.pem");
    let (certificate, key) = pair();
    std::fs::write(&file, format!("{certificate}{key}")).unwrap();
    let (watched, acceptors) = Watched::open(&file, None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pong = warp::any().map(|| warp::reply::Response::new("pong".into())).boxed();
    tokio::spawn(serve_filter(Listener::Tls(listener, acceptors), pong, limits, std::future::pending()));
    (address, watched, file, directory)
}

#[tokio::test]
async fn whoever_begins_no_handshake_or_half_of_one_gives_the_place_back_in_time() {
    let limits = Limits { header_time: Duration::from_millis(100), connections: 4, ..Limits::default() };
    let (address, ..) = serving(limits).await;
    let mut silent = Vec::new();
    for number in 0..12 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if number % 2 == 1 {
            // The beginning of a greeting that is long in coming.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).await.unwrap();
        }
        silent.push(stream);
    }
    // Behind them in the queue, and served all the same.
    shown(address).await;
    for mut stream in silent {
        // Closed, in whichever way, without a word.
        let mut said = Vec::new();
        _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut said)).await.expect("it is closed");
        assert_eq!(said, b"");
    }
}

#[tokio::test]
async fn what_is_older_than_tls_1_2_or_no_tls_is_refused() {
    let (address, ..) = serving(Limits::default()).await;
    let ask = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut said = vec![0; 1024];
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut said)).await.expect("it is answered");
        said.truncate(read.unwrap_or(0));
        said
    };
    // RFC 5246: a greeting that everything is in but a version above 1.2. ECDHE_ECDSA with AES_128_GCM; ecdsa_secp256r1_sha256, x25519, plain points,
    // an extended master secret.
    let hello = |minor: u8| {
        let extensions = [[0, 13, 0, 4, 0, 2, 4, 3].as_slice(), &[0, 10, 0, 4, 0, 2, 0, 29], &[0, 11, 0, 2, 1, 0], &[0, 23, 0, 0]].concat();
        let mut body = vec![3, minor];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0]);
        body.push(u8::try_from(extensions.len()).unwrap());
        body.extend(extensions);
        let length = u8::try_from(body.len()).unwrap();
        [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length], &body[..]].concat()
    };
    // Fatal: protocol_version.
    for minor in [0, 1, 2] {
        let said = ask(&hello(minor)).await;
        assert_eq!((said[0], &said[said.len() - 2..]), (0x15, &[2, 70][..]), "3.{minor}: {said:?}");
    }
    // With the next one it is no alert, but the handshake.
    let said = ask(&hello(3)).await;
    assert_eq!((said[0], said[5]), (0x16, 2), "{said:?}");
    let said = ask(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(!said.windows(4).any(|part| part == b"HTTP"), "{said:?}");
    shown(address).await;
}

/// A connection over TLS on which one can ask again and again, to whom the server is called `name`.
async fn open(address: std::net::SocketAddr, name: &'static str) -> (tokio_rustls::client::TlsStream<TcpStream>, CertificateDer<'static>) {
    let curious = Arc::new(Curious(Mutex::default()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.dangerous().with_custom_certificate_verifier(curious.clone()).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(client)).connect(ServerName::try_from(name).unwrap(), stream).await.unwrap();
    let certificate = curious.0.lock().unwrap().take().unwrap();
    (stream, certificate)
}

async fn ping(stream: &mut tokio_rustls::client::TlsStream<TcpStream>) {
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"pong") {
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece).await.unwrap();
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend(&piece[..length]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_connection_lives_on_when_the_certificate_is_replaced() {
    let (address, mut watched, file, _directory) = serving(Limits::default()).await;
    let (mut before, first) = open(address, "localhost").await;
    ping(&mut before).await;
    let (certificate, key) = pair();
    std::fs::write(&file, format!("{certificate}{key}")).unwrap();
    watched.look();
    let (mut after, second) = open(address, "localhost").await;
    assert_eq!(second, CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap());
    assert_ne!(first, second);
    ping(&mut before).await;
    ping(&mut after).await;
    // Nor does a broken one end any.
    std::fs::write(&file, "nothing").unwrap();
    watched.look();
    ping(&mut before).await;
    ping(&mut after).await;
    assert_eq!(open(address, "localhost").await.1, second);
}

#[tokio::test]
async fn who_names_no_server_or_another_one_is_shown_the_certificate_too() {
    let (address, ..) = serving(Limits::default()).await;
    let (_, expected) = open(address, "localhost").await;
    // An address is never sent as a name.
    for name in ["127.0.0.1", "another.example"] {
        let (mut stream, certificate) = open(address, name).await;
        assert_eq!(certificate, expected, "{name}");
        ping(&mut stream).await;
    }
}
