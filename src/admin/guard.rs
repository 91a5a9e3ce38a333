//! Who may call the admin API.
//!
//! On loopback without a token, two kinds of callers are kept out that are not this machine's user: a web page that had its
//! own name resolve to 127.0.0.1 (its requests carry that name as `Host`), and a web page that posts to us from afar
//! (a browser sends `application/json` across sites only after asking, and nobody answers).

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use towpath_contract::Secret;

use super::api::refused;
use super::command::{Refusal, RefusalKind};

/// Asked of every caller but health checks: an orchestrator has no token to give.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

pub(super) async fn guard(State(token): State<Option<Secret>>, request: Request, next: Next) -> Response {
    match judge(token.as_ref(), request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, message)) => {
            let mut response = refused(status, &Refusal::new(RefusalKind::Invalid, message));
            if status == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert("www-authenticate", axum::http::HeaderValue::from_static("Bearer"));
            }
            response.into_response()
        }
    }
}

fn judge(
    token: Option<&Secret>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), (StatusCode, &'static str)> {
    let header = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    match token {
        Some(_) if OPEN_PATHS.contains(&uri.path()) => {}
        Some(token) => {
            let given = header(AUTHORIZATION).and_then(|value| value.split_once(' '));
            let given =
                given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map_or("", |(_, given)| given);
            if !bool::from(given.as_bytes().ct_eq(token.reveal().as_bytes())) {
                return Err((
                    StatusCode::UNAUTHORIZED,
                    "the token is missing or wrong: send `Authorization: Bearer …`",
                ));
            }
        }
        None => {
            if !header(HOST).is_some_and(is_loopback) {
                return Err((
                    StatusCode::FORBIDDEN,
                    "without a token, only localhost and loopback addresses are answered",
                ));
            }
        }
    }
    let json = header(CONTENT_TYPE)
        .is_some_and(|value| value.split(';').next().is_some_and(|v| v.trim() == "application/json"));
    if method == Method::POST && !json {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "a POST needs `Content-Type: application/json`"));
    }
    Ok(())
}

/// Whether a `Host` header names this machine from the inside.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(token: Option<&str>, method: &str, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        let token = token.map(Secret::new);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let method: Method = method.parse().unwrap();
        judge(token.as_ref(), &method, &path.parse().unwrap(), &map).err().map_or(200, |(status, _)| status.as_u16())
    }

    #[test]
    fn a_token_is_asked_of_every_caller_but_health_checks() {
        let token = Some("0123456789abcdef");
        let right = [("authorization", "Bearer 0123456789abcdef")];
        for path in ["/metrics", "/api/status", "/api/sources/a/pause", "/", "/healthz/", "//healthz"] {
            assert_eq!(status(token, "GET", path, &[]), 401, "{path}");
            assert_eq!(status(token, "GET", path, &[("authorization", "Bearer 0123456789abcdeF")]), 401, "{path}");
            assert_eq!(status(token, "GET", path, &[("authorization", "Bearer ")]), 401, "{path}");
            assert_eq!(status(token, "GET", path, &[("authorization", "Basic 0123456789abcdef")]), 401, "{path}");
            assert_eq!(status(token, "GET", path, &right), 200, "{path}");
        }
        assert_eq!(status(token, "GET", "/healthz", &[]), 200);
        assert_eq!(status(token, "GET", "/readyz?verbose=1", &[("host", "anything")]), 200);
    }

    #[test]
    fn without_a_token_a_foreign_name_is_refused() {
        for host in ["localhost:9187", "127.0.0.1", "127.8.0.1:1", "[::1]:9187", "LOCALHOST"] {
            assert_eq!(status(None, "GET", "/api/status", &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example:9187", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]"] {
            assert_eq!(status(None, "GET", "/api/status", &[("host", host)]), 403, "{host}");
            assert_eq!(status(None, "GET", "/healthz", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(status(None, "GET", "/api/status", &[]), 403);
    }

    #[test]
    fn a_form_of_another_site_cannot_post() {
        let post = |kind: Option<&str>| {
            let mut headers = vec![("host", "localhost")];
            headers.extend(kind.map(|kind| ("content-type", kind)));
            status(None, "POST", "/api/sources/a/pause", &headers)
        };
        assert_eq!(post(None), 415);
        assert_eq!(post(Some("text/plain")), 415);
        assert_eq!(post(Some("application/x-www-form-urlencoded")), 415);
        assert_eq!(post(Some("application/json; charset=utf-8")), 200);
    }
}
