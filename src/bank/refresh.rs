//! A reader takes what was written since it opened the bank.

use std::sync::Arc;

use super::file::{self, Access, LastCommit};
use super::{Bank, State};
use crate::error::Result;
use crate::fail;

impl Bank {
    /// Looks at the file at the path again and takes its newest commit, also where a compaction or a rename put another file there.
    /// Returns whether there was one. Adapters and snapshots that were handed out stay as they are, and whoever reads meanwhile
    /// sees all of the bank before, or all of it after.
    ///
    /// An error leaves the bank as it was: a file that was cut, damaged in what it says last, or in more entries than before. A
    /// writer sees all that there is: never anything new.
    pub fn refresh(&self) -> Result<bool> {
        if self.writer.is_some() {
            return Ok(false);
        }
        let Some(_turn) = self.refreshing.take() else {
            fail!(State, "'{}': a callback refreshes the bank that this very thread refreshes", self.path.display())
        };
        let state = self.state();
        let Some(next) = self.newer(&state)? else { return Ok(false) };
        // All of the file is read by now. What goes is dropped at the end, when nobody waits.
        let (gone, unbound);
        if next.generation == state.generation {
            let numbers = state.index.numbers_in(&next.index)?;
            let stay = numbers.iter().enumerate().all(|(own, number)| *number == Some(own as u32));
            gone = if stay { Vec::new() } else { self.cache().renumber(&numbers) };
            unbound = None;
        } else {
            gone = self.cache().renumber(&[]);
            unbound = Some(self.bound().carry_over(&state, &next));
        }
        self.show(next);
        drop((gone, unbound));
        Ok(true)
    }

    /// The state of the newest commit of the file at the path; None for the one that is known.
    fn newer(&self, state: &State) -> Result<Option<State>> {
        let path = self.path.display();
        let found = file::open(&self.path, Access::Read)?;
        let is_same = file::are_one(&state.file, &found);
        let file = if is_same { state.file.clone() } else { Arc::new(found) };
        let LastCommit { commit, finding } = file::last_commit(&file, &self.path)?;
        if let Some(finding) = finding.as_ref().filter(|finding| finding.is_loss) {
            fail!(Format, "{} by whoever opens it; a refresh leaves the bank as it was", finding.words);
        }
        let (known, sequence) = (state.commit.sequence, commit.sequence);
        if is_same && commit == state.commit {
            return Ok(None);
        }
        if is_same && sequence < known {
            fail!(Format, "'{path}' is at commit {sequence}, and was at {known}: it was written over or is damaged");
        }
        let (mut next, damages) = State::at(file, &self.path, commit, state.generation)?;
        if next.damaged > state.damaged {
            let (count, first) = (next.damaged, &damages[0]);
            fail!(Format, "{first} by whoever opens it; {count} are damaged, and were {}", state.damaged);
        }
        // Where a repair wrote over a damaged commit, numbers and offsets may mean something else.
        let continues = is_same && sequence > known && next.catalogue.continues(&state.catalogue);
        next.generation += u32::from(!continues);
        let words = finding.iter().map(|finding| &finding.words).chain(&damages);
        words.for_each(|words| self.model.listener().warning(words));
        Ok(Some(next))
    }
}
