//! The events of one channel that are published and not yet settled, in the order of publishing.

use std::collections::VecDeque;

use crate::event::Seq;

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) seq: Seq,
    pub(super) key_hash: u64,
    /// A `basic.return` names the message by its id, never by its delivery tag.
    pub(super) id_hash: u64,
    /// Milliseconds on the relay's clock.
    pub(super) sent_ms: u64,
    pub(super) answer: Option<Answer>,
    pub(super) returned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ack,
    Nack,
}

/// The broker answered what was never asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownTag(pub(super) u64);

#[derive(Debug)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    /// Delivery tag of the first entry. A channel's tags count its publishes, from 1.
    first_tag: u64,
    /// So many entries at the front are answered: a confirm of many need not look at them again.
    answered_prefix: usize,
    unanswered: usize,
}

impl Window {
    pub(super) fn new() -> Window {
        Window { entries: VecDeque::new(), first_tag: 1, answered_prefix: 0, unanswered: 0 }
    }

    /// A new channel counts from 1 again.
    pub(super) fn reset(&mut self) {
        self.forget();
        self.first_tag = 1;
    }

    /// Empties the window of a channel that stays open. Everything in it has been answered.
    pub(super) fn forget(&mut self) {
        self.first_tag += self.entries.len() as u64;
        self.entries.clear();
        self.answered_prefix = 0;
        self.unanswered = 0;
    }

