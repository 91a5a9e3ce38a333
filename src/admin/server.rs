//! The listener: few connections, each bounded in time and size, so that nobody who can reach it can hold the process up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use towpath_contract::{Error, ErrorKind, Secret};

use super::api::{Api, router};
use super::command::Handle;
use super::metrics::Metrics;
use crate::config::model::AdminConfig;

const CONNECTIONS_MAX: usize = 64;

/// A request's head must have come within this.
const HEAD_SECONDS_MAX: u64 = 5;

/// A connection's whole life. Long enough for the slowest answer; who wants more connects again.
const CONNECTION_SECONDS_MAX: u64 = 60;

/// Head of a request, and what is read ahead of it.
const BUFFER_BYTES_MAX: usize = 16 << 10;

/// The admin API, bound to its address and not yet answering.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    token: Option<Secret>,
    ready_lag_max: Duration,
}

impl Server {
    /// Takes the address. Fails where another process holds it: two towpaths on one config are a mistake.
    pub async fn bind(config: &AdminConfig) -> Result<Server, Error> {
        let operation = format!("listening on {}", config.listen);
        let listener = TcpListener::bind(config.listen).await.map_err(|error| {
            Error::operator(ErrorKind::Setup, operation, error)
                .with_help("stop what listens there, or choose another address in `admin.listen`")
        })?;
        Ok(Server { listener, token: config.token.clone(), ready_lag_max: config.ready_lag_max.0 })
    }

