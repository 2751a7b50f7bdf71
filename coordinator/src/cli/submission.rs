//! From a job file on disk to what is submitted. All that can be wrong is found here, before
//! anything is started.

use super::failure::Failure;
use kulprit_common::id::Digest;
use kulprit_common::job::Job;
use kulprit_common::job::file::{Input, JobFile, Place};
use kulprit_proto::{MESSAGE_BYTES_MAX, v1};
use prost::Message as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// A job file is a page; a megabyte is some other file.
const JOB_FILE_BYTES_MAX: usize = 1 << 20;
/// Leaves room for what goes around a job in a message.
const SUBMISSION_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (1 << 20);

#[derive(Clone, Debug)]
pub struct Submission {
    pub name: String,
    job: v1::Job,
    reproducer: Vec<u8>,
}

impl Submission {
    /// Reads and checks a job file and the files it names.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::Input(format!("{}: {why}", path.display()));
        let bytes = read(path, JOB_FILE_BYTES_MAX).map_err(|why| wrong(format!("cannot be read: {why}")))?;
        if bytes.len() > JOB_FILE_BYTES_MAX {
            return Err(wrong("is larger than 1 MiB; is it a job file?".into()));
        }
        let text =
            String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text; is it a job file?".into()))?;
        let absolute = std::path::absolute(path).map_err(|error| wrong(error.to_string()))?;
        let dir = absolute.parent().and_then(Path::to_str);
        let dir = dir.ok_or_else(|| wrong("lies in a directory whose name is not UTF-8".into()))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let place = Place { dir, stem: &stem };

        let file = JobFile::parse(&text).map_err(|error| wrong(error.to_string()))?;
        let mut read_input = |input: &Input| read(Path::new(&place.path(&input.path)), input.bytes_max);
        let resolved = file.resolve(&place, &mut read_input);
        let (job, reproducer) = resolved.map_err(|error| wrong(error.to_string()))?;
        let submission = Submission::new(job, reproducer);
        let bytes = submission.request(String::new()).encoded_len();
        if bytes > SUBMISSION_BYTES_MAX {
            let (mib, max) = (bytes >> 20, SUBMISSION_BYTES_MAX >> 20);
            return Err(wrong(format!(
                "config and reproducer are {mib} MiB together, and a job may be {max} MiB; \
                 shorten config.file, config.fragments or the reproducer"
            )));
        }
        Ok(submission)
    }

    fn new(job: Job, reproducer: Vec<u8>) -> Self {
        Submission { name: job.name.clone(), job: job.into(), reproducer }
    }

    /// A name for this content: the same job file with the same files gives the same one.
    pub fn content(&self) -> Digest {
        Digest::of(&self.job.encode_to_vec())
    }

    /// As the job file's place makes it: an absolute path, or a URL.
    pub fn repository(&self) -> &str {
        &self.job.repository
    }

    /// The revisions that the job names, by their keys.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let good = self.job.good.as_deref().map(|good| ("good", good));
        std::iter::once(("bad", self.job.bad.as_str())).chain(good)
    }

    /// The image that the job names itself.
    pub fn toolchain(&self) -> Option<&str> {
        self.job.toolchain_image.as_deref()
    }

    pub fn request(&self, request: String) -> v1::SubmitRequest {
        v1::SubmitRequest { request, job: Some(self.job.clone()), reproducer: self.reproducer.clone() }
    }
}

/// Reads at most a byte more than `bytes_max`.
fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err("it is a directory".into());
    }
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}
