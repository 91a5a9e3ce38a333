//! What the run found, by the numbers of `docs/proof.md`.

use std::collections::BTreeMap;

const INVARIANTS: &[(u8, &str)] = &[
    (1, "the consumer's rows are the source's"),
    (2, "every committed change came, or a gap was reported"),
    (3, "nothing came that was rolled back"),
    (4, "one id, one content; one change, one id"),
    (5, "per key in commit order"),
    (7, "acknowledged only what is recorded"),
    (8, "the stored position never goes back"),
    (9, "settled only what was confirmed and not returned"),
    (10, "read rows equal streamed rows, none follows a newer change"),
    (11, "duplicates within the window"),
    (12, "everything drains after the faults"),
    (13, "memory, outbox and the source's log bounded"),
    (14, "health is never green while behind, gapped or stopped"),
    (15, "no secret anywhere"),
];

/// How often each invariant was looked at, and what broke it.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    looks: BTreeMap<u8, u64>,
    broken: Vec<(u8, String)>,
}

impl Verdict {
    pub(super) fn looked(&mut self, invariant: u8, times: u64) {
        *self.looks.entry(invariant).or_default() += times;
    }

    pub(super) fn broke(&mut self, found: impl IntoIterator<Item = (u8, String)>) {
        self.broken.extend(found);
    }

    pub(super) fn must(&mut self, invariant: u8, holds: bool, what: impl FnOnce() -> String) {
        self.looked(invariant, 1);
        if !holds {
            self.broken.push((invariant, what()));
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }

    /// # Panics
    /// When an invariant is broken, or was never looked at.
    pub(super) fn conclude(&self) {
        eprintln!("\ninvariant                                                        looked at   broken");
        for (number, what) in INVARIANTS {
            let broken = self.broken.iter().filter(|(of, _)| of == number).count();
            eprintln!("({number:2}) {what:<60} {:>9} {broken:>8}", self.looks.get(number).unwrap_or(&0));
        }
        for (number, what) in &self.broken {
            eprintln!("({number}) {}", what.chars().take(500).collect::<String>());
        }
        assert!(self.is_clean(), "{} broken promises", self.broken.len());
        let unseen: Vec<_> = INVARIANTS.iter().filter(|(number, _)| !self.looks.contains_key(number)).collect();
        assert!(unseen.is_empty(), "never looked at: {unseen:?}");
    }
}
