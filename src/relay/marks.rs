//! Work lists without duplicates.

use std::collections::VecDeque;

/// Indices (of shards, of routes) to look at: each at most once, in the order in which they were marked.
#[derive(Debug, Default)]
pub(super) struct Marks {
    order: VecDeque<u32>,
    marked: Vec<bool>,
}

impl Marks {
    pub(super) fn new(count: usize) -> Marks {
        Marks { order: Default::default(), marked: vec![false; count] }
    }

    pub(super) fn mark(&mut self, index: usize) {
        if !std::mem::replace(&mut self.marked[index], true) {
            self.order.push_back(index as u32);
        }
    }

    pub(super) fn take(&mut self) -> Option<usize> {
        let index = self.order.pop_front()? as usize;
        self.marked[index] = false;
        Some(index)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_comes_once_and_in_order_and_may_come_again_after_that() {
        let mut marks = Marks::new(3);
        for index in [2, 0, 2, 1, 0] {
            marks.mark(index);
        }
        assert_eq!(marks.len(), 3);
        assert_eq!(std::iter::from_fn(|| marks.take()).collect::<Vec<_>>(), [2, 0, 1]);
        marks.mark(2);
        assert_eq!(marks.take(), Some(2));
    }
}
