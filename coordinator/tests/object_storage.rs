//! A cloud's store, played by a real S3 server: what is signed, what agents do with it, and what is kept.

mod farm;

use farm::cloud::{HOUR, behaves, child_dir, large, refused, run_child, send};
use farm::planted::Shape;
use farm::s3::{S3, artifact, http};
use farm::small::Small;
use farm::{Farm, text, wait_for};
use kulprit_common::artifact::{Artifact, path};
use kulprit_common::farm::fact::Fact;
use kulprit_common::farm::item::ItemKey;
use kulprit_common::id::Digest;
use kulprit_coordinator::artifacts::{Condition, PART_BYTES, Presigned, Store, StoreError, WayUp};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// An agent on a busy machine says within it that it stored something.
const YOUNG: Duration = Duration::from_secs(10);

/// The store of a process that has the keys, and the server's directory; `None` in the process that starts it.
fn store_of_child(name: &str) -> Option<(Store, std::path::PathBuf)> {
    let Some(dir) = child_dir() else {
        let dir = tempfile::tempdir().expect("a directory");
        let s3 = S3::start(&dir.path().join("s3"))?;
        run_child(name, dir.path(), s3.settings());
        return None;
    };
    let store = Store::open(farm::s3::URL).and_then(|store| store.with_uploads_in(dir.join("uploads")));
    Some((store.expect("it opens"), dir.join("s3/farm/some/prefix")))
}

/// The same with another first digit of its signature.
fn forged(url: &str) -> String {
    let (head, signature) = url.split_once("X-Amz-Signature=").expect("it is signed");
    let digit = if signature.starts_with('0') { '1' } else { '0' };
    format!("{head}X-Amz-Signature={digit}{}", &signature[1..])
}

/// `at` is where the store keeps its files.
async fn behaves_in(store: &Store, at: &Path) {
    behaves(store, async |digest, bytes| std::fs::write(at.join(path(digest)), bytes).unwrap()).await;
}

#[tokio::test]
async fn a_directory_keeps_artifacts() {
    let dir = tempfile::tempdir().unwrap();
    behaves_in(&Store::open(dir.path().to_str().unwrap()).unwrap(), dir.path()).await;
}

#[tokio::test]
async fn a_bucket_keeps_artifacts() {
    let Some((store, at)) = store_of_child("a_bucket_keeps_artifacts") else { return };
    behaves_in(&store, &at).await;
}

#[tokio::test]
async fn what_is_signed_allows_that_and_nothing_else() {
    let Some((store, _)) = store_of_child("what_is_signed_allows_that_and_nothing_else") else { return };
    let it = artifact(b"a kernel");
    assert!(matches!(store.way_down(&it).await, Err(StoreError::NotFound(_))));
    assert!(!store.arrived(&it, "", vec![]).await.unwrap(), "what was not sent is not believed");
    let WayUp::Whole(put) = store.way_up(&it, "", 0).await.unwrap() else { panic!("it is small") };
    assert!(put.url.contains("X-Amz-Expires=600") && !put.url.contains("secret"), "{}", put.url);
    assert_eq!(send("PUT", &put, b"a colonel"), 400, "the store knows the digest");
    for (what, url) in [
        ("another signature", forged(&put.url)),
        ("another artifact", put.url.replace(&it.digest.to_string(), &Digest::of(b"x").to_string())),
        ("a longer life", put.url.replace("X-Amz-Expires=600", "X-Amz-Expires=6000")),
        ("no signature", put.url.split('?').next().unwrap().to_owned()),
    ] {
        let (status, ..) = http("PUT", &url, &put.headers, b"a kernel");
        assert_eq!(status, 403, "{what}");
    }
    let without_digest = Presigned { headers: vec![], ..put.clone() };
    assert!(send("PUT", &without_digest, b"a kernel") >= 400, "the digest is signed too");
    for method in ["GET", "DELETE", "POST"] {
        assert!(send(method, &put, b"") >= 400, "{method}");
    }
    assert_eq!(send("PUT", &put, b"a kernel"), 200);
    assert!(store.arrived(&it, "", vec![]).await.unwrap());
    assert_eq!(store.way_up(&it, "", 0).await.unwrap(), WayUp::Stored);
    let get = store.way_down(&it).await.unwrap();
    assert_eq!(http("GET", &get.url, &[], b"").1, b"a kernel");
    assert_eq!(send("PUT", &get, b"a kernel"), 403, "to read is not to write");
    assert_eq!(send("DELETE", &get, b""), 403);
    let bare = get.url.split('?').next().unwrap();
    assert_eq!(http("GET", bare, &[], b"").0, 403);
}

/// What the store has of uploads in parts, of which nobody is told any more.
fn books(at: &Path) -> usize {
    let dir = at.ancestors().nth(4).expect("the child's directory").join("uploads");
    std::fs::read_dir(dir).expect("the books").count()
}

