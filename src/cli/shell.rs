//! `afterwrite completions` and `afterwrite man`: what a package puts beside the binary.

use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::{Cli, Failure};

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite completions bash > /usr/share/bash-completion/completions/afterwrite
  afterwrite completions zsh > ~/.zfunc/_afterwrite
  afterwrite completions fish > ~/.config/fish/completions/afterwrite.fish")]
pub struct CompletionsArgs {
    /// The shell they are for
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  afterwrite man --dir /usr/local/share/man/man1 && man afterwrite-dlq-replay")]
pub struct ManArgs {
    /// Folder for the pages, made when missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("the pages could not be written into {}", dir.display())]
struct NotWritten {
    dir: PathBuf,
    source: io::Error,
}

/// Runs `completions`.
pub fn completions(args: &CompletionsArgs, name: &str) {
    clap_complete::generate(args.shell, &mut Cli::command(), name, &mut io::stdout());
}

/// Runs `man`: a page for the program, and one for each command.
///
/// # Errors
/// When the folder cannot be made or written to.
pub fn man(args: &ManArgs) -> Result<(), Failure> {
    let dir = &args.dir;
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|source| {
        Failure::failed(NotWritten {
            dir: dir.clone(),
            source,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = std::env::temp_dir().join(format!("afterwrite-man-{}", std::process::id()));
        let args = ManArgs { dir: dir.join("man1") };
        man(&args).unwrap();
        for command in Cli::command().get_subcommands() {
            let page = args.dir.join(format!("afterwrite-{}.1", command.get_name()));
            let text = std::fs::read_to_string(&page).unwrap();
            assert!(text.contains(".SH NAME"), "{}: {text}", page.display());
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn every_shell_learns_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "afterwrite", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in ["status", "dlq", "replay", "--output"] {
                assert!(script.contains(command.trim_start_matches('-')), "{shell}: {command}");
            }
        }
    }
}
