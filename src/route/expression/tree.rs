//! An expression whose columns are found and whose types fit.

use super::functions::Function;
use super::types::Type;
use super::value::Value;
use crate::route::transform::View;

/// The row that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::route) enum Image {
    /// The row in hand: after the change, or before it where there is none after.
    Row,
    Before,
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::route) struct Column {
    pub(in crate::route) slot: usize,
    pub(in crate::route) of: Type,
}

/// An expression, settled for one table.
#[derive(Debug)]
pub(in crate::route) struct Program {
    pub(super) node: Node,
    pub(in crate::route) of: Type,
    /// It looks at the row before the change, or at the one after it, by name.
    pub(in crate::route) compares_rows: bool,
}

impl Program {
    /// It looks at the row before an update.
    pub(in crate::route) fn looks_back(&self) -> bool {
        self.node.any(&|node| matches!(node, Node::Column(Image::Before, _) | Node::Changed(_)))
    }

    /// Some of the values that it is made of were sent, and so may have changed. One that compares rows says nothing of the kind.
    pub(in crate::route) fn is_partly_sent(&self, row: View<'_>) -> bool {
        let sent = |slot| row.value(slot) != towpath_contract::Value::Unavailable;
        !self.compares_rows && self.node.any(&|node| matches!(node, Node::Column(_, column) if sent(column.slot)))
    }

    /// Of all columns whose values it looks at.
    pub(in crate::route) fn slots(&self) -> Vec<usize> {
        let slots = std::cell::RefCell::new(Vec::new());
        self.node.any(&|node| {
            if let Node::Column(_, column) = node {
                slots.borrow_mut().push(column.slot);
            }
            false
        });
        slots.into_inner()
    }

    /// It looks at what may not have been sent of a row that is deleted, where `sent` says what is.
    pub(in crate::route) fn looks_at_deleted(&self, sent: &dyn Fn(usize) -> bool) -> bool {
        self.node.any(&|node| matches!(node, Node::Column(Image::Row, column) if !sent(column.slot)))
    }
}

impl Node {
    fn any(&self, is: &dyn Fn(&Node) -> bool) -> bool {
        let parts: &[Node] = match self {
            Node::Not(part) | Node::Negate(part) => std::slice::from_ref(part),
            Node::And(a, b) | Node::Or(a, b) => return is(self) || a.any(is) || b.any(is),
            Node::In(one, list) => return is(self) || one.any(is) || list.iter().any(|node| node.any(is)),
            Node::If(parts) => &parts[..],
            Node::Compare(_, parts) | Node::Arithmetic(_, parts) => &parts[..],
            Node::Call(_, parts) => parts,
            Node::Constant(_) | Node::Column(..) | Node::Has(..) | Node::Missing(_) | Node::Changed(_) | Node::Op => {
                &[]
            }
        };
        is(self) || parts.iter().any(|node| node.any(is))
    }
}

#[derive(Debug)]
pub(super) enum Node {
    Constant(Value<'static>),
    Column(Image, Column),
    /// The column's value was sent.
    Has(Image, usize),
    /// `before == null`
    Missing(Image),
    Changed(Vec<usize>),
    Op,
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    If(Box<[Node; 3]>),
    Compare(Comparison, Box<[Node; 2]>),
    /// The texts of dates are compared as dates.
    In(Box<Node>, Vec<Node>),
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    Negate(Box<Node>),
    Call(Function, Vec<Node>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison {
    pub(super) how: How,
    pub(super) times: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Join,
    Subtract,
    Multiply,
    Divide,
    DivideWhole,
    Remainder,
}
