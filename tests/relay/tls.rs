//! TLS: who is trusted, and who is not.

use serde_json::json;
use towpath::relay::ConnectionState;
use towpath_test_support::{Certificates, RabbitMq};

use crate::outbox::{Rig, WITHIN, config, draft, plain_routes};

#[tokio::test]
async fn a_private_authority_is_trusted_by_its_file_and_no_other_is() {
    let certificates = Certificates::new("guest");
    let strangers = Certificates::new("guest");
    let rabbit = RabbitMq::builder()
        .tls(&certificates)
        .settings("auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name")
        .start()
        .await;
    rabbit.declare_queue_of_everything("q").await;
    let tls = json!({ "tls": { "ca": certificates.ca } });
    let rig = Rig::start(&config(&rabbit.tls_url(), tls), plain_routes(1));
    let last = rig.outbox.record((0..2000).map(|n| {
        let mut event = draft(1, n, "k");
        event.body = vec![b'x'; 2000];
        event
    }));
    rig.outbox.until_settled(1, last).await;
    assert_eq!(rabbit.inbox("q").until_count(2000, WITHIN).await.len(), 2000);
    assert_eq!(rig.status.borrow().topology, [] as [String; 0], "lapin trusts the same authority");
    rig.relay.stop().await;

    // A client certificate, where the broker asks for one.
    let both = json!({
        "tls": { "ca": certificates.ca, "certificate": certificates.client, "key": certificates.client_key }
    });
    let rig = Rig::start(&config(&rabbit.tls_url(), both), plain_routes(1));
    let last = rig.outbox.record([draft(1, 1, "k")]);
    rig.outbox.until_settled(1, last).await;
    assert_eq!(rig.status.borrow().topology, [] as [String; 0], "lapin shows the certificate too");
    rig.relay.stop().await;

    // Another authority; the system's; a name that the certificate does not hold; plain text where TLS is spoken.
    let foreign = json!({ "tls": { "ca": strangers.ca } });
    let ours = json!({ "tls": { "ca": certificates.ca } });
    let other_name = rabbit.tls_url().replace("localhost", "127.0.0.2");
    for (url, tls, words) in [
        (rabbit.tls_url(), foreign, "certificate was refused"),
        (rabbit.tls_url(), json!({}), "certificate was refused"),
        (other_name, ours.clone(), "certificate was refused"),
        (rabbit.url().replace("amqp://", "amqps://"), ours, "does not speak TLS"),
    ] {
        let mut rig = Rig::start(&config(&url, tls), plain_routes(1));
        let failed = |status: &towpath::relay::RelayStatus| {
            matches!(&status.connection, ConnectionState::Connecting { reason: Some(_), .. })
        };
        let status = rig.until("refused", failed).await;
        let ConnectionState::Connecting { reason: Some(reason), .. } = status.connection else { unreachable!() };
        // A wrong address may be refused by the kernel instead: the broker listens on 127.0.0.1 only.
        assert!(reason.contains(words) || reason.contains("refused"), "{url}: {reason}");
        rig.relay.stop().await;
    }
}
