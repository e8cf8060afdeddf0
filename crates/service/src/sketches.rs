//! What an attempt shows of its images while it makes them: encoded away from the async threads, one at a time.

use std::sync::Arc;

use pentimento_types::{Progress, RgbImage};
use tokio::task::JoinSet;

use crate::image_codec::encode_preview;
use crate::off_thread::off_thread;
use crate::watched::{Preview, Shown};

/// The way of one attempt's news to those who watch it.
#[derive(Debug)]
pub(crate) struct Sketches {
    shown: Arc<Shown>,
    attempt: u32,
    progress: Progress,
    /// One at most. Ended when this is dropped.
    drawing: JoinSet<()>,
}

impl Sketches {
    pub(crate) fn new(shown: Arc<Shown>, attempt: u32) -> Self {
        Self {
            shown,
            attempt,
            progress: Progress::default(),
            drawing: JoinSet::new(),
        }
    }

    /// So far is the attempt.
    pub(crate) fn report(&mut self, progress: Progress) {
        self.progress = progress;
        self.shown.progress(self.attempt, progress);
    }

    /// Shows an image. While the one before is being encoded, which takes a millisecond, it is left out.
    pub(crate) fn draw(&mut self, index: u32, image: RgbImage) {
        while self.drawing.try_join_next().is_some() {}
        if !self.drawing.is_empty() {
            return;
        }
        let (shown, attempt, at) = (Arc::clone(&self.shown), self.attempt, self.progress);
        self.drawing.spawn(async move {
            let size = image.size();
            // Nobody loses an image because it could not be shown.
            if let Ok(file) = off_thread(move || encode_preview(&image)).await {
                let preview = Preview {
                    index,
                    at,
                    file,
                    size,
                };
                shown.preview(attempt, preview);
            }
        });
    }
}
