//! `towpath doctor`

use std::fmt::Write;

use serde_json::json;
use towpath_contract::{Finding, Severity};

use super::engine::{Examined, FindingRecord, severity_name};
use super::{Call, Failure};
use crate::config::Purpose;

pub(super) fn doctor(call: &Call<'_>) -> Result<(), Failure> {
    let config = call.load(Purpose::Run)?;
    let examined = call.block_on(async { Ok(call.engine.doctor(&config).await) })?;
    let errors = count(&examined, Severity::Error);
    call.print(|| records(&examined), || page(&examined));
    if errors == 0 { Ok(()) } else { Err(Failure::Said) }
}

fn records(examined: &[Examined]) -> serde_json::Value {
    let subjects: Vec<serde_json::Value> = examined
        .iter()
        .map(|Examined { subject, findings }| {
            json!({ "subject": subject, "findings": findings.iter().map(FindingRecord::from).collect::<Vec<_>>() })
        })
        .collect();
    json!({ "ok": count(examined, Severity::Error) == 0, "subjects": subjects })
}

fn count(examined: &[Examined], severity: Severity) -> usize {
    examined.iter().flat_map(|subject| &subject.findings).filter(|finding| finding.severity == severity).count()
}

/// Per subject what was found, the worst first, and what mends it as a block that can be pasted.
fn page(examined: &[Examined]) -> String {
    let mut page = String::new();
    for Examined { subject, findings } in examined {
        if findings.is_empty() {
            let _ = write!(page, "{subject}: nothing in the way\n\n");
            continue;
        }
        let _ = write!(page, "{subject}\n\n");
        let mut findings: Vec<&Finding> = findings.iter().collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        findings.into_iter().for_each(|finding| one(&mut page, finding));
    }
    page + &summary(examined)
}

fn one(page: &mut String, finding: &Finding) {
    const WIDTH_CHARS: usize = 96;
    let label = format!("{}:", severity_name(finding.severity));
    let mut lines = wrapped(&format!("{label} {} [{}]", finding.message, finding.code), WIDTH_CHARS).into_iter();
    let _ = writeln!(page, "  {}", lines.next().unwrap_or_default());
    lines.for_each(|line| page.push_str(&format!("    {line}\n")));
    if let Some(who) = &finding.who {
        let _ = writeln!(page, "    To be done by {who}{}", if finding.fix.is_some() { ":" } else { "." });
    }
    if let Some(fix) = &finding.fix {
        page.push('\n');
        fix.lines().for_each(|line| page.push_str(&format!("        {line}\n")));
    }
    page.push('\n');
}

fn summary(examined: &[Examined]) -> String {
    let counted = |severity, one: &str, many: &str| match count(examined, severity) {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {many}")),
    };
    let parts = [
        counted(Severity::Error, "error", "errors"),
        counted(Severity::Warning, "warning", "warnings"),
        counted(Severity::Note, "note", "notes"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => "All is well: `towpath run` can start.".into(),
        false if count(examined, Severity::Error) == 0 => {
            format!("{}. Nothing keeps `towpath run` from starting.", parts.join(", "))
        }
        false => format!("{}. `towpath run` would not capture everything.", parts.join(", ")),
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("starts with a line");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, code: &'static str, message: &str, fix: Option<&str>, who: Option<&str>) -> Finding {
        Finding { severity, code, message: message.into(), fix: fix.map(Into::into), who: who.map(Into::into) }
    }

    fn examined() -> Vec<Examined> {
        vec![
            Examined {
                subject: "source orders_db".into(),
                findings: vec![
                    finding(
                        Severity::Warning,
                        "table_without_key",
                        "public.audit has no primary key: its updates and deletes carry no old row, so a consumer cannot tell which row is meant.",
                        Some("ALTER TABLE public.audit REPLICA IDENTITY FULL;"),
                        Some("the owner of public.audit"),
                    ),
                    finding(
                        Severity::Error,
                        "wal_level",
                        "wal_level is `replica`; logical replication needs `logical`.",
                        Some("ALTER SYSTEM SET wal_level = logical;\n-- then restart the server"),
                        Some("a superuser"),
                    ),
                ],
            },
            Examined { subject: "rabbitmq".into(), findings: vec![] },
        ]
    }

    #[test]
    fn findings_read_from_the_worst_down_with_what_mends_them() {
        insta::assert_snapshot!(page(&examined()), @r"
        source orders_db

          error: wal_level is `replica`; logical replication needs `logical`. [wal_level]
            To be done by a superuser:

                ALTER SYSTEM SET wal_level = logical;
                -- then restart the server

          warning: public.audit has no primary key: its updates and deletes carry no old row, so a
            consumer cannot tell which row is meant. [table_without_key]
            To be done by the owner of public.audit:

                ALTER TABLE public.audit REPLICA IDENTITY FULL;

        rabbitmq: nothing in the way

        1 error, 1 warning. `towpath run` would not capture everything.
        ");
    }

    #[test]
    fn nothing_found_is_said_in_a_word() {
        let page = page(&[Examined { subject: "rabbitmq".into(), findings: vec![] }]);
        assert_eq!(page, "rabbitmq: nothing in the way\n\nAll is well: `towpath run` can start.");
    }

    #[test]
    fn machines_get_every_field() {
        let json = records(&examined());
        assert_eq!(json["ok"], false);
        assert_eq!(json["subjects"][0]["findings"][1]["severity"], "error");
        assert_eq!(json["subjects"][0]["findings"][0]["who"], "the owner of public.audit");
        assert_eq!(json["subjects"][1]["findings"], json!([]));
    }
}
