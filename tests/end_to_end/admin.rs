//! Asking a running Towpath by HTTP.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Where its admin API is, and what it asks of callers.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) port: u16,
    pub(crate) token: String,
}

impl Admin {
    /// A GET: the status and the whole answer; 0 and what came of it where nobody answers.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let mut answer = String::new();
        if let Ok(mut socket) = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await {
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
                self.token
            );
            // A process that ends meanwhile gives an empty answer; one that is stopped gives none.
            let asked = async {
                socket.write_all(request.as_bytes()).await?;
                socket.read_to_string(&mut answer).await
            };
            let _ = tokio::time::timeout(std::time::Duration::from_secs(2), asked).await;
        }
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, answer)
    }

    /// The value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let answer = self.get("/metrics").await.1;
        answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}
