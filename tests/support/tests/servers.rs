//! The test support against the servers that it starts: what other tests rely on.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use towpath_test_support::{Certificates, Postgres, Proxy, QueueKind, RabbitMq, eventually};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn postgres_survives_a_stop_and_a_crash() {
    let mut postgres = Postgres::start().await;
    assert_eq!(postgres.value("show wal_level").await, "logical");
    postgres.sql("create table t (id int)").await;
    postgres.stop().await;
    postgres.start_again().await;
    postgres.sql("insert into t values (1)").await;
    postgres.crash().await;
    postgres.start_again().await;
    assert_eq!(postgres.value("select count(*) from t").await, "1");
    assert!(postgres.log().contains("not properly shut down"), "{}", postgres.log());
}

#[tokio::test]
async fn postgres_is_gone_after_drop() {
    let postgres = Postgres::start().await;
    let (pid, port) = (postgres.pid(), postgres.port());
    drop(postgres);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[tokio::test]
async fn postgres_takes_settings_tls_and_authentication() {
    let certificates = Certificates::new("postgres");
    let postgres = Postgres::builder()
        .wal_level("replica")
        .settings("work_mem = 1MB")
        .initdb("--encoding=LATIN1")
        .hba("host all locked 127.0.0.1/32 scram-sha-256")
        .tls(&certificates)
        .start()
        .await;
    for (name, value) in [("wal_level", "replica"), ("work_mem", "1MB"), ("server_encoding", "LATIN1"), ("ssl", "on")] {
        assert_eq!(postgres.value(&format!("show {name}")).await, value, "{name}");
    }
    postgres.sql("create role locked login password 'secret'").await;
    let url = |password| postgres.url_as(&format!("locked:{password}"), "postgres");
    assert!(tokio_postgres::connect(&url("wrong"), tokio_postgres::NoTls).await.is_err());
    assert!(tokio_postgres::connect(&url("secret"), tokio_postgres::NoTls).await.is_ok());
}

#[tokio::test]
async fn tests_share_a_broker_and_see_nothing_of_each_other() {
    let (one, two) = (RabbitMq::shared().await, RabbitMq::shared().await);
    assert_eq!(one.port(), two.port());
    assert_ne!(one.vhost(), two.vhost());
    for rabbit in [&one, &two] {
        rabbit.declare_queue_of_everything("q").await;
    }
    one.publish("towpath", "a.b", "1", b"{\"x\":1}").await;
    let mut inbox = one.inbox("q");
    let delivery = inbox.until_count(1, SOON).await[0].clone();
    assert_eq!((delivery.message_id.as_str(), delivery.routing_key.as_str()), ("1", "a.b"));
    assert_eq!(delivery.json()["x"], 1);
    assert_eq!(two.depth("q").await, 0);
}

#[tokio::test]
async fn a_policy_bounds_a_queue() {
    let rabbit = RabbitMq::shared().await;
    rabbit.declare_exchange("e").await;
    rabbit.declare_queue("q", QueueKind::Classic).await;
    rabbit.bind("q", "e", "#").await;
    rabbit.set_policy("short", "^q$", r#"{"max-length":1}"#).await;
    eventually("the policy to hold", SOON, async || {
        rabbit.publish("e", "k", "", b"").await;
        rabbit.publish("e", "k", "", b"").await;
        let depth = rabbit.depth("q").await;
        if depth == 1 { Ok(()) } else { Err(depth) }
    })
    .await;
}

#[tokio::test]
async fn a_broker_of_ones_own_can_be_killed_stopped_and_alarmed() {
    let certificates = Certificates::new("towpath");
    let mut rabbit = RabbitMq::builder().tls(&certificates).start().await;
    rabbit.declare_queue_of_everything("q").await;
    rabbit.publish("towpath", "k", "kept", b"").await;
    let mut inbox = rabbit.inbox("q");
    inbox.until_count(1, SOON).await;

    rabbit.alarm(true).await;
    assert!(rabbit.ctl(&["status"]).await.contains("Memory alarm"));
    rabbit.alarm(false).await;

    rabbit.kill().await;
    rabbit.start_again().await;
    rabbit.publish("towpath", "k", "after a kill", b"").await;
    inbox.until_count(2, SOON).await;
    rabbit.stop().await;
    assert!(TcpStream::connect(("127.0.0.1", rabbit.port())).await.is_err());
    assert!(rabbit.tls_url().starts_with("amqps://guest:guest@localhost:"));
}

/// Sends back what it receives.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    port
}

async fn ask(stream: &mut TcpStream, bytes: usize) -> std::io::Result<Duration> {
    let started = Instant::now();
    stream.write_all(&vec![7; bytes]).await?;
    stream.read_exact(&mut vec![0; bytes]).await?;
    Ok(started.elapsed())
}

#[tokio::test]
async fn the_proxy_delays_throttles_and_falls_silent() {
    let proxy = Proxy::start(echo().await);
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    ask(&mut stream, 100_000).await.unwrap();
    proxy.delay(Duration::from_millis(50));
    assert!(ask(&mut stream, 10).await.unwrap() >= Duration::from_millis(100), "once there and once back");
    proxy.heal();
    proxy.throttle(100_000);
    assert!(ask(&mut stream, 20_000).await.unwrap() >= Duration::from_millis(190));
    proxy.heal();

    proxy.half_open();
    stream.write_all(b"held").await.unwrap();
    let mut back = [0; 4];
    assert!(tokio::time::timeout(Duration::from_millis(200), stream.read_exact(&mut back)).await.is_err());
    proxy.heal();
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!((&back, proxy.accepted(), proxy.open()), (b"held", 1, 1));
}

#[tokio::test]
async fn the_proxy_cuts_resets_and_refuses() {
    let proxy = Proxy::start(echo().await);
    let connect = || TcpStream::connect(("127.0.0.1", proxy.port()));
    let mut stream = connect().await.unwrap();
    ask(&mut stream, 10).await.unwrap();
    proxy.cut();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "closed");

    let mut stream = connect().await.unwrap();
    ask(&mut stream, 10).await.unwrap();
    proxy.reset();
    let error = stream.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    proxy.refuse();
    eventually("refusal", SOON, async || if connect().await.is_err() { Ok(()) } else { Err("accepted") }).await;
    proxy.heal();
    eventually("an accepted connection", SOON, async || ask(&mut connect().await?, 10).await).await;
}

