//! An HTTP server that a test scripts: what a handler calls.
//!
//! It listens on a free port of 127.0.0.1, keeps every request as it came, and answers path by path what it was told, then 204.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use afterwrite::testkit::receiver::{Answer, Receiver};
//!
//! let receiver = Receiver::start().await;
//! // Once busy, once there and no answer, from then on well.
//! receiver.script("/tenants", [Answer::status(503).header("retry-after", "7"), Answer::lost(), Answer::status(201)]);
//! assert!(receiver.url("/tenants").starts_with("http://127.0.0.1:"));
//! assert!(receiver.requests().is_empty());
//! # }
//! ```

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The longest head or body that is read; a test that sends more is told so by a broken connection.
const BYTES_MAX: usize = 16 << 20;

/// What the receiver does with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(Deed);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Deed {
    Reply {
        code: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    Lost,
    Silence,
}

impl Answer {
    /// This status, without a body.
    pub fn status(code: u16) -> Self {
        Self(Deed::Reply {
            code,
            headers: Vec::new(),
            body: Vec::new(),
        })
    }

    /// The request is kept, and the connection closed without an answer: the caller cannot know that it arrived.
    pub fn lost() -> Self {
        Self(Deed::Lost)
    }

    /// The request is kept, and nothing is ever answered: the caller runs out of time.
    pub fn silence() -> Self {
        Self(Deed::Silence)
    }

    /// With this header; nothing where there is no reply.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Deed::Reply { headers, .. } = &mut self.0 {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// With this body; nothing where there is no reply.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        if let Deed::Reply { body, .. } = &mut self.0 {
            *body = bytes.into();
        }
        self
    }
}

/// One request as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// `POST`.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// What follows the `?`; empty where there is none.
    pub query: String,
    /// Headers in order, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A header by its name, which is compared without regard to case; the first where there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text; what is not UTF-8 in it is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}", self.method, self.path, self.text())
    }
}

#[derive(Debug, Default)]
struct State {
    scripts: HashMap<String, VecDeque<Answer>>,
    requests: Vec<Request>,
}

/// A running receiver; it ends when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

impl Receiver {
    /// A receiver that answers 204 to everything until it is told something else.
    ///
    /// # Panics
    /// When this machine has no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a machine that runs tests has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(Mutex::new(State::default()));
        let serving = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self {
            address,
            state,
            serving,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a path, which begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers the next requests for a path with these, one each, behind those it was told before; then 204.
    pub fn script(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let mut state = locked(&self.state);
        state.scripts.entry(path.to_owned()).or_default().extend(answers);
    }

    /// All requests so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.state).requests.clone()
    }

    /// The requests for one path.
    pub fn requests_to(&self, path: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.path == path);
        requests
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    // Open exchanges end with the receiver.
    let mut exchanges = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        exchanges.spawn(async move {
            if let Err(error) = exchange(stream, &state).await {
                tracing::debug!(%error, "a connection to the receiver broke");
            }
        });
    }
}

async fn exchange(stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let request = read(&mut stream).await?;
    let answer = {
        let mut state = locked(state);
        let next = state.scripts.get_mut(&request.path).and_then(VecDeque::pop_front);
        state.requests.push(request);
        next.unwrap_or_else(|| Answer::status(204))
    };
    match answer.0 {
        Deed::Lost => Ok(()),
        Deed::Silence => std::future::pending().await,
        Deed::Reply { code, headers, body } => {
            let mut reply = format!("HTTP/1.1 {code} Scripted\r\nconnection: close\r\n");
            for (name, value) in headers {
                reply.push_str(&format!("{name}: {value}\r\n"));
            }
            // 204 has no body, and no length either.
            if code != 204 {
                reply.push_str(&format!("content-length: {}\r\n", body.len()));
            }
            reply.push_str("\r\n");
            stream.write_all(reply.as_bytes()).await?;
            stream.write_all(&body).await?;
            stream.shutdown().await
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Request> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if head.len() > BYTES_MAX || stream.read_line(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let valued = |wanted: &str| {
        headers
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
    };
    let body = match (valued("transfer-encoding"), valued("content-length")) {
        (Some(encoding), _) if encoding.eq_ignore_ascii_case("chunked") => chunks(stream).await?,
        (_, Some(length)) => exactly(stream, length.parse().map_err(io::Error::other)?).await?,
        (_, None) => Vec::new(),
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Ok(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body,
    })
}

async fn exactly(stream: &mut BufReader<TcpStream>, bytes: usize) -> io::Result<Vec<u8>> {
    if bytes > BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; bytes];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

async fn chunks(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        let chunk = exactly(stream, size).await?;
        // The line end behind it.
        exactly(stream, 2).await?;
        if size == 0 {
            return Ok(body);
        }
        body.extend(chunk);
        if body.len() > BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}
