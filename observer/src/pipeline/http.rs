//! The thread that serves HTTP: what others send is read by a thread that may do nothing but answer.

use std::{
    net::TcpListener,
    sync::{Arc, mpsc},
    thread,
};

use tokio::{
    runtime,
    sync::{oneshot, watch},
};

use super::{RunError, cannot};
use crate::{
    export::http::{self, Access, HttpError, HttpState},
    sandbox::{Duty, Sandbox},
};

/// What it serves, and how it learns of the end.
type Start = (Arc<HttpState>, Arc<Access>, watch::Receiver<bool>);

/// The thread.
pub(super) struct HttpThread {
    start: mpsc::Sender<Start>,
    ended: oneshot::Receiver<Result<(), HttpError>>,
}

impl HttpThread {
    /// Starts it; it serves from [`Self::serve`] on.
    pub(super) fn start(listener: TcpListener, sandbox: &Sandbox) -> Result<Self, RunError> {
        let (start, started) = mpsc::channel::<Start>();
        let (end, ended) = oneshot::channel();
        let sandbox = sandbox.clone();
        let run = move || {
            sandbox.confine_or_warn(&Duty::Http);
            // Without a sender observing did not begin.
            let Ok((state, access, ending)) = started.recv() else { return };
            let runtime = runtime::Builder::new_current_thread().enable_all().thread_name("observer-http").build();
            let served = runtime.map_err(HttpError::Serve).and_then(|runtime| {
                runtime.block_on(async {
                    let mut ending = ending;
                    let shutdown = async move {
                        // An error means that the sender is gone: the end as well.
                        drop(ending.wait_for(|ended| *ended).await);
                    };
                    http::serve(listener, state, access, shutdown).await
                })
            });
            let _gone = end.send(served);
        };
        thread::Builder::new().name("observer-http".to_owned()).spawn(run).map_err(cannot("start the HTTP thread"))?;
        Ok(Self { start, ended })
    }

    /// Lets it serve. Complete when it ends.
    pub(super) fn serve(
        self,
        state: Arc<HttpState>,
        access: Arc<Access>,
        ending: watch::Receiver<bool>,
    ) -> oneshot::Receiver<Result<(), HttpError>> {
        // Without a receiver it has ended, and says so by the other channel.
        let _ended = self.start.send((state, access, ending));
        self.ended
    }
}