#[tokio::test]
async fn what_is_whole_stays_whatever_an_agent_says() {
    let Some((store, at)) = store_of_child("what_is_whole_stays_whatever_an_agent_says") else { return };
    let (whom, mut suspects) = tokio::sync::mpsc::channel(8);
    let store = store.with_suspicions_to(whom);
    let it = store.put("a kernel".into()).await.unwrap();
    for size in [1, 9, PART_BYTES + 1] {
        let other = Artifact { size, ..it };
        let refused = store.arrived(&other, "", vec![]).await;
        assert!(matches!(refused, Err(StoreError::OtherSize(digest)) if digest == it.digest), "{refused:?}");
        let refused = store.way_up(&other, "", 0).await;
        assert!(matches!(refused, Err(StoreError::OtherSize(digest)) if digest == it.digest), "{refused:?}");
        assert_eq!(store.look_at(&it.digest).await.unwrap(), Condition::Whole);
    }
    assert_eq!(books(&at), 0, "no upload was begun");
    assert!(suspects.try_recv().is_err(), "nothing is lost");

    // What is torn makes room for what it should be, and is made again if nobody sends that.
    let torn = || std::fs::write(at.join(path(&it.digest)), "a ker").unwrap();
    torn();
    let WayUp::Whole(put) = store.way_up(&it, "", 0).await.unwrap() else { panic!("it is small") };
    assert_eq!(suspects.try_recv(), Ok(it.digest));
    assert!(!store.exists(&it.digest).await.unwrap());
    torn();
    assert!(!store.arrived(&it, "", vec![]).await.unwrap());
    assert_eq!(suspects.try_recv(), Ok(it.digest));
    assert_eq!(send("PUT", &put, b"a kernel"), 200);
    assert!(store.arrived(&it, "", vec![]).await.unwrap());

    // An upload that was begun before somebody else stored it does not take its place.
    let bytes = large(PART_BYTES as usize + 5);
    let it = artifact(&bytes);
    let WayUp::Parts { upload, requests, .. } = store.way_up(&it, "", 0).await.unwrap() else { panic!() };
    let put = |request: &Presigned, body: &[u8]| {
        let (status, _, fields) = http("PUT", &request.url, &request.headers, body);
        assert_eq!(status, 200);
        fields["etag"].clone()
    };
    let etags = vec![put(&requests[0], &vec![0; PART_BYTES as usize]), put(&requests[1], &[0; 5])];
    store.put(bytes.into()).await.unwrap();
    assert!(store.arrived(&it, &upload, etags).await.unwrap());
    assert_eq!(store.look_at(&it.digest).await.unwrap(), Condition::Whole);
    assert_eq!(books(&at), 0, "its parts were taken back");
    assert!(send("PUT", &requests[1], &[0; 5]) >= 400);
}

#[tokio::test]
async fn large_ones_go_in_parts_and_what_breaks_off_is_taken_back() {
    let name = "large_ones_go_in_parts_and_what_breaks_off_is_taken_back";
    let Some((store, _)) = store_of_child(name) else { return };
    let bytes = large(2 * PART_BYTES as usize + 5);
    let it = artifact(&bytes);
    let pieces: Vec<&[u8]> = bytes.chunks(PART_BYTES as usize).collect();
    let parts = |way| match way {
        WayUp::Parts { upload, part_bytes, first, requests } => {
            assert_eq!(part_bytes, PART_BYTES);
            (upload, first, requests)
        }
        other => panic!("{other:?}"),
    };
    let put = |request: &Presigned, body: &[u8]| {
        let (status, said, fields) = http("PUT", &request.url, &request.headers, body);
        assert_eq!(status, 200, "{}", text(&said));
        fields["etag"].clone()
    };
    let (upload, first, requests) = parts(store.way_up(&it, "", 0).await.unwrap());
    assert_eq!((first, requests.len()), (0, 3));
    let mut etags = vec![put(&requests[0], pieces[0]), put(&requests[1], pieces[1])];
    let other_part = requests[1].url.replace("partNumber=2", "partNumber=3");
    assert_eq!(http("PUT", &other_part, &[], pieces[2]).0, 403, "each part is signed for itself");
    assert!(!store.arrived(&it, &upload, etags.clone()).await.unwrap(), "a part is missing");
    // Later, with new signatures, it goes on where it was.
    let (again, first, requests) = parts(store.way_up(&it, &upload, 2).await.unwrap());
    assert_eq!((again.as_str(), first, requests.len()), (upload.as_str(), 2, 1));
    etags.push(put(&requests[0], pieces[2]));
    assert!(store.arrived(&it, &upload, etags.clone()).await.unwrap());
    assert!(store.arrived(&it, &upload, etags).await.unwrap(), "said again, since the answer was lost");
    assert_eq!(store.look_at(&it.digest).await.unwrap(), Condition::Whole);

    let other = large(2 * PART_BYTES as usize + 6);
    let it = artifact(&other);
    let (upload, _, requests) = parts(store.way_up(&it, "", 0).await.unwrap());
    put(&requests[0], &other[..PART_BYTES as usize]);
    assert_eq!(store.abort_broken_off(HOUR).await.unwrap(), 0, "its sender was heard of just now");
    assert_eq!(store.abort_broken_off(Duration::ZERO).await.unwrap(), 1);
    assert!(send("PUT", &requests[1], b"late") >= 400, "it is no more");
    let (anew, first, _) = parts(store.way_up(&it, &upload, 1).await.unwrap());
    assert!(anew != upload && first == 0, "it begins anew");
    let foreign = artifact(&large(PART_BYTES as usize + 7));
    let (own, ..) = parts(store.way_up(&foreign, &anew, 1).await.unwrap());
    assert_ne!(own, anew, "an upload is one artifact's");
    assert_eq!(store.abort_broken_off(Duration::ZERO).await.unwrap(), 2);
}

