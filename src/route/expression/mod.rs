//! Expressions of `filter`, `set` and `emit_when`: the grammar is CEL's, read by the `cel` crate; what they mean for the columns of
//! a table is settled once, with types, exact decimals, and no name left to look up when a change comes.

mod comparable;
mod compile;
mod functions;
mod number;
mod run;
#[cfg(any(test, fuzzing))]
mod sample;
#[cfg(test)]
mod tests;
mod tree;
mod types;
mod value;

use std::fmt;

use cel::parser::{Expression as Parsed, Parser};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::transform::Fault;

pub(super) use self::compile::Scope;
use self::compile::faulty_call;
pub(super) use self::run::Input;
#[cfg(any(test, fuzzing))]
pub(crate) use self::sample::compile_expression;
pub(super) use self::tree::{Column, Program};
pub(super) use self::types::Type;
pub(super) use self::value::Value;

/// Deeper ones are refused before they are read: an expression that a person writes has a handful.
const DEPTH_MAX: u16 = 48;

/// Longer ones are refused.
const BYTES_MAX: usize = 4 << 10;

const PARSER_STACK_BYTES: usize = 64 << 20;

/// An expression as the config writes it, well-formed or not.
#[derive(Clone, JsonSchema)]
#[schemars(with = "String")]
pub(super) struct Expression {
    text: String,
    parsed: Result<Parsed, String>,
}

impl Expression {
    pub(super) fn new(text: String) -> Expression {
        let parsed = parse(&text);
        Expression { text, parsed }
    }

    /// What is wrong with it whatever columns there are.
    pub(super) fn fault(&self) -> Option<Fault> {
        match self.compile(&mut NoColumns) {
            Err(fault) => Some(fault),
            // All of it was seen.
            Ok(Some(_)) => None,
            Ok(None) => self.parsed.as_ref().ok().and_then(faulty_call),
        }
    }

    /// The same, of one that says yes or no.
    pub(super) fn condition_fault(&self) -> Option<Fault> {
        self.fault().or_else(|| self.condition(&mut NoColumns).err())
    }

    /// Settles it for one table.
    ///
    /// # Errors
    /// What is wrong with it there.
    pub(super) fn compile(&self, scope: &mut dyn Scope) -> Result<Option<Program>, Fault> {
        match &self.parsed {
            Ok(parsed) => Program::new(parsed, scope),
            Err(why) => Err(Fault::new(why.clone())),
        }
    }

    /// One that says yes or no.
    ///
    /// # Errors
    /// What is wrong with it there.
    pub(super) fn condition(&self, scope: &mut dyn Scope) -> Result<Option<Program>, Fault> {
        match self.compile(scope)? {
            Some(program) if !matches!(program.of, Type::Bool | Type::Null) => {
                let message = format!("this is {}, and a condition is true or false", program.of.name());
                Err(Fault::new(message).help("compare it with something: `status == 'A'`"))
            }
            program => Ok(program),
        }
    }
}

/// Where no table is known yet: an expression is followed up to its first column.
struct NoColumns;

impl Scope for NoColumns {
    fn column(&mut self, _: &str) -> Result<Option<Column>, Fault> {
        Ok(None)
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Expression::new)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

fn parse(text: &str) -> Result<Parsed, String> {
    if text.len() > BYTES_MAX {
        return Err(format!("the expression has {} bytes; at most {BYTES_MAX} are read", text.len()));
    }
    // The parser goes deep before it counts.
    let parse = || Parser::new().max_recursion_depth(DEPTH_MAX).parse(text);
    let parsed = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn_scoped(scope, parse);
        thread
            .map_err(|error| format!("no thread could be had to read the expression: {error}"))?
            .join()
            .map_err(|_| "the expression cannot be read".to_owned())
    })?;
    parsed.map_err(|errors| {
        let why = errors.errors.first().map_or("it is not well-formed", |error| error.msg.as_str());
        // The parser's own words go on for lines, with what it expected: the start says it.
        let why = why.split(" expecting ").next().unwrap_or(why).trim_start_matches("Syntax error: ");
        let why =
            if why.starts_with("token recognition error at: '=") { "`=` is no operator; `==` compares" } else { why };
        format!("the expression cannot be read: {why}")
    })
}