    /// The address, with the port that the system chose where the config says 0.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the future is dropped.
    pub async fn serve(self, handle: Handle, metrics: Arc<Metrics>) {
        let api = Api { handle, metrics, ready_lag_max: self.ready_lag_max };
        let router = router(api, self.token);
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            // Waits for room before it accepts: what comes meanwhile waits in the system's own bounded queue.
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let router = router.clone();
                    connections.spawn(async move {
                        connection(stream, router).await;
                        drop(permit);
                    });
                }
                // Out of file descriptors, or a caller that is gone: not a reason to stop, nor to spin.
                Err(error) => {
                    tracing::warn!(%error, "the admin API cannot take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEAD_SECONDS_MAX))
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A caller's broken connection is the caller's affair.
    let _ = timeout(Duration::from_secs(CONNECTION_SECONDS_MAX), served).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::admin::command::{Command, Refusal, RefusalKind, channel};
    use crate::admin::parked::ParkedPage;
    use crate::admin::status::SourceState;
    use crate::admin::status::tests::healthy;
    use crate::config::model::AdminConfig;

    /// A server over a pipeline of one source, which notes the commands that it was given.
    struct Running {
        address: SocketAddr,
        seen: Arc<Mutex<Vec<String>>>,
        _tasks: tokio::task::JoinSet<()>,
    }

    async fn start(token: Option<&str>, state: SourceState) -> Running {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = AdminConfig { listen, token: token.map(Secret::new), ..AdminConfig::default() };
        let server = Server::bind(&config).await.unwrap();
        let address = server.address().unwrap();
        let (handle, mut commands) = channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(server.serve(handle, Arc::new(Metrics::new(&["orders_db"], &["orders_db"]))));
        let noted = seen.clone();
        tasks.spawn(async move {
            while let Some(command) = commands.recv().await {
                if !matches!(command, Command::Status(_)) {
                    noted.lock().unwrap().push(format!("{command:?}").split(", reply").next().unwrap().to_owned());
                }
                match command {
                    Command::Status(reply) => {
                        let mut status = healthy();
                        status.sources[0].state = state.clone();
                        let _ = reply.send(status);
                    }
                    Command::PauseSource { source, reply } if source == "orders_db" => {
                        let _ = reply.send(Ok("orders_db is paused".into()));
                    }
                    Command::PauseSource { source, reply } => {
                        let refusal = Refusal::new(RefusalKind::NotFound, format!("there is no source {source}"));
                        let _ = reply.send(Err(refusal));
                    }
                    Command::Snapshot { reply, .. }
                    | Command::ResumeSource { reply, .. }
                    | Command::ParkedRetry { reply, .. }
                    | Command::ParkedDiscard { reply, .. } => drop(reply.send(Ok("done".into()))),
                    Command::ParkedList { reply, .. } => drop(reply.send(Ok(ParkedPage::default()))),
                    Command::ParkedShow { reply, .. } => {
                        let refusal = Refusal::new(RefusalKind::NotFound, "no such event");
                        let _ = reply.send(Err(refusal));
                    }
                }
            }
        });
        Running { address, seen, _tasks: tasks }
    }

    /// Status code and body.
    async fn call(address: SocketAddr, head: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
    }

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        call(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost"), "").await
    }

    async fn post(address: SocketAddr, path: &str, body: &str) -> (u16, String) {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json");
        call(address, &head, body).await
    }

    #[tokio::test]
    async fn health_metrics_and_status_are_served() {
        let running = start(None, SourceState::Streaming).await;
        assert_eq!(get(running.address, "/healthz").await, (200, "{\"ok\":true,\"reasons\":[]}".into()));
        assert_eq!(get(running.address, "/readyz").await.0, 200);
        let (status, text) = get(running.address, "/metrics").await;
        assert!(status == 200 && text.contains("towpath_source_changes_total{source=\"orders_db\"} 1234567"));
        let (status, json) = get(running.address, "/api/status").await;
        assert_eq!((status, serde_json::from_str(&json).unwrap()), (200, healthy()));
        assert_eq!(get(running.address, "/nothing").await.0, 404);
    }

    #[tokio::test]
    async fn a_stopped_source_turns_both_red_and_says_why() {
        let stopped = SourceState::Stopped { error: "wrong password".into(), help: Some("set it".into()) };
        let running = start(None, stopped).await;
        for path in ["/healthz", "/readyz"] {
            let (status, body) = get(running.address, path).await;
            assert!(status == 503 && body.contains("wrong password") && body.contains("set it"), "{status} {body}");
        }
    }

    #[tokio::test]
    async fn commands_reach_the_pipeline() {
        let running = start(None, SourceState::Streaming).await;
        let at = running.address;
        assert_eq!(
            post(at, "/api/sources/orders_db/pause", "{}").await,
            (200, "{\"done\":\"orders_db is paused\"}".into())
        );
        assert_eq!(post(at, "/api/sources/none/pause", "{}").await.0, 404);
        let snapshot = "{\"tables\":[\"public.orders\"]}";
        assert_eq!(post(at, "/api/sources/orders_db/snapshot", snapshot).await.0, 200);
        assert_eq!(post(at, "/api/sources/orders_db/snapshot", "{\"table\":\"x\"}").await.0, 422);
        assert_eq!(get(at, "/api/parked?route=a%20b&limit=5").await, (200, "{\"events\":[],\"total\":0}".into()));
        assert_eq!(get(at, "/api/parked/7").await.0, 404);
        assert_eq!(get(at, "/api/parked/seven").await.0, 400);
        assert_eq!(post(at, "/api/parked/retry", "{\"seqs\":[1,2]}").await.0, 200);
        assert_eq!(post(at, "/api/parked/discard", "{}").await.0, 400);
        assert_eq!(post(at, "/api/parked/discard", "{\"all\":true}").await.0, 200);
        assert_eq!(get(at, "/api/sources/orders_db/pause").await.0, 405);
        let seen = running.seen.lock().unwrap().clone();
        assert_eq!(
            seen,
            [
                "PauseSource { source: \"orders_db\"",
                "PauseSource { source: \"none\"",
                "Snapshot { source: \"orders_db\", tables: [\"public.orders\"], after_gap: false",
                "ParkedList { query: ParkedQuery { route: Some(\"a b\"), after: 0, limit: 5 }",
                "ParkedShow { seq: 7",
                "ParkedRetry { selection: ParkedSelection { seqs: [1, 2], route: None, all: false }",
                "ParkedDiscard { selection: ParkedSelection { seqs: [], route: None, all: true }",
            ]
        );
    }

    #[tokio::test]
    async fn strangers_are_kept_out() {
        let open = start(None, SourceState::Streaming).await;
        let rebound = "GET /api/status HTTP/1.1\r\nHost: evil.example";
        assert_eq!(call(open.address, rebound, "").await.0, 403);
        let form = "POST /api/parked/discard HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain";
        assert_eq!(call(open.address, form, "{\"all\":true}").await.0, 415);
        assert!(open.seen.lock().unwrap().is_empty());

        let closed = start(Some("0123456789abcdef"), SourceState::Streaming).await;
        assert_eq!(get(closed.address, "/healthz").await.0, 200);
        let (status, body) = get(closed.address, "/api/status").await;
        assert!(status == 401 && !body.contains("0123456789abcdef"), "{status} {body}");
        let right = "GET /api/status HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer 0123456789abcdef";
        assert_eq!(call(closed.address, right, "").await.0, 200);
    }

    #[tokio::test]
    async fn what_is_sent_is_bounded() {
        let running = start(None, SourceState::Streaming).await;
        let large = format!("{{\"tables\":[\"{}\"]}}", "x".repeat(1 << 20));
        assert_eq!(post(running.address, "/api/sources/orders_db/snapshot", &large[..70_000]).await.0, 413);
        let long = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(64 << 10));
        assert_eq!(call(running.address, &long, "").await.0, 431);
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_said_with_the_way_out() {
        let running = start(None, SourceState::Streaming).await;
        let config = AdminConfig { listen: running.address, ..AdminConfig::default() };
        let error = Server::bind(&config).await.unwrap_err();
        assert!(error.operation.contains(&running.address.to_string()));
        assert!(error.help.unwrap().contains("admin.listen"));
    }
}