const KEYS: [&str; 4] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT"];

/// Whatever the environment of this test has.
fn without_keys(command: &mut Command) {
    KEYS.iter().for_each(|name| _ = command.env_remove(name));
}

/// A job of real agents whose only way to the store is what is signed for them; then retention.
#[test]
fn a_farm_keeps_its_artifacts_in_a_bucket() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(s3) = S3::start(&dir.path().join("s3")) else { return };
    let shape = Shape { commits: 4, culprit: 2, build_s: 0, build_mib: 0 };
    let Some(small) = Small::new(dir.path(), shape, 0) else { return };
    let farm = Farm::new(&dir.path().join("farm"));
    let start = || {
        farm.coordinator_with(|command| {
            s3.tell(command);
            command.env("KULPRIT_ARTIFACTS_YOUNG_S", YOUNG.as_secs().to_string());
        })
    };
    let mut coordinator = start();
    let names = ["objects-a", "objects-b"];
    let mut agents: Vec<_> = names.iter().map(|name| small.start(&farm, name, without_keys)).collect();
    let environment = std::fs::read(format!("/proc/{}/environ", agents[0].id())).expect("it is ours");
    for name in KEYS {
        assert!(!text(&environment).contains(name), "agents hold no keys: {name}");
    }
    small.submit(&farm, "large");
    // A coordinator that dies in the middle has its uploads in its books.
    wait_for("an artifact", farm::LONG, || !s3.objects().is_empty());
    coordinator.kill9();
    coordinator = start();
    small.wait_for_culprit(&farm, "1");
    let local = farm.state.join("coordinator/artifacts");
    assert!(!local.exists(), "nothing is kept on the coordinator's disk");
    let kernels: Vec<u64> = s3
        .objects()
        .iter()
        .map(|it| it.metadata().map_or(0, |it| it.len()))
        .filter(|size| *size > 40 << 20)
        .collect();
    assert!(kernels.len() >= 3, "{kernels:?}");
    assert_eq!(s3.parts(), Vec::<std::path::PathBuf>::new(), "all were put together");

    let listed = farm.json(&["artifact", "list"]);
    let contents = |word: &str| {
        let all = listed.as_array().expect("an array");
        let of = all.iter().filter(|it| it["content"] == word);
        of.map(|it| it["digest"].as_str().expect("a digest").to_owned()).collect::<Vec<_>>()
    };
    for content in ["kernel", "vmlinux", "config", "build log", "console"] {
        assert!(!contents(content).is_empty(), "{content}: {listed}");
    }
    assert!(text(&farm.kulprit(&["artifact", "list"]).stdout).contains("NEEDED BY JOB"));
    let kernel = &contents("kernel")[0];
    let out = dir.path().join("bzImage");
    let got = farm.kulprit(&["artifact", "get", kernel, "--out", &out.to_string_lossy()]);
    assert!(got.status.success(), "{}", text(&got.stderr));
    assert_eq!(Digest::of(&std::fs::read(&out).expect("it is there")).to_string(), *kernel);
    let none = farm.kulprit(&["artifact", "get", &"0".repeat(64), "--out", "/nonexistent/x"]);
    assert_eq!(none.status.code(), Some(2), "{}", text(&none.stderr));

    let verified = farm.kulprit(&["artifact", "verify"]);
    assert!(verified.status.success(), "{}", text(&verified.stdout));
    let torn = s3.objects().into_iter().find(|it| it.ends_with(kernel)).expect("the kernel");
    std::fs::write(&torn, vec![0; 41 << 20]).expect("torn");
    let verified = farm.kulprit(&["artifact", "verify", "-o", "json"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified.stdout).contains("corrupt") && text(&verified.stdout).contains(kernel.as_str()));
    wait_for("what is corrupt to be removed", Duration::from_secs(20), || !torn.exists());

    let refused = farm.kulprit(&["artifact", "gc"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("no retention is set"), "{}", text(&refused.stderr));
    std::thread::sleep(YOUNG);
    let gc = |args: &[&str]| farm.json(&[&["artifact", "gc", "--keep-days", "1"], args].concat());
    assert_eq!(gc(&[])["removed"], serde_json::json!([]), "nothing is old");
    s3.age(2 * DAY);
    let before = s3.objects().len();
    assert_eq!(gc(&["--dry-run"])["removed"].as_array().map(Vec::len), Some(before));
    assert_eq!(s3.objects().len(), before);
    assert_eq!(gc(&[])["removed"].as_array().map(Vec::len), Some(before), "nobody needs anything");
    assert_eq!(s3.objects().len(), 0);

    // The same kernels, for other runs: they are built again, on either side of a restart.
    coordinator.stop();
    coordinator = start();
    std::thread::sleep(YOUNG);
    let job = small.planted.job("large");
    let changed = std::fs::read_to_string(&job).expect("the job").replace("settle_ms = 0", "settle_ms = 1");
    std::fs::write(&job, changed).expect("written");
    let output = farm.kulprit(&["bisect", "start", &job.to_string_lossy()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    wait_for("what the job needs", farm::LONG, || {
        farm.json(&["artifact", "list", "--needed"]) != serde_json::json!([])
    });
    s3.age(2 * DAY);
    assert!(gc(&[])["needed"].as_u64() > Some(0), "what it needs is old, and stays");
    small.wait_for_culprit(&farm, "2");
    agents.iter_mut().for_each(farm::Process::stop);
    coordinator.stop();
    let facts = farm.facts();
    let builds = farm::builds(&facts);
    assert!(
        builds.values().any(|times| *times == 2) && builds.values().all(|times| *times <= 2),
        "{builds:?}"
    );
    let failed = facts.iter().filter(|fact| matches!(fact, Fact::AttemptFailed { .. })).count();
    assert_eq!(failed, 0, "{facts:?}");
    let runs = facts.iter().filter(|fact| matches!(fact, Fact::ItemFinished { item: ItemKey::Run(..), .. }));
    println!("objects: {before}, kernels in parts: {}, runs of both jobs: {}", kernels.len(), runs.count());
    assert_eq!(farm::leftovers(&names), Vec::<String>::new());
}

#[test]
fn a_store_that_cannot_be_opened_is_named_with_its_setting() {
    let said = refused("az://container/x", |command| {
        for name in ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"] {
            command.env_remove(name);
        }
    });
    assert!(said.contains("az://container/x") && said.to_lowercase().contains("account"), "{said}");
    let said = refused("s3://key:secret@/x?X-Amz-Signature=secret", |_| {});
    assert!(said.contains("open the artifact store s3://"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn a_store_that_will_not_do_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(s3) = S3::start(&dir.path().join("s3")) else { return };
    let told = |name: &'static str, value: &'static str| {
        let settings = s3.settings();
        move |command: &mut Command| _ = command.envs(settings).env(name, value)
    };
    let said = refused("s3://none/x", told("AWS_REGION", "us-east-1"));
    assert!(said.contains("--artifacts s3://none/x: ") && said.contains("is not there"), "{said}");
    assert!(said.contains("NoSuchBucket"), "{said}");
    let said = refused(farm::s3::URL, told("AWS_SECRET_ACCESS_KEY", "anothers-secret"));
    assert!(said.contains("it refuses the coordinator's credentials"), "{said}");
    assert!(!said.contains("anothers") && !said.contains("<Error>"), "{said}");
}

#[test]
fn a_store_that_goes_missing_is_told_from_a_coordinator_that_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(s3) = S3::start(&dir.path().join("s3")) else { return };
    let farm = Farm::new(&dir.path().join("farm"));
    let mut coordinator = farm.coordinator_with(|command| s3.tell(command));
    std::fs::remove_dir_all(dir.path().join("s3/farm")).expect("removed");
    let checks = farm.json(&["doctor", "--farm"]);
    let mut all = checks.as_array().expect("an array").iter();
    let store = all.find(|it| it["check"] == "artifact store").expect("the store's");
    assert_eq!(store["status"], "failed", "{store}");
    for args in [
        &["artifact", "list"][..],
        &["artifact", "verify"],
        &["artifact", "gc", "--keep-days", "1", "--dry-run"],
    ] {
        let output = farm.kulprit(args);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains("NoSuchBucket"), "{args:?}: {said}");
        assert!(!said.contains("reach a coordinator"), "{args:?}: {said}");
    }
    coordinator.stop();
}
