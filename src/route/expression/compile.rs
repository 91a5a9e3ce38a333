//! From the tree that CEL's grammar gives to one whose columns are found and whose types fit.

use cel::common::ast::{CallExpr, Expr, LiteralValue, SelectExpr, operators};
use cel::parser::Expression as Parsed;

use super::comparable::comparable;
use super::functions;
use super::number::Number;
use super::tree::{Arithmetic, Column, Comparison, How, Image, Node, Program};
use super::types::Type;
use super::value::Value;
use crate::route::transform::Fault;

/// A chain of this many operators is more than a person reads.
const DEPTH_MAX: usize = 100;

/// Where an expression stands: the columns that it may name.
pub(in crate::route) trait Scope {
    /// `None`: this table has none of that name, and the expression is not for it.
    fn column(&mut self, name: &str) -> Result<Option<Column>, Fault>;
}

/// Why an expression is not for a table.
#[derive(Debug)]
pub(super) enum Stop {
    NotForThisTable,
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

pub(super) type Typed = (Node, Type);

pub(super) fn wrong(message: impl Into<String>) -> Stop {
    Stop::Fault(Fault::new(message))
}

impl Program {
    pub(super) fn new(parsed: &Parsed, scope: &mut dyn Scope) -> Result<Option<Program>, Fault> {
        let mut compiler = Compiler { scope, depth: 0, compares_rows: false };
        match compiler.node(parsed) {
            Ok((node, of)) => Ok(Some(Program { node, of, compares_rows: compiler.compares_rows })),
            Err(Stop::NotForThisTable) => Ok(None),
            Err(Stop::Fault(fault)) => Err(fault),
        }
    }
}

pub(super) struct Compiler<'a> {
    scope: &'a mut dyn Scope,
    depth: usize,
    compares_rows: bool,
}

