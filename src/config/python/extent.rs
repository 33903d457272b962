//! How much an expression can match, and how large it becomes: for look-behind and for the bound on size.

/// How many characters an expression can match, and how large it is when repeats are written out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Extent {
    pub least: u64,
    pub most: u64,
    pub size: u64,
}

impl Extent {
    pub fn then(self, next: Self) -> Self {
        Self {
            least: self.least.saturating_add(next.least),
            most: self.most.saturating_add(next.most),
            size: self.size.saturating_add(next.size),
        }
    }

    pub fn or(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
            size: self.size.saturating_add(other.size),
        }
    }

    pub fn repeated(self, least: u64, most: Option<u64>) -> Self {
        Self {
            least: self.least.saturating_mul(least),
            most: self.most.saturating_mul(most.unwrap_or(u64::MAX)),
            size: self.size.saturating_mul(most.unwrap_or(least.saturating_add(1)).max(1)),
        }
    }
}

/// The branch of an alternation that is being read.
#[derive(Debug, Default)]
pub(super) struct Branch {
    pub before: Extent,
    pub last: Last,
    pub finished: Option<Extent>,
}

/// What a quantifier would apply to.
#[derive(Debug, Default)]
pub(super) enum Last {
    #[default]
    Nothing,
    /// An expression, and where it starts in the output.
    Item(usize, Extent),
    Repeated(Extent),
}

impl Branch {
    pub fn push(&mut self, next: Last) {
        self.before = self.before.then(self.last_extent());
        self.last = next;
    }

    fn last_extent(&self) -> Extent {
        match self.last {
            Last::Nothing => Extent::default(),
            Last::Item(_, extent) | Last::Repeated(extent) => extent,
        }
    }

    pub fn extent(&self) -> Extent {
        let branch = self.before.then(self.last_extent());
        self.finished.map_or(branch, |finished| finished.or(branch))
    }
}
