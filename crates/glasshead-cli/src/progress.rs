//! Progress bars on standard error, and only on a terminal.

use std::{
    io::{self, IsTerminal},
    ops::ControlFlow,
};

use glasshead::{look::scan::Onlooker, weights::Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::printer;

/// Fewer bytes are over before a line is read.
const WORTH_A_LINE: u64 = 8 << 20;

/// A bar per step; plain lines where standard error is no terminal.
#[derive(Default)]
pub(crate) struct Bars {
    bar: Option<ProgressBar>,
}

impl Progress for Bars {
    fn start(&mut self, what: &str, total_bytes: u64) {
        if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}, {eta} left");
            let bar = ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::stderr());
            self.bar = Some(
                bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                    .with_message(what.to_owned()),
            );
        } else if total_bytes >= WORTH_A_LINE {
            printer::note(what);
        }
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&mut self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| printer::note(line)),
            None => printer::note(line),
        }
    }
}

/// Layers done and time left, on a terminal.
pub(crate) struct Layers {
    bar: Option<ProgressBar>,
}

impl Layers {
    /// Nothing done yet.
    pub(crate) fn new() -> Self {
        Self { bar: None }
    }
}

impl Onlooker for Layers {
    fn layer(&mut self, done: usize, layers: usize) -> ControlFlow<()> {
        if self.bar.is_none() && io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:30} layer {pos} of {len}, {eta} left");
            let bar = ProgressBar::with_draw_target(Some(layers as u64), ProgressDrawTarget::stderr());
            self.bar = Some(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
            if done >= layers {
                bar.finish_and_clear();
                self.bar = None;
            }
        }
        ControlFlow::Continue(())
    }

    fn written(&mut self, written: usize, most: usize) -> ControlFlow<()> {
        if self.bar.is_none() && io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("token {pos} of at most {len} of the answer");
            let bar = ProgressBar::with_draw_target(Some(most as u64), ProgressDrawTarget::stderr());
            self.bar = Some(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(written as u64);
        }
        ControlFlow::Continue(())
    }
}

impl Drop for Layers {
    /// An answer may end before its longest.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
