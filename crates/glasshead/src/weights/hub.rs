//! The Hugging Face hub: the cache its own tools keep on this disk, and the hub itself.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use hf_hub::{Cache, Repo, RepoType};

use super::cache::{home, set};
use super::catalogue::Entry;
use super::progress::Progress;
use super::sources::Source;
use super::staging::{Staging, Trouble};

/// The cache that `huggingface_hub` and its relatives keep. It is read, never changed.
#[derive(Clone, Copy, Debug)]
pub struct HubCache;

impl Source for HubCache {
    fn label(&self, _entry: &Entry) -> String {
        "the Hugging Face cache".to_owned()
    }

    fn fetch(&self, entry: &Entry, staging: &Staging, progress: &mut dyn Progress) -> Result<(), Trouble> {
        let absent = || Trouble::Source("does not have it".to_owned());
        // `Cache::from_env` panics without a home folder and does not know all of the variables.
        let cache = Cache::new(cache_folder().ok_or_else(absent)?);
        let repo = cache.repo(Repo::with_revision(
            entry.hub.repo.to_owned(),
            RepoType::Model,
            entry.hub.revision.to_owned(),
        ));
        let missing = staging.missing(entry);
        let paths: Option<Vec<_>> = missing.iter().map(|file| repo.get(file.path)).collect();
        let paths = paths.ok_or_else(absent)?;
        progress.start(
            &format!("copying {} from the Hugging Face cache", entry.name),
            missing.iter().map(|f| f.bytes).sum(),
        );
        let outcome = missing.iter().zip(paths).try_for_each(|(file, path)| {
            let unreadable = |cause: io::Error| {
                Trouble::Source(format!("has a {} that cannot be read: {cause}", file.path))
            };
            staging.accept(file, &mut File::open(path).map_err(unreadable)?, progress)
        });
        progress.finish();
        outcome
    }
}

fn cache_folder() -> Option<PathBuf> {
    let general = || set("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")));
    let root = || set("HF_HOME").or_else(|| general().map(|folder| folder.join("huggingface")));
    set("HF_HUB_CACHE").or_else(|| root().map(|root| root.join("hub")))
}

/// The hub itself (or the mirror that `HF_ENDPOINT` names); not asked if `HF_HUB_OFFLINE` is set.
///
/// The files are streamed by `ureq` and not by the client of `hf-hub`: that one has no time limits and
/// keeps partial files in its cache.
#[derive(Clone, Copy, Debug)]
pub struct Hub;

/// A network that drops packets must not look like a program that hangs.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// From the request to the first bytes of the answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// The longest pause in the middle of a file.
const PAUSE_LIMIT: Duration = Duration::from_secs(30);

impl Source for Hub {
    fn label(&self, _entry: &Entry) -> String {
        format!("the Hugging Face hub ({})", endpoint())
    }

    fn fetch(&self, entry: &Entry, staging: &Staging, progress: &mut dyn Progress) -> Result<(), Trouble> {
        let offline = env::var("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
        if ["1", "on", "yes", "true"].contains(&offline.as_str()) {
            return Err(Trouble::Source("was not asked because HF_HUB_OFFLINE is set".to_owned()));
        }
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_resolve(Some(CONNECT_LIMIT))
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_recv_response(Some(ANSWER_LIMIT))
            .user_agent(concat!("glasshead/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let missing = staging.missing(entry);
        let total = missing.iter().map(|file| file.bytes).sum();
        progress.start(&format!("fetching {} from the Hugging Face hub", entry.name), total);
        let outcome = missing.iter().try_for_each(|file| {
            let url =
                format!("{}/{}/resolve/{}/{}", endpoint(), entry.hub.repo, entry.hub.revision, file.path);
            // Compressed answers would save nothing on weights.
            let answer = agent.get(&url).header("Accept-Encoding", "identity").call();
            let answer = answer.map_err(|cause| Trouble::Source(format!("does not deliver: {cause}")))?;
            let mut body = Patient::new(answer.into_body().into_reader());
            staging.accept(file, &mut body, progress)
        });
        progress.finish();
        outcome
    }
}

fn endpoint() -> String {
    let named = env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
    named.unwrap_or_else(|| "https://huggingface.co".to_owned()).trim_end_matches('/').to_owned()
}

/// A reader that gives up when nothing has come for [`PAUSE_LIMIT`]. The client's own limit is for the
/// whole body, which is of no use when lines are between 0.1 and 1000 MB/s.
struct Patient {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    read: usize,
}

impl Patient {
    fn new(mut body: impl Read + Send + 'static) -> Self {
        let (send, chunks) = sync_channel(4);
        // It ends with the body, or with the first chunk that nobody wants any more.
        thread::spawn(move || {
            loop {
                let mut chunk = vec![0; 64 << 10];
                let read = body.read(&mut chunk).map(|read| {
                    chunk.truncate(read);
                    chunk
                });
                let last = !matches!(&read, Ok(chunk) if !chunk.is_empty());
                if send.send(read).is_err() || last {
                    return;
                }
            }
        });
        Self { chunks, chunk: Vec::new(), read: 0 }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.chunk.len() {
            self.chunk = match self.chunks.recv_timeout(PAUSE_LIMIT) {
                Ok(chunk) => chunk?,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came for 30 seconds"));
                }
                Err(RecvTimeoutError::Disconnected) => Vec::new(),
            };
            self.read = 0;
        }
        let rest = &self.chunk[self.read..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }
}
