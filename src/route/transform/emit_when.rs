//! `emit_when`

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_contract::{Op, Value};

use super::run::{Choice, Chosen, Reason, View};
use super::shape::{At, Fault, Shape, Variant};
use super::trim::trimmed;
use super::{Reads, Step};
use crate::route::expression::Input;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct EmitWhen(Form);

/// Makes events of state transitions alone: `emit_when: { status: { "A -> S": OrderShipped, "* -> X": OrderCancelled, "new -> A":
/// OrderPlaced } }`. A change whose column goes from one value to the other becomes an event of that type; every other change becomes
/// none. `*` stands for any value, `null` for none, `new` on the left for a row that was not there, and `gone` on the right for one
/// that is deleted. Values are those that the step before left, without blanks around them. Type names are templates.
///
/// A row that a snapshot reads is no transition; with `reads: new` beside `transitions` it is one from `new`. What was inserted in a gap,
/// or while a table without a key was read, comes as read rows alone: a table without a key needs `reads: new`. Where one change makes
/// transitions of several columns, the first column in the order of their names makes its event; with `several: all` each does:
/// `emit_when: { transitions: { … }, reads: new, several: all }`.
///
/// The row before the change must be known: PostgreSQL sends it under `REPLICA IDENTITY FULL`. Where it is not, the event of what
/// may be a transition is parked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Form {
    Full(EmitWhenConfig),
    Transitions(Transitions),
}

type Transitions = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EmitWhenConfig {
    /// By column: from what to what, and the type of the event.
    transitions: Transitions,
    /// What a row is that a snapshot reads. Default `nothing`.
    #[serde(default)]
    reads: Reads,
    /// What one change becomes that makes several transitions. Default `first`.
    #[serde(default)]
    several: Several,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Several {
    /// One event, of the first column in the order of their names.
    #[default]
    First,
    /// An event of each.
    All,
}

impl EmitWhen {
    fn parts(&self) -> (&Transitions, Reads, Several) {
        match &self.0 {
            Form::Full(full) => (&full.transitions, full.reads, full.several),
            Form::Transitions(transitions) => (transitions, Reads::default(), Several::default()),
        }
    }

    fn place(&self, fault: Fault) -> Fault {
        match self.0 {
            Form::Full(_) => fault.key("transitions"),
            Form::Transitions(_) => fault,
        }
    }
}

const HELP: &str = "`\"A -> S\": OrderShipped`; `*` for any value, `null` for none, `new -> A`, `A -> gone`";

impl Step for EmitWhen {
    fn faults(&self) -> Vec<Fault> {
        let (columns, ..) = self.parts();
        let mut faults = super::fields::faults_of_map(columns.len());
        for (name, transitions) in columns {
            if transitions.is_empty() {
                faults.push(self.place(Fault::new("there is no transition").help(HELP).key(name)));
            }
            let mut seen = Vec::new();
            for written in transitions.keys() {
                let why = match Transition::parse(written) {
                    Ok(transition) if seen.contains(&transition) => "this transition stands here twice".into(),
                    Ok(transition) => {
                        seen.push(transition);
                        continue;
                    }
                    Err(why) => why,
                };
                faults.push(self.place(Fault::new(why).help(HELP).key(written).key(name)));
            }
        }
        faults
    }

    fn compile(&self, shape: &mut Shape) -> Result<(), Fault> {
        let (columns, reads, several) = self.parts();
        shape.can_tell_new_rows(reads)?;
        let mut transitions = Vec::new();
        for (name, written) in columns {
            let place = |fault: Fault| self.place(fault.key(name));
            let Some(found) = shape.find(name).map_err(place)? else { continue };
            let slot = shape.fields()[found].slot;
            let first = transitions.len();
            for (transition, event_type) in written {
                let (from, to) = Transition::parse(transition).map_err(|why| place(Fault::new(why)))?.ends();
                let variant = shape.variant(Variant { event_type: Some(event_type.clone()), ..Variant::default() });
                transitions.push(Watched { slot, from, to, variant });
            }
            // What names most goes first: `* -> X` does not take what `A -> X` is for.
            transitions[first..]
                .sort_by_key(|watched| u8::from(watched.from == State::Any) + u8::from(watched.to == State::Any));
        }
        shape.choose(Emitting { transitions, reads, several });
        Ok(())
    }

    fn variants(&self) -> Vec<(Vec<At>, Variant)> {
        let (columns, ..) = self.parts();
        let each = columns.iter().flat_map(|(name, written)| {
            written.iter().map(move |(transition, event_type)| {
                let at = vec![At::Key(name.clone()), At::Key(transition.clone())];
                (at, Variant { event_type: Some(event_type.clone()), ..Variant::default() })
            })
        });
        let full = matches!(self.0, Form::Full(_)).then(|| At::Key("transitions".into()));
        each.map(|(at, variant)| (full.iter().cloned().chain(at).collect(), variant)).collect()
    }
}

/// One side of a transition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Any,
    Null,
    /// There is no row.
    Absent,
    Is(Vec<u8>),
}

