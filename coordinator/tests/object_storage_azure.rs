//! Artifacts in Azure's store, played by Azurite where there is one: what is signed, what agents do with it, and
//! what is kept.

mod farm;

use farm::azurite::{Azurite, URL, spoil};
use farm::cloud::{behaves, child_dir, large, refused, run_child, send};
use farm::planted::Shape;
use farm::s3::{artifact, http};
use farm::small::Small;
use farm::{Farm, Process, builds, text, wait_for};
use kulprit_common::farm::fact::Fact;
use kulprit_common::id::Digest;
use kulprit_coordinator::artifacts::{Condition, PART_BYTES, Presigned, Store, StoreError, WayUp};
use std::process::Command;
use std::time::{Duration, Instant};

const YOUNG: Duration = Duration::from_secs(10);
const AWAY: Duration = Duration::from_secs(30);

/// The store of a process that has the keys; `None` in the process that starts it.
fn store_of_child(name: &str) -> Option<Store> {
    let Some(dir) = child_dir() else {
        let dir = tempfile::tempdir().expect("a directory");
        let azurite = Azurite::start(&dir.path().join("azurite"))?;
        run_child(name, dir.path(), azurite.settings());
        return None;
    };
    let store = Store::open(URL).and_then(|store| store.with_uploads_in(dir.join("uploads")));
    Some(store.expect("it opens"))
}

