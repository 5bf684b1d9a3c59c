//! What is told of a worker at the level `trace` holds no secret, no address of a person and no cell: every setting and every
//! row carries a mark, and it is looked for wherever the worker says something. And the spans of its attempts arrive where
//! they are sent, as parts of the traces that their records name.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::{Context, Handler, HandlerError, Outcome, Route, Spec};
use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::flaky_mails::{ALONE, reading, sign_up, until_sent};
use crate::producer;
use crate::stack::{self, until};
use crate::suspending::asked;
use crate::wal::remove;
use crate::worker::{Worker, work_when_started_as_a_worker};
use crate::world::World;

/// What nobody may be told.
const MARK: &str = "hidden-c311f00d";

const WITHIN: Duration = Duration::from_secs(60);

/// The trace of one record, and the span in it by which the record was written.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Fails as the row says, with the row's cell in the hands of Postgres.
struct Marked;

#[async_trait]
impl Handler for Marked {
    fn spec(&self) -> Spec {
        Spec::new("marked", [Route::of("work")])
    }

    async fn handle(&self, context: &mut Context, events: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> {
        let row = events[0].after().ok_or_else(|| HandlerError::permanent("no row"))?;
        let note = row.text("note").unwrap_or_default().to_owned();
        match row.text("behaviour") {
            Some("panic") => panic!("the row says so"),
            Some("hang") => std::future::pending().await,
            _ => {}
        }
        let Some(once) = context.once().await? else {
            return Ok(Outcome::Done);
        };
        let sql = match row.text("behaviour") {
            Some("database") => "SELECT $1::text::integer",
            Some("wrapped") => "SELECT $1::text::timestamptz",
            _ => "INSERT INTO effects (k, seq, worker, attempt, replayed) VALUES (length($1), 1, 'w', 1, false)",
        };
        let written = sqlx::query(sql).bind(note).execute(once.connection).await;
        match row.text("behaviour") {
            Some("wrapped") => written.map(|_| ()).map_err(HandlerError::permanent)?,
            _ => written.map(|_| ())?,
        }
        Ok(Outcome::Done)
    }
}

#[test]
fn works_when_started_as_a_marked_worker() {
    work_when_started_as_a_worker(|_| Arc::new(Marked));
}

/// Receives spans over HTTP.
#[derive(Clone, Default)]
struct Receiver {
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Receiver {
    /// Starts one; answers where it is.
    async fn start() -> (Self, String) {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(receiver.clone());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        (receiver, address)
    }

    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap();
        let requests = bodies
            .iter()
            .map(|body| ExportTraceServiceRequest::decode(body.clone()).unwrap());
        let scopes = requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// Every byte that arrived, as text.
    fn text(&self) -> String {
        let bodies = self.bodies.lock().unwrap();
        bodies
            .iter()
            .map(|body| String::from_utf8_lossy(body).into_owned())
            .collect()
    }
}

async fn take(State(receiver): State<Receiver>, body: Bytes) -> Vec<u8> {
    receiver.bodies.lock().unwrap().push(body);
    ExportTraceServiceResponse::default().encode_to_vec()
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.clone()).unwrap().value;
    format!("{:?}", value.unwrap())
}

/// The lines in which a mark is told.
fn leaks(what: &str, said: &str) {
    assert!(!said.is_empty(), "{what} said nothing");
    let told: Vec<&str> = said.lines().filter(|line| line.contains(MARK)).collect();
    assert!(told.is_empty(), "{what}: {told:#?}");
}

/// What every worker here has: everything logged, told over HTTP, and marks for secrets.
fn settings(receiver: &str) -> Vec<(&'static str, String)> {
    vec![
        ("RUST_LOG", "trace".to_owned()),
        ("AFTERWRITE__ADMIN__LISTEN", "localhost:0".to_owned()),
        ("AFTERWRITE__TRACES__ENDPOINT", receiver.to_owned()),
        ("AFTERWRITE__TRACES__HEADERS", format!("x-api-key={MARK}")),
        ("OTEL_BSP_SCHEDULE_DELAY", "200".to_owned()),
        ("AFTERWRITE__WAITLIST__SECRET", format!("{MARK}-and-more")),
        ("AFTERWRITE__REGISTRY__USER", "me".to_owned()),
        ("AFTERWRITE__REGISTRY__PASSWORD", MARK.to_owned()),
        ("AFTERWRITE__HANDLERS__MARKED__SETTINGS__KEY", MARK.to_owned()),
    ]
}

/// Looks for marks in all that a worker and the commands about it tell.
async fn looked_for(world: &World, worker: &Worker, receiver: &Receiver, settings: &[(&str, &str)]) {
    for path in ["/metrics", "/readyz", "/healthz"] {
        leaks(path, &asked(worker, path).await.1);
    }
    for arguments in [
        &["status"][..],
        &["status", "--output", "json"],
        &["config", "show"],
        &["config", "show", "--output", "json"],
        &["dlq", "list"],
    ] {
        let mut command = world.command(env!("CARGO_BIN_EXE_afterwrite"));
        let shown = settings.iter().filter(|(name, _)| !name.contains("HANDLERS__MARKED"));
        command.args(arguments).envs(shown.copied());
        let output = command.output().await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        leaks(&arguments.join(" "), &String::from_utf8_lossy(&said));
    }
    leaks("spans", &receiver.text());
}

/// One span an attempt, of which one is a part of the trace that its record names.
async fn check_spans(world: &World, receiver: &Receiver) {
    until("the spans", WITHIN, async || {
        let spans = receiver.spans();
        let done = |word: &str| {
            spans
                .iter()
                .filter(|span| attribute(span, "afterwrite.outcome").contains(word))
                .count()
        };
        (done("\"done\"") == 1 && done("permanent") == 2 && done("panicked") == 2 && done("timed_out") == 2)
            .then_some(())
    })
    .await;
    let spans = receiver.spans();
    let traced = spans.iter().find(|span| hex::encode(&span.trace_id) == TRACE).unwrap();
    assert_eq!(hex::encode(&traced.parent_span_id), PARENT);
    assert_eq!(traced.name, "attempt marked");
    for (key, expected) in [
        ("afterwrite.group", world.group_of("marked")),
        ("afterwrite.table", "public.work".to_owned()),
        ("afterwrite.attempt", "1".to_owned()),
        ("messaging.destination.name", world.topic()),
    ] {
        let told = attribute(traced, key);
        assert!(told.contains(&expected), "{key}: {told}");
    }
    assert!(
        spans
            .iter()
            .filter(|span| hex::encode(&span.trace_id) != TRACE)
            .all(|span| span.parent_span_id.is_empty())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_logs_everything_tells_no_cell_and_sends_its_spans() {
    let _stack = stack::shared().await;
    let world = World::bare("marks").await;
    producer::make_topic(&world.topic()).await;
    let (receiver, address) = Receiver::start().await;
    let settings = settings(&address);
    let mut settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    settings.extend([
        ("AFTERWRITE__ENGINE__ATTEMPTS_MAX", "2"),
        ("AFTERWRITE__ENGINE__WAIT_FIRST_MS", "50"),
        ("AFTERWRITE__ENGINE__ATTEMPT_TIMEOUT_MS", "1000"),
        ("AFTERWRITE__POSTGRES__CONNECT_TIMEOUT_MS", "900"),
        ("AFTERWRITE__ENGINE__EXHAUSTED_ALONE_AFTER_MS", "0"),
    ]);
    let worker = Worker::of_test("marks::works_when_started_as_a_marked_worker", &world, "w", &settings);
    let trace = format!("00-{TRACE}-{PARENT}-01");
    producer::write_traced(&world.topic(), &noted(1, "ok"), &trace).await;
    for (k, behaviour) in [(2, "database"), (3, "wrapped"), (4, "panic"), (5, "hang")] {
        producer::write(
            &world.topic(),
            format!("{{\"k\":{k}}}").as_bytes(),
            noted(k, behaviour).as_bytes(),
        )
        .await;
    }
    producer::write(&world.topic(), b"{\"k\":6}", format!("{{\"{MARK}\": tru").as_bytes()).await;
    until("a letter of each that fails", WITHIN, async || {
        let letters = "SELECT count(*) FROM afterwrite.letters";
        (world.count(letters).await == 5).then_some(())
    })
    .await;
    check_spans(&world, &receiver).await;
    let (_, metrics) = asked(&worker, "/metrics").await;
    assert!(
        metrics.contains("afterwrite_trace_spans_total{state=\"exported\"}"),
        "{metrics}"
    );
    // What the client of the brokers tells comes every five seconds.
    until("what it needs to be up", WITHIN, async || {
        let (_, ready) = asked(&worker, "/readyz").await;
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        let needs = ready["needs"].as_array().unwrap().clone();
        let is_up = |name: &str| needs.iter().any(|need| need["name"] == name && need["state"] == "up");
        (is_up("postgres") && is_up("kafka")).then_some(())
    })
    .await;
    looked_for(&world, &worker, &receiver, &settings).await;
    let said = worker.said();
    assert!(
        said.contains("DEBUG") && said.contains("invalid input syntax"),
        "everything is logged"
    );
    assert!(said.contains("group is about to start") && said.contains("what this process works with"));
    leaks("the log", &said);
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_logs_everything_tells_no_address_of_a_person() {
    let _stack = stack::shared().await;
    let world = World::waitlist_alone("marked").await;
    let (receiver, address) = Receiver::start().await;
    let settings = settings(&address);
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let settings: Vec<(&str, &str)> = settings
        .into_iter()
        .filter(|(name, _)| !name.contains("HANDLERS__MARKED"))
        .chain(ALONE)
        .collect();
    let worker = reading(&world, 1, &settings).await;
    sign_up(&world, 2, &format!("{MARK}+ok")).await;
    until_sent(&world, 2).await;
    until("the scrape to tell of the mails", WITHIN, async || {
        let (_, metrics) = asked(&worker, "/metrics").await;
        let told = |line: &str| metrics.lines().any(|told| told == line);
        let is_told = told("afterwrite_mails_total{type=\"welcome\",status=\"sent\"} 2")
            && told("afterwrite_calls_total{to=\"mail\",outcome=\"accepted\"} 2")
            && told("afterwrite_effect_claims_total{handler=\"email\",answer=\"call\"} 2")
            && told("afterwrite_rewards{state=\"earned\"} 0.0");
        is_told.then_some(())
    })
    .await;
    let (_, ready) = asked(&worker, "/readyz").await;
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    assert_eq!(ready["needs"][1]["name"], "smtp");
    assert_eq!(ready["needs"][1]["state"], "up");
    looked_for(&world, &worker, &receiver, &settings).await;
    leaks("the log", &worker.said());
    worker.stop().await;
    remove(world).await;
}

/// A change of a row whose cell carries the mark.
fn noted(k: i64, behaviour: &str) -> String {
    producer::change(k, 1, behaviour).replacen("\"behaviour\"", &format!("\"note\":\"{MARK}\",\"behaviour\""), 1)
}
