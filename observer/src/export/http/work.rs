//! What answers are made of may have to be read from kernel maps, or take its time. That is done elsewhere than on the
//! thread that serves, which may do nothing of the kind.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::{Semaphore, mpsc, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// Answers made at once. Who asks for more waits, and whoever has left by then gets none.
const AT_ONCE: usize = 4;

/// Where it is done.
#[derive(Clone, Debug)]
pub struct Work {
    jobs: mpsc::UnboundedSender<Job>,
    room: Arc<Semaphore>,
}

impl Work {
    /// On threads of the runtime that this is called in, for blocking work.
    #[must_use]
    pub fn start() -> Self {
        let (sender, mut jobs) = mpsc::unbounded_channel::<Job>();
        tokio::spawn(async move {
            while let Some(job) = jobs.recv().await {
                // A job that panicked gives no answer, and its asker says so.
                drop(tokio::task::spawn_blocking(job));
            }
        });
        Self { jobs: sender, room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Does it. The error is an answer: there is none.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StatusCode> {
        let room = self.room.clone().acquire_owned().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let _room = room;
            // Who asked may have gone.
            let _gone = answer.send(work());
        };
        let lost = |_| StatusCode::INTERNAL_SERVER_ERROR;
        self.jobs.send(Box::new(job)).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        answered.await.map_err(lost)
    }
}