const SETTINGS: [&str; 4] =
    ["AZURE_STORAGE_ENDPOINT", "AZURE_ALLOW_HTTP", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"];

/// Those that this process was started with.
fn own_settings() -> Vec<(&'static str, String)> {
    SETTINGS.into_iter().map(|name| (name, std::env::var(name).expect("it is set"))).collect()
}

#[tokio::test]
async fn a_container_keeps_artifacts() {
    let Some(store) = store_of_child("a_container_keeps_artifacts") else { return };
    behaves(&store, async |digest, bytes| spoil(own_settings(), digest, bytes.as_bytes()).await).await;
}

/// The same with another signature.
fn forged(url: &str) -> String {
    let (head, signature) = url.split_once("sig=").expect("it is signed");
    let letter = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{head}sig={letter}{}", &signature[1..])
}

/// The same until a year later.
fn for_longer(url: &str) -> String {
    let (head, until) = url.split_once("se=").expect("it ends");
    let year: u32 = until[..4].parse().expect("a year");
    format!("{head}se={}{}", year + 1, &until[4..])
}

#[tokio::test]
async fn what_is_signed_allows_that_and_nothing_else() {
    let Some(store) = store_of_child("what_is_signed_allows_that_and_nothing_else") else { return };
    let it = artifact(b"a kernel");
    assert!(matches!(store.way_down(&it).await, Err(StoreError::NotFound(_))));
    assert!(!store.arrived(&it, "", vec![]).await.unwrap(), "what was not sent is not believed");
    let WayUp::Whole(put) = store.way_up(&it, "", 0).await.unwrap() else { panic!("it is whole") };
    for (what, url) in [
        ("another signature", forged(&put.url)),
        ("another artifact", put.url.replace(&it.digest.to_string(), &Digest::of(b"x").to_string())),
        ("a longer life", for_longer(&put.url)),
        ("no signature", put.url.split('?').next().unwrap().to_owned()),
    ] {
        assert_eq!(http("PUT", &url, &put.headers, b"a kernel").0, 403, "{what}");
    }
    for method in ["GET", "DELETE"] {
        assert!(send(method, &put, b"") >= 400, "{method}");
    }
    let headers_of_put = put.headers.clone();
    let get = |request: &Presigned| http("GET", &request.url, &request.headers, b"").1;
    assert_eq!(send("PUT", &put, b"a kernel"), 201);
    assert!(store.arrived(&it, "", vec![]).await.unwrap());
    assert_eq!(store.way_up(&it, "", 0).await.unwrap(), WayUp::Stored);
    let down = store.way_down(&it).await.unwrap();
    assert_eq!(get(&down), b"a kernel");
    for method in ["PUT", "DELETE"] {
        let request = Presigned { headers: headers_of_put.clone(), ..down.clone() };
        assert_eq!(send(method, &request, b"a kernel"), 403, "{method}: to read is not to write");
    }
    assert_eq!(http("GET", down.url.split('?').next().unwrap(), &[], b"").0, 403, "nothing is public");

    // Azure is not told the digest: what is wrong is found by its size at once, or by whoever reads it.
    assert_eq!(send("PUT", &put, b"a colonel"), 201);
    assert!(!store.arrived(&it, "", vec![]).await.unwrap(), "another size is looked at");
    assert_eq!(store.look_at(&it.digest).await.unwrap(), Condition::Missing, "and makes room");
    assert_eq!(send("PUT", &put, b"a kernal"), 201);
    assert!(store.arrived(&it, "", vec![]).await.unwrap());
    assert!(matches!(store.get_bytes(&it.digest, 99).await, Err(StoreError::Corrupt(_))));
    assert_eq!(store.remove_corrupt(&it.digest).await.unwrap(), Condition::Corrupt);

    let bytes = large(2 * PART_BYTES as usize + 5);
    let it = artifact(&bytes);
    let WayUp::Whole(put) = store.way_up(&it, "", 0).await.unwrap() else { panic!("Azure takes it whole") };
    assert_eq!(send("PUT", &put, &bytes), 201);
    assert!(store.arrived(&it, "", vec![]).await.unwrap());
    assert_eq!(get(&store.way_down(&it).await.unwrap()), bytes);
    assert_eq!(store.abort_broken_off(Duration::ZERO).await.unwrap(), 0, "there are no parts");
}

/// Whatever the environment of this test has.
fn without_keys(command: &mut Command) {
    SETTINGS.iter().for_each(|name| _ = command.env_remove(name));
}

fn artifacts(farm: &Farm, args: &[&str]) -> Vec<serde_json::Value> {
    farm.json(&[&["artifact", "list"], args].concat()).as_array().cloned().expect("an array")
}

/// A job of real agents whose only way to the store is what is signed for them, and which goes away amid it.
#[test]
fn a_farm_keeps_its_artifacts_in_a_container() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(mut azurite) = Azurite::start(&dir.path().join("azurite")) else { return };
    let shape = Shape { commits: 4, culprit: 2, build_s: 0, build_mib: 0 };
    let Some(small) = Small::new(dir.path(), shape, 0) else { return };
    let farm = Farm::new(&dir.path().join("farm"));
    let mut coordinator = farm.coordinator_with(|command| {
        azurite.tell(command);
        command.env("KULPRIT_ARTIFACTS_YOUNG_S", YOUNG.as_secs().to_string());
    });
    let names = ["azure-a", "azure-b"];
    let mut agents: Vec<_> = names.iter().map(|name| small.start(&farm, name, without_keys)).collect();
    small.submit(&farm, "large");
    wait_for("an artifact", farm::LONG, || !artifacts(&farm, &[]).is_empty());
    let begun = Instant::now();
    azurite.go();
    std::thread::sleep(AWAY);
    assert!(farm.json(&["bisect", "show", "1"])["ending"].is_null(), "it waits for the store");
    azurite.come_back();
    small.wait_for_culprit(&farm, "1");
    let took = begun.elapsed();
    assert!(!farm.state.join("coordinator/artifacts").exists(), "nothing is kept on the coordinator's disk");

    let all = artifacts(&farm, &[]);
    let of = |word: &str| all.iter().filter(|it| it["content"] == word).cloned().collect::<Vec<_>>();
    let kernels = of("kernel");
    assert!(
        kernels.len() >= 3 && kernels.iter().all(|it| it["size"].as_u64() > Some(40 << 20)),
        "{kernels:?}"
    );
    let kernel = kernels[0]["digest"].as_str().expect("a digest");
    let out = dir.path().join("bzImage");
    let got = farm.kulprit(&["artifact", "get", kernel, "--out", &out.to_string_lossy()]);
    assert!(got.status.success(), "{}", text(&got.stderr));
    assert_eq!(Digest::of(&std::fs::read(&out).expect("it is there")).to_string(), kernel);
    assert!(farm.kulprit(&["artifact", "verify"]).status.success());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let digest: Digest = kernel.parse().expect("a digest");
    runtime.block_on(spoil(azurite.settings(), &digest, &vec![0; 41 << 20]));
    let verified = farm.kulprit(&["artifact", "verify", "-o", "json"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified.stdout).contains("corrupt") && text(&verified.stdout).contains(kernel));
    wait_for("what is corrupt to be removed", Duration::from_secs(20), || {
        artifacts(&farm, &[]).iter().all(|it| it["digest"] != kernel)
    });

    let gc = |args: &[&str]| farm.json(&[&["artifact", "gc", "--keep-days", "1"], args].concat());
    std::thread::sleep(YOUNG);
    assert_eq!(gc(&[])["removed"], serde_json::json!([]), "nothing is old");
    azurite.go();
    azurite.age();
    azurite.come_back();
    let before = artifacts(&farm, &[]).len();
    assert_eq!(gc(&["--dry-run"])["removed"].as_array().map(Vec::len), Some(before));
    assert_eq!(gc(&[])["removed"].as_array().map(Vec::len), Some(before), "nobody needs anything");
    assert_eq!(artifacts(&farm, &[]).len(), 0);
    agents.iter_mut().for_each(Process::stop);
    coordinator.stop();
    let facts = farm.facts();
    let failed: Vec<_> = facts.iter().filter(|fact| matches!(fact, Fact::AttemptFailed { .. })).collect();
    assert_eq!(failed.len(), 0, "{failed:?}");
    assert!(builds(&facts).values().all(|times| *times == 1), "{:?}", builds(&facts));
    println!("objects: {before}, kernels: {}, culprit {took:.1?} after the store went", kernels.len());
    assert_eq!(farm::leftovers(&names), Vec::<String>::new());
}

#[test]
fn a_container_that_will_not_do_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(azurite) = Azurite::start(&dir.path().join("azurite")) else { return };
    let said = refused("az://none/x", |command| _ = command.envs(azurite.settings()));
    assert!(said.contains("--artifacts az://none/x: ") && said.contains("is not there"), "{said}");
    assert!(said.contains("ContainerNotFound"), "{said}");
    let said = refused(URL, |command| {
        command.envs(azurite.settings()).env("AZURE_STORAGE_ACCOUNT_KEY", "YW5vdGhlcnMta2V5");
    });
    assert!(said.contains("it refuses the coordinator's credentials"), "{said}");
    assert!(!said.contains("YW5vdGhlcnM") && !said.contains("<Error>"), "{said}");
    let said = refused(URL, |command| {
        _ = command.envs(azurite.settings()).env("AZURE_STORAGE_ACCOUNT_KEY", "no key!")
    });
    assert!(said.contains("open the artifact store az://farm/some/prefix") && said.contains("Key"), "{said}");
}