    pub(super) fn give_back_memory(&mut self) {
        if self.entries.is_empty() {
            self.entries.shrink_to_fit();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// The longest wait for an answer starts here.
    pub(super) fn oldest_unanswered_ms(&self) -> Option<u64> {
        self.entries.iter().skip(self.answered_prefix).find(|entry| entry.answer.is_none()).map(|entry| entry.sent_ms)
    }

    pub(super) fn push(&mut self, seq: Seq, key_hash: u64, id_hash: u64, sent_ms: u64) {
        self.entries.push_back(Entry { seq, key_hash, id_hash, sent_ms, answer: None, returned: false });
        self.unanswered += 1;
    }

    /// `tag` is answered, and with `multiple` all before it; tag 0 then means all (RabbitMQ, "Publisher Confirms").
    ///
    /// # Errors
    /// When no message of that tag was published.
    pub(super) fn answer(&mut self, tag: u64, multiple: bool, answer: Answer) -> Result<(), UnknownTag> {
        let end = match (tag, multiple) {
            (0, true) => self.entries.len(),
            (0, false) => return Err(UnknownTag(0)),
            _ if tag < self.first_tag => return Ok(()), // answered before
            _ => (tag - self.first_tag + 1) as usize,
        };
        if end > self.entries.len() {
            return Err(UnknownTag(tag));
        }
        let start = if multiple { self.answered_prefix.min(end) } else { end - 1 };
        for entry in self.entries.range_mut(start..end) {
            if entry.answer.is_none() {
                entry.answer = Some(answer);
                self.unanswered -= 1;
            }
        }
        if start <= self.answered_prefix {
            self.answered_prefix = self.answered_prefix.max(end);
        }
        while self.entries.get(self.answered_prefix).is_some_and(|entry| entry.answer.is_some()) {
            self.answered_prefix += 1;
        }
        Ok(())
    }

    /// A message came back. Returns the entry's seq, or `None` when no unsettled message has that id.
    pub(super) fn returned(&mut self, id_hash: u64) -> Option<Seq> {
        let mut found = None;
        for entry in self.entries.iter_mut().filter(|entry| entry.id_hash == id_hash) {
            entry.returned = true;
            found = found.or(Some(entry.seq));
        }
        found
    }

    /// Takes the front entry if it is confirmed and did not come back.
    pub(super) fn pop_settled(&mut self) -> Option<Entry> {
        let front = self.entries.front()?;
        if front.answer == Some(Answer::Ack) && !front.returned { self.pop() } else { None }
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.first_tag += 1;
        self.answered_prefix = self.answered_prefix.saturating_sub(1);
        if entry.answer.is_none() {
            self.unanswered -= 1;
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(count: u64) -> Window {
        let mut window = Window::new();
        for seq in 1..=count {
            window.push(seq * 10, seq, seq + 1000, seq);
        }
        window
    }

    fn settled(window: &mut Window) -> Vec<Seq> {
        std::iter::from_fn(|| window.pop_settled()).map(|entry| entry.seq).collect()
    }

    #[test]
    fn only_the_contiguous_prefix_settles() {
        let mut window = window(4);
        window.answer(2, false, Answer::Ack).unwrap();
        window.answer(4, false, Answer::Ack).unwrap();
        assert_eq!(settled(&mut window), [] as [Seq; 0]);
        window.answer(1, false, Answer::Ack).unwrap();
        assert_eq!(settled(&mut window), [10, 20]);
        window.answer(3, false, Answer::Ack).unwrap();
        assert_eq!(settled(&mut window), [30, 40]);
        assert!(window.is_empty());
    }

    #[test]
    fn a_confirm_of_many_covers_all_before_it_and_leaves_nacks_alone() {
        let mut window = window(5);
        window.answer(2, false, Answer::Nack).unwrap();
        window.answer(4, true, Answer::Ack).unwrap();
        assert_eq!(settled(&mut window), [10]);
        assert_eq!((window.unanswered(), window.front().unwrap().seq), (1, 20));
        window.answer(0, true, Answer::Ack).unwrap();
        assert_eq!(window.unanswered(), 0);
    }

    #[test]
    fn a_return_vetoes_the_confirm_of_the_message_that_it_names_and_no_other() {
        let mut window = window(3);
        assert_eq!(window.returned(1002), Some(20));
        assert_eq!(window.returned(7), None);
        window.answer(3, true, Answer::Ack).unwrap();
        assert_eq!(settled(&mut window), [10]);
        assert_eq!(window.unanswered(), 0);
    }

    #[test]
    fn an_answer_to_what_was_never_published_is_an_error() {
        let mut window = window(2);
        assert_eq!(window.answer(3, false, Answer::Ack), Err(UnknownTag(3)));
        assert_eq!(window.answer(0, false, Answer::Ack), Err(UnknownTag(0)));
        window.answer(2, true, Answer::Ack).unwrap();
        settled(&mut window);
        assert_eq!(window.answer(1, false, Answer::Ack), Ok(()));
        window.push(30, 0, 0, 0);
        assert_eq!(window.answer(3, true, Answer::Ack), Ok(()));
    }

    proptest! {
        /// Against the plainest model: a list of all that was ever published.
        #[test]
        fn any_order_of_answers_settles_what_the_model_says(
            steps in proptest::collection::vec((0u64..40, any::<bool>(), any::<bool>(), any::<bool>()), 1..80)
        ) {
            let mut window = Window::new();
            let mut model: Vec<Option<Answer>> = Vec::new();
            let mut settled_in_model = 0;
            for (tag, multiple, ack, publish) in steps {
                if publish {
                    model.push(None);
                    window.push(model.len() as Seq, 0, 0, 0);
                }
                let answer = if ack { Answer::Ack } else { Answer::Nack };
                let known = tag as usize <= model.len() && (tag > 0 || multiple);
                if window.answer(tag, multiple, answer).is_ok() {
                    prop_assert!(known);
                    let end = if tag == 0 { model.len() } else { tag as usize };
                    let start = if multiple { 0 } else { end - 1 };
                    for slot in &mut model[start.min(end)..end] {
                        slot.get_or_insert(answer);
                    }
                } else {
                    prop_assert!(!known);
                }
                while let Some(entry) = window.pop_settled() {
                    settled_in_model += 1;
                    prop_assert_eq!(entry.seq as usize, settled_in_model);
                    prop_assert_eq!(model[settled_in_model - 1], Some(Answer::Ack));
                }
                prop_assert_ne!(model.get(settled_in_model), Some(&Some(Answer::Ack)));
                prop_assert_eq!(window.unanswered(), model.iter().filter(|slot| slot.is_none()).count());
                let oldest = model.iter().position(Option::is_none);
                prop_assert_eq!(window.oldest_unanswered_ms().is_some(), oldest.is_some());
            }
        }
    }
}
