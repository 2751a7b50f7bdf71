//! From a URL to a store.

use super::presign::{Cloud, Presigner};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Location;
use object_store::prefix::PrefixStore;
use object_store::signer::Signer;
use object_store::{ObjectStore, ObjectStoreScheme};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use url::Url;

/// Staged files of a process that died are removed when they are older than any upload lives.
const STAGED_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A store, and who signs requests for it.
pub(super) struct Opened {
    pub objects: Arc<dyn ObjectStore>,
    pub presigner: Option<Presigner>,
}

impl From<Arc<dyn ObjectStore>> for Opened {
    fn from(objects: Arc<dyn ObjectStore>) -> Self {
        Opened { objects, presigner: None }
    }
}

/// Opens the store, or says why not as a fragment.
pub(super) fn open(text: &str) -> Result<Opened, String> {
    if !text.contains("://") {
        return local(Path::new(text)).map(Opened::from);
    }
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let known = || format!("the scheme {:?} is not one of file, memory, s3, gs, az", url.scheme());
    let (scheme, prefix) = ObjectStoreScheme::parse(&url).map_err(|_| match url.scheme() {
        "file" | "memory" => format!("write it with three slashes, {}:///…", url.scheme()),
        "s3" | "gs" | "az" => "the name of the bucket is missing".into(),
        _ => known(),
    })?;
    let bad = |error: object_store::Error| error.to_string();
    match scheme {
        ObjectStoreScheme::Local => {
            let path = url.to_file_path().map_err(|()| "it is not a path of this machine".to_owned())?;
            local(&path).map(Opened::from)
        }
        ObjectStoreScheme::Memory => Ok(Opened::from(Arc::new(InMemory::new()) as Arc<dyn ObjectStore>)),
        ObjectStoreScheme::AmazonS3 => {
            let store = Arc::new(AmazonS3Builder::from_env().with_url(text).build().map_err(bad)?);
            Ok(signed(Cloud::S3, store.clone(), Some(store), prefix))
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let store = GoogleCloudStorageBuilder::from_env().with_url(text).build().map_err(bad)?;
            Ok(signed(Cloud::Google, Arc::new(store), None, prefix))
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let store = MicrosoftAzureBuilder::from_env().with_url(text).build().map_err(bad)?;
            Ok(signed(Cloud::Azure, Arc::new(store), None, prefix))
        }
        // An agent's way to a coordinator, but no place for a coordinator to keep things.
        ObjectStoreScheme::Http => Err(known()),
        _ => Err(known()),
    }
}

/// A store's URL without what gives access to it: a password, or a signature among its parameters.
pub fn without_password(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) if url.password().is_some() || url.query().is_some() => {
            // Both fail only for URLs that cannot have them.
            let _ = url.set_password(None);
            url.set_query(None);
            url.into()
        }
        Ok(_) => url.to_owned(),
        // Where a password ends in what cannot be read, nobody can say.
        Err(_) => url.split_once("://").map_or(url.to_owned(), |(scheme, _)| format!("{scheme}://…")),
    }
}

fn signed<S: ObjectStore + Signer>(
    cloud: Cloud,
    store: Arc<S>,
    parts: Option<Arc<dyn MultipartStore>>,
    prefix: Location,
) -> Opened {
    let presigner = Presigner { cloud, signer: store.clone(), parts, prefix: prefix.clone() };
    Opened { objects: Arc::new(PrefixStore::new(store, prefix)), presigner: Some(presigner) }
}

fn local(path: &Path) -> Result<Arc<dyn ObjectStore>, String> {
    std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
    remove_staged(&path.join("sha256"));
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| error.to_string())?;
    // A journalled fact may name the artifact, so it has to be as durable as the journal.
    Ok(Arc::new(store.with_fsync(true)))
}

/// Removes what uploads of dead processes left: object_store stages as `<digest>#<number>`.
fn remove_staged(root: &Path) {
    let now = SystemTime::now();
    let directories = std::fs::read_dir(root).into_iter().flatten().flatten();
    let files = directories.filter_map(|dir| std::fs::read_dir(dir.path()).ok()).flatten().flatten();
    for file in files.filter(|file| file.file_name().to_string_lossy().contains('#')) {
        let modified = file.metadata().and_then(|meta| meta.modified());
        let age = modified.ok().and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
        if age > STAGED_AGE_MAX {
            // A leftover that stays costs space, nothing else.
            let _ = std::fs::remove_file(file.path());
        }
    }
}