#[derive(PartialEq, Eq)]
struct Transition<'t>(&'t str, &'t str);

impl<'t> Transition<'t> {
    fn parse(written: &'t str) -> Result<Transition<'t>, String> {
        let (from, to) = written
            .split_once("->")
            .or_else(|| written.split_once('→'))
            .ok_or_else(|| "this is no transition".to_owned())?;
        let (from, to) = (from.trim(), to.trim());
        match (from, to) {
            ("", _) | (_, "") => Err("one side of the transition is empty".into()),
            ("gone", _) => Err("nothing goes on from a row that is gone".into()),
            (_, "new") => Err("no row becomes new: `new` stands on the left".into()),
            ("new", "gone") => Err("a row that was not there cannot be deleted".into()),
            _ => Ok(Transition(from, to)),
        }
    }

    fn ends(self) -> (State, State) {
        let state = |text: &str| match text {
            "*" => State::Any,
            "null" => State::Null,
            "new" | "gone" => State::Absent,
            text => State::Is(text.as_bytes().to_vec()),
        };
        (state(self.0), state(self.1))
    }
}

#[derive(Debug)]
struct Watched {
    slot: usize,
    from: State,
    to: State,
    variant: usize,
}

#[derive(Debug)]
struct Emitting {
    transitions: Vec<Watched>,
    reads: Reads,
    several: Several,
}

impl Choice for Emitting {
    fn choose(&self, input: &Input<'_>, chosen: &mut Chosen) -> Result<(), Reason> {
        chosen.variants.clear();
        chosen.dropped = true;
        let (before, after) = match (input.op, self.reads) {
            (Op::Truncate | Op::Message, _) | (Op::Read, Reads::Nothing) => return Ok(()),
            // A row whose key changed is not gone, nor new: it goes on under the other key.
            (Op::Delete, _) if input.moved => return Ok(()),
            (Op::Update, _) => (input.before, input.after),
            (Op::Insert, _) if input.moved => (input.before, input.after),
            (Op::Insert | Op::Read, _) => (None, input.after),
            (Op::Delete, _) => (input.before, None),
        };
        let goes_on = input.op == Op::Update || input.moved;
        let mut made = None;
        for watched in &self.transitions {
            // One column makes one transition; those of a column stand together.
            if made == Some(watched.slot) {
                continue;
            }
            // A value that was not sent with an updated row is the one that it had.
            if goes_on
                && (watched.from == State::Absent
                    || after.is_some_and(|row| row.value(watched.slot) == Value::Unavailable))
            {
                continue;
            }
            let same = match (before, after) {
                (Some(before), Some(after)) => same(before, after, watched.slot),
                _ => false,
            };
            if same || !is(&watched.to, after, watched.slot)? {
                continue;
            }
            if goes_on && before.is_none() {
                return Err("it needs the row before the change, which the source did not send".into());
            }
            if is(&watched.from, before, watched.slot)? {
                chosen.variants.push(watched.variant);
                made = Some(watched.slot);
                if self.several == Several::First {
                    break;
                }
            }
        }
        chosen.dropped = chosen.variants.is_empty();
        Ok(())
    }

    fn needs_old_row(&self, _: &dyn Fn(usize) -> bool) -> bool {
        self.transitions.iter().any(|watched| watched.from != State::Absent)
    }
}

fn same(before: View<'_>, after: View<'_>, slot: usize) -> bool {
    match (before.value(slot), after.value(slot)) {
        (Value::Data(before), Value::Data(after)) => trimmed(before) == trimmed(after),
        (before, after) => before == after,
    }
}

fn is(state: &State, row: Option<View<'_>>, slot: usize) -> Result<bool, Reason> {
    match (state, row.map(|row| row.value(slot))) {
        (State::Absent, row) => Ok(row.is_none()),
        (_, None) => Ok(false),
        (_, Some(Value::Unavailable)) => Err("it needs a value before the change that the source did not send".into()),
        (State::Any, Some(_)) => Ok(true),
        (State::Null, Some(value)) => Ok(value == Value::Null),
        (State::Is(wanted), Some(Value::Data(bytes))) => Ok(trimmed(bytes) == wanted.as_slice()),
        (State::Is(_), Some(_)) => Ok(false),
    }
}
