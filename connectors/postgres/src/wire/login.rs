//! From an open socket to a session that takes commands: startup and authentication.
//!
//! PostgreSQL manual, "Message Flow: Start-up"; SCRAM: "SASL Authentication".

use bytes::BytesMut;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;
use towpath_contract::{Error, ErrorKind, Result};

use super::{Message, WalSender};
use crate::connect::Login;
use crate::failure::ServerError;

const OPERATION: &str = "logging in for replication";

/// Codes of the Authentication message.
mod auth {
    pub(super) const OK: u32 = 0;
    pub(super) const CLEARTEXT: u32 = 3;
    pub(super) const MD5: u32 = 5;
    pub(super) const SASL: u32 = 10;
    pub(super) const SASL_CONTINUE: u32 = 11;
    pub(super) const SASL_FINAL: u32 = 12;
}

pub(super) async fn log_in(session: &mut WalSender, login: &Login) -> Result<()> {
    let parameters = [
        ("user", login.user.as_str()),
        ("database", &login.database),
        ("replication", "database"),
        ("application_name", &login.application_name),
        ("client_encoding", "UTF8"),
        ("options", &login.options),
    ];
    let mut out = BytesMut::new();
    frontend::startup_message(parameters, &mut out).map_err(|error| Error::bug(OPERATION, error))?;
    session.send(&out, OPERATION).await?;
    authenticate(session, login).await?;
    loop {
        match session.receive(OPERATION).await? {
            Message { tag: b'Z', .. } => return Ok(()),
            Message { tag: b'E', body } => return Err(ServerError::parse(body).into_error(OPERATION)),
            // Parameters, the key for cancelling, notices.
            Message { tag: b'S' | b'K' | b'N', .. } => {}
            Message { tag, .. } => return Err(unexpected(tag)),
        }
    }
}

async fn authenticate(session: &mut WalSender, login: &Login) -> Result<()> {
    let mut scram: Option<sasl::ScramSha256> = None;
    loop {
        let mut out = BytesMut::new();
        let (code, data) = authentication_step(session).await?;
        match code {
            auth::OK => return Ok(()),
            auth::CLEARTEXT => frontend::password_message(password(login)?, &mut out).map_err(failed)?,
            auth::MD5 => {
                let salt = data.try_into().map_err(|_| unexpected(b'R'))?;
                let hash = md5_hash(login.user.as_bytes(), password(login)?, salt);
                frontend::password_message(hash.as_bytes(), &mut out).map_err(failed)?;
            }
            auth::SASL => {
                let (mechanism, binding) = choose(&data, session.binding())?;
                let started = sasl::ScramSha256::new(password(login)?, binding);
                frontend::sasl_initial_response(mechanism, started.message(), &mut out).map_err(failed)?;
                scram = Some(started);
            }
            auth::SASL_CONTINUE => {
                let scram = scram.as_mut().ok_or_else(|| unexpected(b'R'))?;
                scram.update(&data).map_err(failed)?;
                frontend::sasl_response(scram.message(), &mut out).map_err(failed)?;
            }
            auth::SASL_FINAL => scram.as_mut().ok_or_else(|| unexpected(b'R'))?.finish(&data).map_err(failed)?,
            other => {
                let message = format!("the server asks for authentication method {other}, which Towpath does not know");
                return Err(Error::operator(ErrorKind::Authentication, OPERATION, message)
                    .with_help("use scram-sha-256 or cert in pg_hba.conf for this role"));
            }
        }
        if !out.is_empty() {
            session.send(&out, OPERATION).await?;
        }
    }
}

/// The next Authentication message: its code and data.
async fn authentication_step(session: &mut WalSender) -> Result<(u32, Vec<u8>)> {
    loop {
        match session.receive(OPERATION).await? {
            Message { tag: b'R', body } => {
                let (code, data) = body.split_first_chunk::<4>().ok_or_else(|| unexpected(b'R'))?;
                return Ok((u32::from_be_bytes(*code), data.to_vec()));
            }
            Message { tag: b'E', body } => return Err(ServerError::parse(body).into_error(OPERATION)),
            Message { tag: b'N', .. } => {}
            Message { tag, .. } => return Err(unexpected(tag)),
        }
    }
}

/// SCRAM bound to the TLS channel wherever both sides can.
fn choose(offered: &[u8], binding: Option<&[u8]>) -> Result<(&'static str, sasl::ChannelBinding)> {
    let offers = |mechanism: &str| offered.split(|byte| *byte == 0).any(|name| name == mechanism.as_bytes());
    match binding {
        Some(binding) if offers(sasl::SCRAM_SHA_256_PLUS) => {
            Ok((sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(binding.to_vec())))
        }
        // "I could have, and you did not offer it": lets the server notice a downgrade.
        Some(_) if offers(sasl::SCRAM_SHA_256) => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
        None if offers(sasl::SCRAM_SHA_256) => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
        _ => Err(Error::operator(
            ErrorKind::Authentication,
            OPERATION,
            "the server offers no SASL mechanism that Towpath knows (SCRAM-SHA-256)",
        )),
    }
}

fn password(login: &Login) -> Result<&[u8]> {
    login.password.as_ref().map(|secret| secret.reveal().as_bytes()).ok_or_else(|| no_password(&login.user))
}

pub(crate) fn no_password(user: &str) -> Error {
    let message = format!("the server asks for the password of {user}, and none is configured");
    Error::operator(ErrorKind::Authentication, OPERATION, message)
        .with_help("give it as `password`, in `url`, or in the .pgpass file (which must not be readable by others)")
}

/// The server's proof or nonce did not fit, or a string held a zero byte. The cause's text is the library's own.
fn failed(error: std::io::Error) -> Error {
    Error::operator(ErrorKind::Authentication, OPERATION, format!("the exchange failed: {error}"))
        .with_help("check the password, and that nothing stands between Towpath and the server")
}

fn unexpected(tag: u8) -> Error {
    super::unexpected(tag, OPERATION)
}
