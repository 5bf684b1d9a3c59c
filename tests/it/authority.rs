//! Authorities for certificates, and what they sign.

use std::path::PathBuf;
use std::process::Command;

/// An authority of its own, and what it has signed. Dropped, it is gone.
pub(crate) struct Authority(PathBuf);

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("authority-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let authority = Self(folder);
        authority.make("ca", &[]);
        authority
    }

    /// Signs a certificate for a name of this machine or of a client: `NAME.pem` and `NAME.key`.
    pub(crate) fn sign(&self, name: &str) {
        self.sign_for(name, &format!("DNS:{name}"));
    }

    /// The same for whom these alternative names say.
    pub(crate) fn sign_for(&self, name: &str, alternatives: &str) {
        let alternative = format!("subjectAltName={alternatives}");
        let signed = [
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        self.make(name, &[&signed[..], &["-addext", alternative.as_str()]].concat());
    }

    /// The same, of a certificate that has expired.
    pub(crate) fn sign_expired(&self, name: &str) {
        let request = format!("{name}.csr");
        let alternative = format!("subjectAltName=DNS:{name}");
        let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        let new = [
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let subject = format!("/CN={name}");
        let asked = [
            "-subj",
            &subject,
            "-addext",
            &alternative,
            "-keyout",
            &key,
            "-out",
            &request,
        ];
        self.openssl(&[&new[..], &asked].concat());
        // Until yesterday.
        let signed = [
            "x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "-1",
        ];
        self.openssl(&[&signed[..], &["-copy_extensions", "copy", "-out", &certificate]].concat());
    }

    fn openssl(&self, words: &[&str]) {
        let ran = Command::new("openssl")
            .current_dir(&self.0)
            .args(words)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    fn make(&self, name: &str, more: &[&str]) {
        // Each authority has a name of its own. No part of a name may be longer than 64 characters (RFC 5280, appendix A.1).
        let own = self.0.file_name().unwrap().to_str().unwrap();
        let made = Command::new("openssl")
            .current_dir(&self.0)
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", &format!("/O={own}/CN={name}")])
            .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
            .args(more)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub(crate) fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
