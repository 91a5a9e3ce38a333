//! The paths of the admin API. Each turns a request into a [`Command`] and its answer into JSON.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::{Deserialize, Serialize};
use serde_json::json;
use towpath_contract::Secret;

use super::command::{Command, Handle, Outcome, Refusal, RefusalKind, Reply};
use super::guard::guard;
use super::health::{Health, healthz, readyz};
use super::metrics::{self, Metrics};
use super::parked::{ParkedQuery, ParkedSelection};
use crate::event::Seq;

/// The largest request body, in bytes: a thousand numbers and some names.
const BODY_BYTES_MAX: usize = 64 << 10;

#[derive(Clone)]
pub(super) struct Api {
    pub(super) handle: Handle,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ready_lag_max: Duration,
}

pub(super) fn router(api: Api, token: Option<Secret>) -> Router {
    Router::new()
        .route(
            "/healthz",
            get(|State(api): State<Api>| async move { health(&healthz(api.handle.status().await.as_ref())) }),
        )
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .route("/api/status", get(status))
        .route("/api/sources/{name}/pause", post(pause_source))
        .route("/api/sources/{name}/resume", post(resume_source))
        .route("/api/sources/{name}/snapshot", post(snapshot))
        .route("/api/parked", get(parked_list))
        .route("/api/parked/{seq}", get(parked_show))
        .route("/api/parked/retry", post(parked_retry))
        .route("/api/parked/discard", post(parked_discard))
        .fallback(|| async {
            refused(StatusCode::NOT_FOUND, &Refusal::new(RefusalKind::NotFound, "there is no such path"))
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(token, guard))
        .with_state(api)
}

async fn ready(State(api): State<Api>) -> Response {
    health(&readyz(api.handle.status().await.as_ref(), api.ready_lag_max))
}

async fn metrics_text(State(api): State<Api>) -> Response {
    let text = api.metrics.text(api.handle.status().await.as_ref());
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn status(State(api): State<Api>) -> Response {
    match api.handle.status().await {
        Some(status) => Json(status).into_response(),
        None => answer::<()>(Err(Refusal::new(RefusalKind::Silent, "the event loop does not answer"))),
    }
}

async fn pause_source(State(api): State<Api>, Path(source): Path<String>) -> Response {
    said(&api, |reply| Command::PauseSource { source, reply }).await
}

async fn resume_source(State(api): State<Api>, Path(source): Path<String>) -> Response {
    said(&api, |reply| Command::ResumeSource { source, reply }).await
}

/// The body of a call for a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCall {
    /// `schema.table`; empty for all that the source captures.
    #[serde(default)]
    pub tables: Vec<String>,
    #[serde(default)]
    pub after_gap: bool,
}

async fn snapshot(
    State(api): State<Api>,
    Path(source): Path<String>,
    call: Result<Json<SnapshotCall>, JsonRejection>,
) -> Response {
    match call {
        Ok(Json(SnapshotCall { tables, after_gap })) => {
            said(&api, |reply| Command::Snapshot { source, tables, after_gap, reply }).await
        }
        Err(rejection) => rejected(rejection.status(), rejection.body_text()),
    }
}

async fn parked_list(State(api): State<Api>, query: Result<Query<ParkedQuery>, QueryRejection>) -> Response {
    match query {
        Ok(Query(query)) => answer(api.handle.outcome(|reply| Command::ParkedList { query, reply }).await),
        Err(rejection) => rejected(rejection.status(), rejection.body_text()),
    }
}

async fn parked_show(State(api): State<Api>, Path(seq): Path<String>) -> Response {
    match seq.parse::<Seq>() {
        Ok(seq) => answer(api.handle.outcome(|reply| Command::ParkedShow { seq, reply }).await),
        Err(_) => invalid("a parked event is named by its number"),
    }
}

async fn parked_retry(State(api): State<Api>, call: Result<Json<ParkedSelection>, JsonRejection>) -> Response {
    settle(&api, call, |selection, reply| Command::ParkedRetry { selection, reply }).await
}

async fn parked_discard(State(api): State<Api>, call: Result<Json<ParkedSelection>, JsonRejection>) -> Response {
    settle(&api, call, |selection, reply| Command::ParkedDiscard { selection, reply }).await
}

async fn settle(
    api: &Api,
    call: Result<Json<ParkedSelection>, JsonRejection>,
    command: impl FnOnce(ParkedSelection, Reply<Outcome>) -> Command,
) -> Response {
    match call {
        Ok(Json(selection)) if selection.is_clear() => said(api, |reply| command(selection, reply)).await,
        Ok(_) => invalid("name `seqs`, a `route`, or `all`: one of the three"),
        Err(rejection) => rejected(rejection.status(), rejection.body_text()),
    }
}

/// A command whose answer is a sentence.
async fn said(api: &Api, command: impl FnOnce(Reply<Outcome>) -> Command) -> Response {
    answer(api.handle.outcome(command).await.map(|done| json!({ "done": done })))
}

fn answer<T: Serialize>(result: Result<T, Refusal>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(refusal) => refused(status_code(refusal.kind), &refusal),
    }
}

fn invalid(message: &str) -> Response {
    rejected(StatusCode::BAD_REQUEST, message.to_owned())
}

fn rejected(status: StatusCode, message: String) -> Response {
    refused(status, &Refusal::new(RefusalKind::Invalid, message))
}

pub(super) fn refused(status: StatusCode, refusal: &Refusal) -> Response {
    (status, Json(json!({ "error": refusal }))).into_response()
}

fn status_code(kind: RefusalKind) -> StatusCode {
    match kind {
        RefusalKind::NotFound => StatusCode::NOT_FOUND,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::Invalid => StatusCode::BAD_REQUEST,
        RefusalKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        RefusalKind::Silent => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn health(health: &Health) -> Response {
    let status = if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}
