//! Asking a towpath: the running process, or its outbox where none runs.

use serde_json::{Value as Json, json};

use super::client::{Client, Fault, segment};
use super::{Call, Failure};
use crate::admin::command::Command;
use crate::admin::parked::{ParkedEvent, ParkedPage, ParkedQuery, ParkedSelection};
use crate::admin::{Handle, Outcome, Reply, Status};
use crate::config::Checked;
use crate::event::Seq;

pub(super) struct Asker<'a> {
    call: &'a Call<'a>,
    config: &'a Checked,
    client: Client,
}

impl<'a> Asker<'a> {
    pub(super) fn new(call: &'a Call<'a>, config: &'a Checked) -> Asker<'a> {
        Asker { call, config, client: Client::new(&config.admin) }
    }

    pub(super) async fn status(&self) -> Result<Status, Failure> {
        match self.client.get("/api/status").await {
            Ok(status) => Ok(status),
            Err(Fault::NotRunning) => {
                let outbox = self.stopped().await?;
                outbox.status().await.ok_or_else(|| Failure::work("the outbox does not answer", None))
            }
            Err(Fault::Refused(refusal)) => Err(refusal.into()),
        }
    }

    /// Something that only a running process can do. Gives its sentence.
    pub(super) async fn post(&self, path: &[&str], body: Json) -> Result<String, Failure> {
        let path: String = path.iter().map(|part| format!("/{}", segment(part))).collect();
        match self.client.post::<Json>(&path, &body).await {
            Ok(answer) => Ok(done(&answer)),
            Err(Fault::NotRunning) => Err(self.not_running(None)),
            Err(Fault::Refused(refusal)) => Err(refusal.into()),
        }
    }

    pub(super) async fn parked_list(&self, query: ParkedQuery) -> Result<ParkedPage, Failure> {
        let route = query.route.as_deref().map(|route| format!("&route={}", segment(route))).unwrap_or_default();
        let path = format!("/api/parked?after={}&limit={}{route}", query.after, query.limit);
        match self.client.get(&path).await {
            Ok(page) => Ok(page),
            Err(Fault::NotRunning) => {
                Ok(self.stopped().await?.outcome(|reply| Command::ParkedList { query, reply }).await?)
            }
            Err(Fault::Refused(refusal)) => Err(refusal.into()),
        }
    }

    pub(super) async fn parked_show(&self, seq: Seq) -> Result<ParkedEvent, Failure> {
        match self.client.get(&format!("/api/parked/{seq}")).await {
            Ok(event) => Ok(event),
            Err(Fault::NotRunning) => {
                Ok(self.stopped().await?.outcome(|reply| Command::ParkedShow { seq, reply }).await?)
            }
            Err(Fault::Refused(refusal)) => Err(refusal.into()),
        }
    }

    /// Retries or discards, by `verb`.
    pub(super) async fn parked_settle(
        &self,
        verb: &str,
        selection: ParkedSelection,
        command: impl FnOnce(ParkedSelection, Reply<Outcome>) -> Command,
    ) -> Result<String, Failure> {
        match self.client.post::<Json>(&format!("/api/parked/{verb}"), &json!(selection)).await {
            Ok(answer) => Ok(done(&answer)),
            Err(Fault::NotRunning) => Ok(self.stopped().await?.outcome(|reply| command(selection, reply)).await?),
            Err(Fault::Refused(refusal)) => Err(refusal.into()),
        }
    }

    /// No process answers: the outbox itself is asked.
    async fn stopped(&self) -> Result<Handle, Failure> {
        self.call.engine.stopped(self.config).await.map_err(|error| self.not_running(Some(&error)))
    }

    fn not_running(&self, outbox: Option<&towpath_contract::Error>) -> Failure {
        let message = format!("not running: nobody answers on {}", self.client.address());
        match outbox {
            None => {
                Failure::work(message, Some("start it with `towpath run`, or name its config with --config".into()))
            }
            Some(error) => Failure::work(
                format!("{message}, and the outbox cannot be read: {}", error.message),
                error.help.clone(),
            ),
        }
    }
}

fn done(answer: &Json) -> String {
    answer["done"].as_str().unwrap_or("done").to_owned()
}
