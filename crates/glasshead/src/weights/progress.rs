//! How a long job tells how far it is. The command shows bars; a library user hears nothing.

/// Hears how far a download or a check is.
pub trait Progress {
    /// A step begins: `what` it is, in a few words, and how many bytes it will move.
    fn start(&mut self, what: &str, total_bytes: u64);
    /// So many more bytes have been moved.
    fn advance(&mut self, bytes: u64);
    /// The step has ended, well or not.
    fn finish(&mut self);
    /// A line for the person who waits.
    fn say(&mut self, line: &str);
}

/// A [`Progress`] that says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&mut self, _what: &str, _total_bytes: u64) {}
    fn advance(&mut self, _bytes: u64) {}
    fn finish(&mut self) {}
    fn say(&mut self, _line: &str) {}
}