impl Compiler<'_> {
    pub(super) fn node(&mut self, parsed: &Parsed) -> Result<Typed, Stop> {
        if self.depth == DEPTH_MAX {
            return Err(wrong(format!("the expression has more than {DEPTH_MAX} operators within each other")));
        }
        self.depth += 1;
        let node = match &parsed.expr {
            Expr::Literal(literal) => constant(literal),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(_) => Err(wrong("a list can only stand behind `in`")),
            Expr::Comprehension(_) => {
                Err(wrong("`all`, `exists`, `map` and `filter` go over lists, and a row has none"))
            }
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => Err(wrong("a row has no maps and no structures")),
        };
        self.depth -= 1;
        node
    }

    fn name(&mut self, name: &str) -> Result<Typed, Stop> {
        match name {
            "op" => Ok((Node::Op, Type::Text)),
            "before" | "after" | "row" => Err(Stop::Fault(
                Fault::new(format!("`{name}` is a whole row")).help(format!("one column of it: `{name}.status`")),
            )),
            _ => self.column(Image::Row, name),
        }
    }

    fn column(&mut self, image: Image, name: &str) -> Result<Typed, Stop> {
        let column = self.find(image, name)?;
        Ok((Node::Column(image, column), column.of))
    }

    fn find(&mut self, image: Image, name: &str) -> Result<Column, Stop> {
        self.compares_rows |= image != Image::Row;
        self.scope.column(name)?.ok_or(Stop::NotForThisTable)
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Typed, Stop> {
        let Some(image) = image_of(&select.operand) else {
            return Err(Stop::Fault(
                Fault::new(format!("there is nothing that has a `{}`", select.field))
                    .help("columns stand alone, or behind `before.`, `after.` or `row.`"),
            ));
        };
        if select.test {
            return Ok((Node::Has(image, self.find(image, &select.field)?.slot), Type::Bool));
        }
        self.column(image, &select.field)
    }

    fn call(&mut self, call: &CallExpr) -> Result<Typed, Stop> {
        let arguments = call.args.as_slice();
        match (call.func_name.as_str(), arguments) {
            (operators::LOGICAL_NOT, [one]) => Ok((Node::Not(Box::new(self.condition(one, "!")?)), Type::Bool)),
            (operators::LOGICAL_AND, [a, b]) => {
                Ok((Node::And(Box::new(self.condition(a, "&&")?), Box::new(self.condition(b, "&&")?)), Type::Bool))
            }
            (operators::LOGICAL_OR, [a, b]) => {
                Ok((Node::Or(Box::new(self.condition(a, "||")?), Box::new(self.condition(b, "||")?)), Type::Bool))
            }
            (operators::CONDITIONAL, [condition, yes, no]) => self.conditional(condition, yes, no),
            (operators::IN, [one, list]) => self.is_in(one, list),
            (operators::NEGATE, [one]) => {
                let (node, of) = self.node(one)?;
                if !of.is_number() {
                    return Err(wrong(format!("`-` needs a number, and this is {}", of.name())));
                }
                Ok((Node::Negate(Box::new(node)), of))
            }
            (operators::INDEX, [whose, name]) => self.index(whose, name),
            (operator, [a, b]) if comparison(operator).is_some() => {
                self.compare(comparison(operator).expect("just seen"), a, b)
            }
            (operator, [a, b]) if arithmetic(operator).is_some() => self.arithmetic(operator, a, b),
            ("changed", names) if call.target.is_none() => self.changed(names),
            (name, _) => {
                let mut given = Vec::with_capacity(arguments.len() + 1);
                for argument in call.target.as_deref().into_iter().chain(arguments) {
                    given.push(self.node(argument)?);
                }
                functions::call(name, call.target.is_some(), given)
            }
        }
    }

    fn condition(&mut self, parsed: &Parsed, operator: &str) -> Result<Node, Stop> {
        match self.node(parsed)? {
            (node, Type::Bool | Type::Null) => Ok(node),
            (_, of) => Err(wrong(format!("`{operator}` needs true or false, and this is {}", of.name()))),
        }
    }

    fn conditional(&mut self, condition: &Parsed, yes: &Parsed, no: &Parsed) -> Result<Typed, Stop> {
        let condition = self.condition(condition, "?")?;
        let ((yes, yes_type), (no, no_type)) = (self.node(yes)?, self.node(no)?);
        let Some(of) = yes_type.join(no_type) else {
            let (yes, no) = (yes_type.name(), no_type.name());
            return Err(wrong(format!("behind `?` stands {yes}, and behind `:` {no}: they must be of one type")));
        };
        Ok((Node::If(Box::new([condition, yes, no])), of))
    }

    fn is_in(&mut self, one: &Parsed, list: &Parsed) -> Result<Typed, Stop> {
        let Expr::List(list) = &list.expr else {
            return Err(Stop::Fault(Fault::new("behind `in` there is no list").help("`status in ['A', 'S']`")));
        };
        let (one, one_type) = self.node(one)?;
        let mut nodes = Vec::with_capacity(list.elements.len());
        for element in &list.elements {
            let (node, of) = self.node(element)?;
            comparable(How::Equal, one_type, of, &node)?;
            nodes.push(node);
        }
        Ok((Node::In(Box::new(one), nodes), Type::Bool))
    }

    /// `row["Cust No"]`, for names that are no words.
    fn index(&mut self, whose: &Parsed, name: &Parsed) -> Result<Typed, Stop> {
        let (Some(image), Expr::Literal(LiteralValue::String(name))) = (image_of(whose), &name.expr) else {
            let help = "`row[\"Cust No\"]`, `before[\"Cust No\"]`, `after[\"Cust No\"]`";
            return Err(Stop::Fault(Fault::new("`[…]` takes a column's name, from a row").help(help)));
        };
        self.column(image, name.inner())
    }

    fn compare(&mut self, how: How, a: &Parsed, b: &Parsed) -> Result<Typed, Stop> {
        // `before == null`: was there a row?
        if matches!(how, How::Equal | How::Unequal) {
            let missing = match (image_of(a), image_of(b)) {
                (Some(image), None) if is_null(b) => Some(image),
                (None, Some(image)) if is_null(a) => Some(image),
                _ => None,
            };
            if let Some(image) = missing {
                self.compares_rows = true;
                let node = Node::Missing(image);
                return Ok((if how == How::Equal { node } else { Node::Not(Box::new(node)) }, Type::Bool));
            }
        }
        let ((a, a_type), (b, b_type)) = (self.node(a)?, self.node(b)?);
        comparable(how, a_type, b_type, &b)?;
        comparable(how, b_type, a_type, &a)?;
        let times = a_type.is_time() || b_type.is_time();
        Ok((Node::Compare(Comparison { how, times }, Box::new([a, b])), Type::Bool))
    }

    fn arithmetic(&mut self, operator: &str, a: &Parsed, b: &Parsed) -> Result<Typed, Stop> {
        let sign = arithmetic(operator).expect("it is one");
        let (a, b) = (self.node(a)?, self.node(b)?);
        let ((a, a_type), (b, b_type)) = match (a.1, b.1) {
            (_, Type::Float) => (as_float(a), b),
            (Type::Float, _) => (a, as_float(b)),
            _ => (a, b),
        };
        let (how, of) = match (operator, a_type, b_type) {
            (operators::ADD, Type::Text, Type::Text) => (Arithmetic::Join, Type::Text),
            (_, Type::Float, Type::Float) if operator != operators::MODULO => (arithmetic_of(operator), Type::Float),
            (operators::MODULO, Type::Int, Type::Int) => (Arithmetic::Remainder, Type::Int),
            (operators::DIVIDE, Type::Int, Type::Int) => (Arithmetic::DivideWhole, Type::Int),
            (operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE, a, b)
                if a.is_exact() && b.is_exact() =>
            {
                (arithmetic_of(operator), if a == b { a } else { Type::Decimal })
            }
            _ => {
                let message = format!("`{sign}` cannot take {} and {}", a_type.name(), b_type.name());
                let help = "`decimal(x)`, `double(x)`, `int(x)` and `string(x)` make one of the other";
                return Err(Stop::Fault(Fault::new(message).help(help)));
            }
        };
        Ok((Node::Arithmetic(how, Box::new([a, b])), of))
    }

    fn changed(&mut self, names: &[Parsed]) -> Result<Typed, Stop> {
        let help = "`changed(\"status\")`, or several: `changed(\"status\", \"amount\")`";
        let mut slots = Vec::with_capacity(names.len());
        for name in names {
            let slot = match &name.expr {
                Expr::Literal(LiteralValue::String(name)) => self.find(Image::After, name.inner())?.slot,
                _ => return Err(Stop::Fault(Fault::new("`changed` takes the names of columns").help(help))),
            };
            slots.push(slot);
        }
        if slots.is_empty() {
            return Err(Stop::Fault(Fault::new("`changed` names no column").help(help)));
        }
        Ok((Node::Changed(slots), Type::Bool))
    }
}

