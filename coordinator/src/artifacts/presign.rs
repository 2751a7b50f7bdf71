//! Requests that agents make of a cloud's store themselves, signed here: keys stay with the coordinator.

use super::location;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderName, HeaderValue, Method};
use kulprit_common::artifact::Artifact;
use kulprit_common::id::Digest;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a signature is good for: whoever sees it later can do nothing with it.
pub const SIGNATURE_LIFE: Duration = Duration::from_secs(10 * 60);

/// Of each part but the last. With the largest artifact there is, 4 GiB, it makes 256 of them.
pub const PART_BYTES: u64 = 16 << 20;

const CHECKSUM: &str = "x-amz-checksum-sha256";

/// Whose store it is; they differ in what a signature can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    S3,
    Google,
    Azure,
}

/// A request that whoever has it may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presigned {
    pub url: String,
    /// To be sent as they stand.
    pub headers: Vec<(&'static str, String)>,
}

#[derive(Clone)]
pub(super) struct Presigner {
    pub cloud: Cloud,
    pub signer: Arc<dyn Signer>,
    /// Where large artifacts go up in parts.
    pub parts: Option<Arc<dyn MultipartStore>>,
    /// What artifacts' paths begin with in the bucket.
    pub prefix: Path,
}

impl fmt::Debug for Presigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presigner")
            .field("cloud", &self.cloud)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Presigner {
    pub fn at(&self, digest: &Digest) -> Path {
        self.prefix.parts().chain(location(digest).parts()).collect()
    }

    pub async fn get(&self, digest: &Digest) -> object_store::Result<Presigned> {
        let url = self.signer.signed_url(Method::GET, &self.at(digest), SIGNATURE_LIFE).await?;
        Ok(Presigned { url: url.into(), headers: Vec::new() })
    }

    /// All of an artifact in one request. S3 is told the digest, and takes nothing else under the signature.
    pub async fn whole(&self, artifact: &Artifact) -> object_store::Result<Presigned> {
        let checksum = BASE64_STANDARD.encode(artifact.digest.as_bytes());
        let (options, headers) = match self.cloud {
            Cloud::S3 => {
                let value = HeaderValue::from_str(&checksum).expect("base64 is ASCII");
                let options =
                    SignedUrlOptions::new().with_signed_header(HeaderName::from_static(CHECKSUM), value);
                (options, vec![(CHECKSUM, checksum)])
            }
            Cloud::Google => (SignedUrlOptions::new(), Vec::new()),
            Cloud::Azure => (SignedUrlOptions::new(), vec![("x-ms-blob-type", "BlockBlob".into())]),
        };
        let at = self.at(&artifact.digest);
        let url = self.signer.signed_url_opts(Method::PUT, &at, SIGNATURE_LIFE, &options).await?;
        Ok(Presigned { url: url.into(), headers })
    }

    /// One part of an upload, counted from 0.
    pub async fn part(&self, digest: &Digest, upload: &str, part: u32) -> object_store::Result<Presigned> {
        let query = [("partNumber", (part + 1).to_string()), ("uploadId", upload.to_owned())];
        let options = SignedUrlOptions::new().with_query(query);
        let at = self.at(digest);
        let url = self.signer.signed_url_opts(Method::PUT, &at, SIGNATURE_LIFE, &options).await?;
        Ok(Presigned { url: url.into(), headers: Vec::new() })
    }
}
