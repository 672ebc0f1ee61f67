//! The progress bar of a download, and notices that do not break it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::config::{HubConfig, Notice, Progress};

/// The progress display of one file.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    notice: Notice,
}

impl Bar {
    /// Shows the file's name and the elapsed time while the request waits.
    pub(crate) fn new(config: &HubConfig, file: &str) -> Self {
        let bar = (config.progress == Progress::Bar).then(|| {
            let template = "{msg} {spinner} [{elapsed_precise}]";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::no_length().with_style(style).with_message(file.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, notice: config.notice.clone() }
    }

    /// Shows a download of `size` bytes that starts after `received` bytes.
    pub(crate) fn start(&self, size: u64, received: u64) {
        let Some(bar) = &self.bar else { return };
        let template = "{msg} [{elapsed_precise}] [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} ({eta})";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_length(size);
        self.advance_to(received);
        bar.reset_eta();
    }

    pub(crate) fn advance_to(&self, received: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(received);
        }
    }

    /// Passes a line to the user's notice, above the bar.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.notice.say(line)),
            None => self.notice.say(line),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