/// A call that is wrong whatever its columns are: there is no such function, or its pattern cannot be read.
pub(super) fn faulty_call(parsed: &Parsed) -> Option<Fault> {
    let children: Vec<&Parsed> = match &parsed.expr {
        Expr::Call(call) => {
            if let Some(fault) = functions::fault(call) {
                return Some(fault);
            }
            call.target.as_deref().into_iter().chain(&call.args).collect()
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        _ => Vec::new(),
    };
    children.into_iter().find_map(faulty_call)
}

fn constant(literal: &LiteralValue) -> Result<Typed, Stop> {
    Ok(match literal {
        LiteralValue::Boolean(value) => (Node::Constant(Value::Bool(*value.inner())), Type::Bool),
        LiteralValue::Int(value) => (Node::Constant(Value::Number(Number::Small(*value.inner()))), Type::Int),
        LiteralValue::UInt(value) => {
            let text = value.inner().to_string();
            (Node::Constant(Value::Number(Number::parse(&text).expect("digits"))), Type::Int)
        }
        // What is written with a point is meant exactly: 0.1 is a tenth.
        LiteralValue::Double(value) => match Number::from_float(*value.inner()) {
            Some(number) => (Node::Constant(Value::Number(number)), Type::Decimal),
            None => return Err(wrong("this number is too large")),
        },
        LiteralValue::String(value) => (Node::Constant(Value::Text(value.inner().to_owned().into())), Type::Text),
        LiteralValue::Null => (Node::Constant(Value::Null), Type::Null),
        LiteralValue::Bytes(_) => return Err(wrong("bytes cannot be written in an expression")),
    })
}

/// Beside a float, a number that stands in the expression is one.
fn as_float(typed: Typed) -> Typed {
    match typed {
        (Node::Constant(Value::Number(number)), _) => (Node::Constant(Value::Float(number.to_float())), Type::Float),
        other => other,
    }
}

/// The row that stands before a `.` or a `[`.
fn image_of(parsed: &Parsed) -> Option<Image> {
    match &parsed.expr {
        Expr::Ident(name) if name == "before" => Some(Image::Before),
        Expr::Ident(name) if name == "after" => Some(Image::After),
        Expr::Ident(name) if name == "row" => Some(Image::Row),
        _ => None,
    }
}

fn is_null(parsed: &Parsed) -> bool {
    matches!(parsed.expr, Expr::Literal(LiteralValue::Null))
}

fn comparison(operator: &str) -> Option<How> {
    Some(match operator {
        operators::EQUALS => How::Equal,
        operators::NOT_EQUALS => How::Unequal,
        operators::LESS => How::Less,
        operators::LESS_EQUALS => How::LessOrEqual,
        operators::GREATER => How::Greater,
        operators::GREATER_EQUALS => How::GreaterOrEqual,
        _ => return None,
    })
}

/// As people write it.
fn arithmetic(operator: &str) -> Option<&'static str> {
    Some(match operator {
        operators::ADD => "+",
        operators::SUBSTRACT => "-",
        operators::MULTIPLY => "*",
        operators::DIVIDE => "/",
        operators::MODULO => "%",
        _ => return None,
    })
}

fn arithmetic_of(operator: &str) -> Arithmetic {
    match operator {
        operators::ADD => Arithmetic::Add,
        operators::SUBSTRACT => Arithmetic::Subtract,
        operators::MULTIPLY => Arithmetic::Multiply,
        _ => Arithmetic::Divide,
    }
}
