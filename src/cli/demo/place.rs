//! Where the demo happens: the clone it belongs to, the directory and ports of its stack, and a lock, so that two demos
//! of one clone do not meet.

use std::fs::{File, TryLockError};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use super::failure::DemoFailure;

/// What makes a directory a clone of this repository.
const MARK: &str = "infra/native/stack";

/// The variables of a stack that name its ports.
const PORT_NAMES: [&str; 10] = [
    "PG_PORT",
    "KAFKA_PORT",
    "KAFKA_CONTROLLER_PORT",
    "CONNECT_PORT",
    "REGISTRY_PORT",
    "REGISTRY_TLS_PORT",
    "KAFKA_TLS_PORT",
    "KAFKA_SASL_PORT",
    "KAFKA_SCRAM_PORT",
    "SMTP_PORT",
];

/// Below the ports that the kernel gives to outgoing connections, so that nothing takes a port between its choice and
/// the start of its service.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// The place of one demo.
#[derive(Debug)]
pub(super) struct Place {
    /// The clone.
    pub(super) root: PathBuf,
    /// `STACK_DIR`.
    pub(super) dir: PathBuf,
    /// Variables for `infra/native/stack`.
    pub(super) variables: Vec<(&'static str, String)>,
    /// Whether the stack is the clone's ordinary one, which must be left as it was found.
    pub(super) is_shared: bool,
    /// Whether the directory was there before.
    pub(super) existed: bool,
    /// Held until the demo ends.
    _lock: File,
}

impl Place {
    /// A place of the demo's own, or the clone's ordinary stack (`.stack` and the fixed ports, unless `STACK_DIR` and the
    /// port variables say otherwise) when people are to go on with it.
    pub(super) fn choose(stay: bool) -> Result<Self, DemoFailure> {
        let root = clone_root(std::env::current_dir().ok(), std::env::var_os("CARGO_MANIFEST_DIR"))?;
        let target = root.join("target");
        let lock = lock(&target.join(if stay { "demo-stay.lock" } else { "demo.lock" }))?;
        let binary = std::env::current_exe().map_err(DemoFailure::OwnProgram)?;
        let mut variables = vec![("AFTERWRITE_BIN", binary.display().to_string())];
        let dir = match std::env::var_os("STACK_DIR") {
            Some(dir) if stay => std::path::absolute(dir).map_err(DemoFailure::OwnProgram)?,
            _ if stay => root.join(".stack"),
            _ => target.join("demo"),
        };
        if !stay {
            variables.extend(
                PORT_NAMES
                    .into_iter()
                    .zip(free_ports()?.into_iter().map(|port| port.to_string())),
            );
        }
        variables.push(("STACK_DIR", dir.display().to_string()));
        Ok(Self {
            existed: dir.exists(),
            root,
            dir,
            variables,
            is_shared: stay,
            _lock: lock,
        })
    }

    /// The stack's commands.
    pub(super) fn script(&self) -> PathBuf {
        self.root.join(MARK)
    }

    /// The log of a service of the stack, or of the worker.
    pub(super) fn log(&self, of: &str) -> PathBuf {
        self.dir.join("log").join(format!("{of}.log"))
    }

    /// Where is written which databases of somebody's server have to be dropped.
    pub(super) fn record(&self) -> PathBuf {
        let name = if self.is_shared {
            "demo-stay-databases"
        } else {
            "demo-databases"
        };
        self.root.join("target").join(name)
    }

    /// Where logs are kept when the demo fails and its stack is deleted.
    pub(super) fn kept_logs(&self) -> PathBuf {
        self.root.join("target/demo-logs")
    }
}

fn clone_root(start: Option<PathBuf>, manifest_dir: Option<std::ffi::OsString>) -> Result<PathBuf, DemoFailure> {
    let is_clone = |path: &&Path| path.join(MARK).is_file();
    let above = start
        .as_deref()
        .and_then(|start| start.ancestors().find(is_clone))
        .map(Path::to_owned);
    let named = || manifest_dir.map(PathBuf::from).filter(|path| is_clone(&path.as_path()));
    above.or_else(named).ok_or(DemoFailure::NoClone)
}

fn lock(path: &Path) -> Result<File, DemoFailure> {
    let refused = |source| DemoFailure::Lock {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(refused)?;
    }
    let file = File::create(path).map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DemoFailure::Twice),
        Err(TryLockError::Error(source)) => Err(refused(source)),
    }
}

/// Ports on which nobody listens. All are held while the others are looked for.
fn free_ports() -> Result<Vec<u16>, DemoFailure> {
    let width = PORTS.end - PORTS.start;
    // Demos of different clones begin their search at different places.
    let offset = u16::try_from(std::process::id() * 10 % u32::from(width)).unwrap_or_default();
    let begin = PORTS.start + offset;
    let mut held = Vec::new();
    for port in (begin..PORTS.end).chain(PORTS.start..begin) {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => held.push((port, listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(DemoFailure::Ports(error)),
        }
        if held.len() == PORT_NAMES.len() {
            break;
        }
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clone_is_found_from_below_or_by_the_variable_of_cargo() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(clone_root(Some(root.join("src/cli")), None).unwrap(), root);
        assert_eq!(clone_root(Some("/".into()), Some(root.into())).unwrap(), root);
        assert!(clone_root(Some("/".into()), None).is_err());
    }

    #[test]
    fn ports_differ_and_are_not_the_kernels() {
        let ports = free_ports().unwrap();
        let distinct: std::collections::BTreeSet<&u16> = ports.iter().collect();
        assert_eq!((ports.len(), distinct.len()), (PORT_NAMES.len(), PORT_NAMES.len()));
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }
}
