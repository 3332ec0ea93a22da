//! An identity provider that others wrote: `oidc-provider`, over TLS, run beside the tests.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::client::{Connection, Request, Response, get, post};
use super::gateway::project;
use super::keys::{Certificate, Trusting};

/// One that serves until it is dropped.
pub struct Idp {
    child: Child,
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    /// What its certificate is trusted by, in PEM.
    pub ca: String,
    _folder: TempDir,
}

impl Idp {
    pub fn start() -> Self {
        let (folder, certificate) = (tempfile::tempdir().unwrap(), Certificate::of(&["localhost"]));
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
            path
        };
        let (cert, key) = (write("cert.pem", &certificate.cert), write("key.pem", &certificate.key));
        let installed = project().join("target/test-idp");
        assert!(installed.join("node_modules").exists(), "no {}: tests/run.sh installs it", installed.display());
        let mut child = Command::new("node")
            .current_dir(&installed)
            // from where it is run modules are found
            .args(["--no-warnings", "--input-type=module", "--eval", include_str!("../../oidc/idp.mjs"), "--"])
            .args([&cert, &key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed by tests/run.sh");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap_or_else(|_| panic!("the provider did not start: {line:?}"));
        let tls = Trusting::new().config(&[&rustls::version::TLS13], &["http/1.1"]);
        Self { child, address: ([127, 0, 0, 1], port).into(), tls, ca: certificate.cert, _folder: folder }
    }

    /// Its `iss`.
    pub fn issuer(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// A new access token, signed by the newest key of this algorithm.
    pub fn token(&self, algorithm: &str) -> String {
        let request = post("/token")
            .header("Host", &format!("localhost:{}", self.address.port()))
            .basic("robot", "robot-secret")
            .form(&format!("grant_type=client_credentials&scope=orders:read&resource=https://api.example/{algorithm}"));
        self.send(&request).expect(200).member("access_token")
    }

    /// New keys, published when this returns; those before are the last ones that stay.
    pub fn rotate(&self) {
        self.send(&get("/control/rotate")).expect(200);
    }

    /// How often its keys were fetched.
    pub fn fetches(&self) -> u32 {
        self.send(&get("/control/fetches")).expect(200).text().parse().unwrap()
    }

    fn send(&self, request: &Request) -> Response {
        Connection::tls(self.address, "localhost", self.tls.clone()).unwrap().send(request)
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
