//! SMTP commands: one line in, one command or one refusal out. Pure.

use super::session::Reply;

/// RFC 5321 4.5.3.1.4: a command line with its line end.
const LINE_BYTES_MAX: usize = 512;

/// The line of MAIL may be longer by what SIZE (26), BODY (17) and SMTPUTF8 (10) add.
pub(super) const MAIL_LINE_BYTES_MAX: usize = LINE_BYTES_MAX + 26 + 17 + 10;

/// RFC 5321 4.5.3.1: local part, domain, and the whole path with its brackets.
const LOCAL_BYTES_MAX: usize = 64;
const DOMAIN_BYTES_MAX: usize = 255;
const PATH_BYTES_MAX: usize = 256;

/// A command with its argument.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Ehlo { name: String },
    Helo { name: String },
    Mail(Sender),
    Rcpt { address: String },
    Data,
    Reset,
    Noop,
    Verify,
    Help,
    Quit,
}

/// The argument of MAIL.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) struct Sender {
    /// Empty for the null path of a bounce.
    pub(super) address: String,
    pub(super) declared_bytes: Option<u64>,
    pub(super) smtputf8: bool,
}

/// Reads one line, without its line end. `whole_bytes` counts the line end.
pub(super) fn parse(line: &[u8], whole_bytes: usize) -> Result<Command, Reply> {
    let text = std::str::from_utf8(line).map_err(|_| Reply::new(500, "5.5.2", "the command was not UTF-8"))?;
    let (verb, argument) = match text.split_once(' ') {
        Some((verb, argument)) => (verb, argument.trim()),
        None => (text.trim_end(), ""),
    };
    let verb = verb.to_ascii_uppercase();
    if whole_bytes > LINE_BYTES_MAX && verb != "MAIL" {
        return Err(Reply::line_too_long());
    }
    match verb.as_str() {
        "EHLO" => host_name(argument).map(|name| Command::Ehlo { name }),
        "HELO" => host_name(argument).map(|name| Command::Helo { name }),
        "MAIL" => sender(argument).map(Command::Mail),
        "RCPT" => recipient(argument).map(|address| Command::Rcpt { address }),
        "DATA" => bare(argument, Command::Data),
        "RSET" => bare(argument, Command::Reset),
        "QUIT" => bare(argument, Command::Quit),
        "NOOP" => Ok(Command::Noop),
        "VRFY" => Ok(Command::Verify),
        "HELP" => Ok(Command::Help),
        _ => Err(Reply::new(500, "5.5.1", "this command is not known here")),
    }
}

fn bare(argument: &str, command: Command) -> Result<Command, Reply> {
    if argument.is_empty() {
        return Ok(command);
    }
    Err(Reply::new(501, "5.5.4", "this command takes no argument"))
}

fn host_name(argument: &str) -> Result<String, Reply> {
    if argument.is_empty() || argument.contains(char::is_whitespace) {
        return Err(Reply::new(501, "5.5.4", "give the name of your host"));
    }
    Ok(argument.to_owned())
}

fn sender(argument: &str) -> Result<Sender, Reply> {
    let (path, parameters) = path_after("FROM:", argument)?;
    let mut sender = Sender {
        address: path,
        declared_bytes: None,
        smtputf8: false,
    };
    for parameter in parameters.split_ascii_whitespace() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match (name.to_ascii_uppercase().as_str(), value.to_ascii_uppercase().as_str()) {
            ("SIZE", size) => {
                let bytes = size
                    .parse()
                    .map_err(|_| Reply::new(501, "5.5.4", "SIZE was not a number"))?;
                sender.declared_bytes = Some(bytes);
            }
            ("BODY", "7BIT" | "8BITMIME") => {}
            ("SMTPUTF8", "") => sender.smtputf8 = true,
            _ => return Err(Reply::new(555, "5.5.4", "this parameter of MAIL is not known here")),
        }
    }
    if !sender.address.is_empty() {
        check_address(&sender.address, "5.1.7")?;
    }
    Ok(sender)
}

fn recipient(argument: &str) -> Result<String, Reply> {
    let (path, parameters) = path_after("TO:", argument)?;
    if !parameters.is_empty() {
        return Err(Reply::new(555, "5.5.4", "this parameter of RCPT is not known here"));
    }
    if !path.eq_ignore_ascii_case("postmaster") {
        check_address(&path, "5.1.3")?;
    }
    Ok(path)
}

/// Takes `FROM:<path> parameters` apart. A source route in front of the address is dropped, as RFC 5321 asks.
fn path_after<'a>(prefix: &str, argument: &'a str) -> Result<(String, &'a str), Reply> {
    let syntax = || Reply::new(501, "5.5.4", &format!("write {prefix}<address>"));
    let head = argument.get(..prefix.len()).ok_or_else(syntax)?;
    if !head.eq_ignore_ascii_case(prefix) {
        return Err(syntax());
    }
    let rest = argument[prefix.len()..]
        .trim_start()
        .strip_prefix('<')
        .ok_or_else(syntax)?;
    let end = closing_bracket(rest).ok_or_else(syntax)?;
    if end + 2 > PATH_BYTES_MAX {
        return Err(Reply::new(501, "5.1.3", "the path has more than 256 octets"));
    }
    let (path, parameters) = (&rest[..end], &rest[end + 1..]);
    if !parameters.is_empty() && !parameters.starts_with(' ') {
        return Err(syntax());
    }
    let address = match path.split_once(':') {
        Some((route, address)) if route.starts_with('@') => address,
        _ => path,
    };
    Ok((address.to_owned(), parameters.trim()))
}

/// The first `>` outside a quoted local part.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return Some(index),
            _ => {}
        }
    }
    None
}

fn check_address(address: &str, enhanced: &'static str) -> Result<(), Reply> {
    let refusal = |why: &str| Err(Reply::new(501, enhanced, why));
    let Some((local, domain)) = address.rsplit_once('@') else {
        return refusal("the address has no domain");
    };
    if local.is_empty() || domain.is_empty() {
        return refusal("the address is incomplete");
    }
    if local.len() > LOCAL_BYTES_MAX || domain.len() > DOMAIN_BYTES_MAX {
        return refusal("the local part has more than 64 octets or the domain more than 255");
    }
    let quoted = local.starts_with('"') && local.ends_with('"');
    if address.chars().any(char::is_control) || domain.contains(' ') || local.contains(' ') && !quoted {
        return refusal("the address contains a blank or a control character");
    }
    Ok(())
}