/// Plays the test that is killed in `servers_die_with_a_test_that_is_killed`; by itself it does nothing.
#[tokio::test]
async fn a_test_to_be_killed() {
    let Ok(file) = std::env::var("KILLED_TEST_TELLS") else { return };
    let (postgres, mut rabbit) = tokio::join!(Postgres::start(), RabbitMq::own());
    std::fs::write(&file, format!("{} {}", postgres.pid(), rabbit.pid())).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn servers_die_with_a_test_that_is_killed() {
    // Nobody deletes the folders of a killed test at once: they lie in this one, which the servers' users may enter.
    let folder = towpath_test_support::Folder::new("killed");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = folder.path().join("pids");
    let mut test = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_test_to_be_killed"])
        .env("KILLED_TEST_TELLS", &file)
        .env("TMPDIR", folder.path())
        .spawn()
        .unwrap();
    let pids = eventually("the servers' pids", SOON * 6, async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let pids: Vec<u32> = text.split(' ').flat_map(str::parse).collect();
        if pids.len() == 2 { Ok(pids) } else { Err(text) }
    })
    .await;
    test.kill().unwrap();
    test.wait().unwrap();
    eventually("the servers' end", SOON, async || {
        let alive: Vec<_> =
            pids.iter().filter(|pid| std::path::Path::new(&format!("/proc/{pid}/cwd")).exists()).collect();
        if alive.is_empty() { Ok(()) } else { Err(format!("{alive:?} live on")) }
    })
    .await;
}
