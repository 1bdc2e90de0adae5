//! What each step has to tell a learner, beside the numbers. Terminal, Markdown and page say the same.

/// Step 1.
pub(crate) const ENCODE: &str = "Attention calculates with vectors, so every word first becomes a list of numbers. \
     Where the numbers come from decides what can be noticed later: a word that is encoded twice in different \
     places is two tokens with two vectors.";

/// Step 1, with a model: the three maps.
pub(crate) const PROJECTIONS: &str = "The head does not use these vectors as they are. It maps each of them three times: \
     to a query q (what this token looks for), a key k (what it can be found by) and a value v (what it hands over).";

/// Step 2.
pub(crate) const SCORE: &str = "A raw score says how well a word matches the focus word: the dot product of the focus \
     word's query with that word's key, times a scale that keeps the sums of long vectors in bounds. It is no share of \
     anything yet: it may have any size and any sign, and the scores add to nothing in particular.";

/// Step 2, where the scores are given.
pub(crate) const SCORE_GIVEN: &str = "A raw score says how well a word matches the focus word. Here the scores are given, \
     not computed from the vectors. They are no shares of anything yet: they may have any size and any sign, and they add \
     to nothing in particular.";

/// Step 3.
pub(crate) const SOFTMAX: &str = "Softmax turns the scores into shares of one whole: e to the power of each score, divided \
     by the sum of all of them. The order stays, and the shares, also called attention weights, add to 1. A share is relative to \
     the other words of this row only: 0.27 here and 0.27 in another row are not the same evidence.";

/// Step 4.
pub(crate) const VALUES: &str = "The values carry the information; the shares only say how much of each to take. Every \
     value vector times its share, added up column by column, gives a mixture of the value vectors: one new vector for the \
     focus word.";

/// Why a share is not influence.
pub(crate) const INFLUENCE: &str = "A large share is not yet influence: what a word adds is share × value, so a large \
     share of a short value vector changes little (share × |v| is the length of that part, and parts may still cancel).";

/// What a weight is, where many rows of many heads are told together.
pub(crate) const WEIGHT: &str = "A weight is a share of one row of one head: of everything that this token took in there, \
     so much came from that token. It is not influence: what a token adds is weight × value, and later layers may drop it. \
     A mean over queries or heads is a mean of such shares.";

/// Merged words.
pub(crate) const MERGE: &str = "A word of several tokens is shown as one: its share is the sum over its pieces, and the \
     row of such a focus word is the mean over its pieces.";
