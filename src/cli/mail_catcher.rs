//! `afterwrite mail-catcher`: a local SMTP server that keeps every mail as a file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tokio::net::TcpListener;

use crate::cli::{Failure, stop_signal};
use crate::mail_catcher;

/// Arguments of `mail-catcher`.
#[derive(Debug, Args)]
#[command(after_help = mail_catcher::HELP)]
pub struct MailCatcherArgs {
    /// Address to listen on; port 0 takes a free one and prints it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:2525")]
    pub listen: SocketAddr,
    /// Folder for the mails, made when missing
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("the mail catcher could not listen on {address}; choose another address with --listen")]
struct Listen {
    address: SocketAddr,
    source: std::io::Error,
}

/// Serves until SIGTERM or Ctrl-C.
///
/// # Errors
/// When the address is taken or the folder cannot be made.
pub async fn run(args: &MailCatcherArgs) -> Result<(), Failure> {
    let address = args.listen;
    let refused = |source| Failure::failed(Listen { address, source });
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    println!("smtp://{bound} keeps mails in {}", args.dir.display());
    let stop = async {
        if let Err(failure) = stop_signal().await {
            tracing::error!(
                error = failure.chain(),
                "signals could not be received; the server stops"
            );
        }
    };
    mail_catcher::serve(listener, &args.dir, stop)
        .await
        .map_err(Failure::failed)
}
