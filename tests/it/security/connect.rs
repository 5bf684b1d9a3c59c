//! A Connect of a test's own: as the stack's, with another name, other topics, and a login of its own.

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::stack::{self, until};

/// The process; it ends with this value.
pub(super) struct Connect {
    process: Child,
    pub(super) url: String,
    log: PathBuf,
}

impl Connect {
    /// Starts one that is called `group` and comes in as this user.
    pub(super) fn start(group: &str, user: &str, password: &str) -> Self {
        let stack = Path::new(&stack::address("KAFKA_TLS_DIR")).join("../..");
        let read = |path: &str| std::fs::read_to_string(stack.join(path)).unwrap();
        let pid = read("run/connect.pid");
        let pid = pid.split(' ').next().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let properties = std::env::temp_dir().join(format!("{group}.properties"));
        // What is written last counts.
        let text = read("connect/connect.properties") + &own(group, user, password, port);
        std::fs::write(&properties, text).unwrap();

        let ofprocess = |what: &str| {
            let bytes = std::fs::read(format!("/proc/{pid}/{what}")).unwrap();
            let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
            parts
                .map(|part| std::ffi::OsString::from_vec(part.to_vec()))
                .collect::<Vec<_>>()
        };
        let words = ofprocess("cmdline");
        let variables = ofprocess("environ");
        let variables = variables
            .iter()
            .filter_map(|variable| variable.to_str()?.split_once('='));
        let log = properties.with_extension("log");
        let out = std::fs::File::create(&log).unwrap();
        let process = Command::new(&words[0])
            .args(&words[1..words.len() - 1])
            .arg(&properties)
            .env_clear()
            .envs(variables)
            .stdin(std::process::Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            process,
            url: format!("http://127.0.0.1:{port}"),
            log,
        }
    }

    /// Waits until it has joined its group and read its topics.
    pub(super) async fn ready(&mut self) {
        let health = format!("{}/health", self.url);
        until("a Connect of one's own", Duration::from_secs(90), async || {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", self.said());
            let answer = reqwest::get(&health).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    pub(super) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

fn own(group: &str, user: &str, password: &str, port: u16) -> String {
    let brokers = stack::address("KAFKA_SCRAM_BROKERS");
    // Faster, and the one plugin that it does not find is not used.
    let mut text = format!(
        "\ngroup.id={group}\nlisteners=http://127.0.0.1:{port}\nbootstrap.servers={brokers}\nplugin.discovery=service_load\n"
    );
    for (kind, end) in [("config", "configs"), ("offset", "offsets"), ("status", "status")] {
        text.push_str(&format!("{kind}.storage.topic={group}-{end}\n"));
    }
    // For itself, for what its connectors write, and for the topics that they make.
    for client in ["", "producer.", "consumer.", "admin."] {
        text.push_str(&format!(
            "{client}security.protocol=SASL_PLAINTEXT\n{client}sasl.mechanism=SCRAM-SHA-256\n\
             {client}sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
             username=\"{user}\" password=\"{password}\";\n"
        ));
    }
    text
}
