//! `kulprit-agent --check`: what this machine can do, as JSON lines for `kulprit doctor`.
//!
//! Each line is `{"check","ok","warning","detail","hint"}`; a warning does not keep the agent
//! from working.

use crate::boot::{self, Accelerator};
use crate::canary;
use crate::config::Args;
use crate::container::engine_words;
use crate::health;
use crate::initramfs;
use bollard::Docker;
use serde::Serialize;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// An engine that does not answer within this is as good as none.
const ENGINE_LIMIT: Duration = Duration::from_secs(15);
const QEMU_LIMIT: Duration = Duration::from_secs(10);
/// The images of the default toolchain rules.
const IMAGES: [&str; 2] = ["kulprit/gcc-10", "kulprit/gcc-12"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    check: &'static str,
    ok: bool,
    warning: bool,
    detail: String,
    /// What to do; empty where nothing is.
    hint: String,
}

impl Check {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Check { check, ok: true, warning: false, detail: detail.into(), hint: String::new() }
    }

    fn warning(check: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Check { check, ok: true, warning: true, detail: detail.into(), hint: hint.into() }
    }

    fn failed(check: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Check { check, ok: false, warning: false, detail: detail.into(), hint: hint.into() }
    }
}

/// Checks everything and prints a line for each; whether an agent could do all its work here.
///
/// Takes no lock and starts no container: it may run beside an agent.
pub async fn run(args: &Args) -> bool {
    let mut all = vec![qemu_check(&args.qemu).await];
    all.extend(canaries(args, all[0].ok).await);
    all.push(memory_check(boot::memory_groups()));
    all.extend(engine_checks(args.check_image.as_deref()).await);
    all.push(busybox_check(&args.busybox));
    all.push(disk_check(&args.state, args.disk_min_mib));
    let cache = args.cache.clone().unwrap_or_else(|| args.state.join("cache"));
    all.push(cache_check(&cache));
    for check in &all {
        println!("{}", serde_json::to_string(check).expect("texts and booleans are JSON"));
    }
    all.iter().all(|check| check.ok)
}

async fn qemu_check(qemu: &Path) -> Check {
    let hint = "apt install qemu-system-x86, or name another with KULPRIT_QEMU";
    let asked = Command::new(qemu).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    match tokio::time::timeout(QEMU_LIMIT, asked).await {
        Err(_) => Check::failed("qemu", format!("{} does not answer", qemu.display()), hint),
        Ok(Err(error)) => Check::failed("qemu", format!("{}: {error}", qemu.display()), hint),
        Ok(Ok(output)) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout);
            Check::ok("qemu", said.lines().next().unwrap_or_default())
        }
        Ok(Ok(output)) => Check::failed("qemu", format!("{}: {}", qemu.display(), output.status), hint),
    }
}

async fn canaries(args: &Args, has_qemu: bool) -> [Check; 2] {
    let missing = || "not tried without QEMU";
    if !has_qemu {
        return [
            Check::warning("kvm canary", missing(), ""),
            Check::failed("tcg canary", missing(), "install QEMU first"),
        ];
    }
    let config = args.qemu_config();
    let kvm = match canary::check(&config, Accelerator::Kvm).await {
        Ok(()) => Check::ok("kvm canary", "a guest runs under KVM"),
        Err(why) => Check::warning(
            "kvm canary",
            why,
            "guests run under TCG, which is slower; for KVM load kvm-intel or kvm-amd and open /dev/kvm to this user",
        ),
    };
    let tcg = match canary::check(&config, Accelerator::Tcg).await {
        Ok(()) => Check::ok("tcg canary", "a guest runs under TCG"),
        Err(why) if kvm.warning => {
            Check::failed("tcg canary", why, "guests cannot be booted here: reinstall QEMU")
        }
        Err(why) => Check::warning("tcg canary", why, "guests run under KVM alone"),
    };
    [kvm, tcg]
}

/// Whether guests' memory would be capped for an agent that is started as this check was.
fn memory_check(groups: Result<&Path, &str>) -> Check {
    match groups {
        Ok(below) => {
            Check::ok("guests' memory", format!("capped by control groups below {}", below.display()))
        }
        Err(why) => Check::warning("guests' memory", format!("not capped: {why}"), boot::CAPPED_BY),
    }
}

async fn engine_checks(image: Option<&str>) -> Vec<Check> {
    let hint = "apt install docker.io and start its daemon (systemctl start docker), or set DOCKER_HOST; \
                this user must be allowed to use its socket";
    match tokio::time::timeout(ENGINE_LIMIT, ask_engine(image)).await {
        Ok(Ok(checks)) => checks,
        Ok(Err(error)) => vec![Check::failed("container engine", engine_words(&error), hint)],
        Err(_) => {
            vec![Check::failed(
                "container engine",
                format!("no answer in {} s", ENGINE_LIMIT.as_secs()),
                hint,
            )]
        }
    }
}

async fn ask_engine(image: Option<&str>) -> Result<Vec<Check>, bollard::errors::Error> {
    let docker = match std::env::var_os("DOCKER_HOST") {
        Some(_) => Docker::connect_with_defaults(),
        None => Docker::connect_with_unix_defaults().or_else(|_| Docker::connect_with_podman_defaults()),
    }?;
    let docker = docker.negotiate_version().await?;
    let version = docker.version().await?.version.unwrap_or_else(|| "of an unknown version".into());
    let info = docker.info().await?;
    let mut checks = vec![Check::ok("container engine", format!("{version}, ready"))];
    let limits = [
        ("memory", info.memory_limit.unwrap_or(false)),
        ("PIDs", info.pids_limit.unwrap_or(false)),
        ("CPU", info.cpu_cfs_quota.unwrap_or(false)),
    ];
    checks.push(limits_check(&limits));
    if let Some(image) = image {
        checks.push(own_image_check(image, docker.inspect_image(image).await.is_ok()));
        return Ok(checks);
    }
    let mut images = Vec::new();
    for image in IMAGES {
        images.push((image, docker.inspect_image(image).await.is_ok()));
    }
    checks.push(images_check(&images));
    Ok(checks)
}

fn limits_check(limits: &[(&str, bool)]) -> Check {
    let lacking: Vec<&str> = limits.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
    if lacking.is_empty() {
        return Check::ok("container limits", "memory, PIDs and CPU can be limited");
    }
    Check::warning(
        "container limits",
        format!("the engine cannot limit {}", lacking.join(", ")),
        "a build may take more than its share; give the engine these cgroup controllers",
    )
}

/// The image that a job names. One with a registry's name is pulled when it is needed.
fn own_image_check(image: &str, there: bool) -> Check {
    let check = "toolchain image";
    let plain = image.strip_suffix(":latest").unwrap_or(image);
    match plain.strip_prefix("kulprit/") {
        _ if there => Check::ok(check, image),
        Some(own) => Check::failed(
            check,
            format!("{image} is not there"),
            format!("scripts/toolchain {own}, if `scripts/toolchain list` knows it"),
        ),
        None if image.starts_with("sha256:") => {
            Check::failed(check, format!("{image} is not there"), "name an image that `docker images` lists")
        }
        None => Check::warning(
            check,
            format!("{image} is not there, and will be pulled"),
            format!("`docker pull {image}` shows whether that works"),
        ),
    }
}

fn images_check(images: &[(&str, bool)]) -> Check {
    let (there, lacking): (Vec<_>, Vec<_>) = images.iter().partition(|(_, there)| *there);
    let names =
        |images: &[&(&str, bool)]| images.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let there: Vec<_> = there.iter().collect();
    let script =
        |(name, _): &(&str, bool)| format!("scripts/toolchain {}", name.trim_start_matches("kulprit/"));
    let hint = lacking.iter().map(script).collect::<Vec<_>>().join("; ");
    match (there.is_empty(), lacking.is_empty()) {
        (_, true) => Check::ok("toolchain images", names(&there)),
        (false, false) => {
            let lacking: Vec<_> = lacking.iter().collect();
            Check::warning("toolchain images", format!("{}; not {}", names(&there), names(&lacking)), hint)
        }
        (true, false) => Check::failed("toolchain images", "there is none", hint),
    }
}

fn busybox_check(path: &Path) -> Check {
    match initramfs::read_busybox(path) {
        Ok(_) => Check::ok("busybox", format!("{}, static", path.display())),
        Err(error) => Check::warning("busybox", error.to_string(), "apt install busybox-static"),
    }
}

fn disk_check(state: &Path, least_mib: u64) -> Check {
    // The directory need not exist yet; its disk does.
    let existing = state.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match health::free_mib(existing) {
        Ok(free) if free < least_mib => Check::failed(
            "agent's disk",
            format!("{free} MiB free in {}", state.display()),
            format!("the agent takes no builds below {least_mib} MiB (KULPRIT_DISK_MIN_MIB)"),
        ),
        Ok(free) => Check::ok("agent's disk", format!("{free} MiB free in {}", state.display())),
        Err(error) => {
            Check::failed("agent's disk", format!("{}: {error}", existing.display()), "name another --state")
        }
    }
}

/// Mirrors, with their git objects, and compiler caches are written here.
fn cache_check(cache: &Path) -> Check {
    let tried = std::fs::create_dir_all(cache).and_then(|()| tempfile::tempfile_in(cache));
    match tried {
        Ok(_) => Check::ok("cache", format!("{} can be written", cache.display())),
        Err(error) => {
            Check::failed("cache", format!("{}: {error}", cache.display()), "name another with --cache")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_image_is_enough_to_start_with() {
        for (ten, twelve, ok, warning, hint) in [
            (true, true, true, false, ""),
            (true, false, true, true, "scripts/toolchain gcc-12"),
            (false, true, true, true, "scripts/toolchain gcc-10"),
            (false, false, false, false, "scripts/toolchain gcc-10; scripts/toolchain gcc-12"),
        ] {
            let check = images_check(&[("kulprit/gcc-10", ten), ("kulprit/gcc-12", twelve)]);
            assert_eq!((check.ok, check.warning, check.hint.as_str()), (ok, warning, hint), "{ten} {twelve}");
        }
    }

    #[test]
    fn a_jobs_own_image_is_told_from_one_that_can_be_pulled() {
        for (image, there, ok, warning) in [
            ("kulprit/gcc-12", true, true, false),
            ("kulprit/gcc-12", false, false, false),
            ("sha256:ab", false, false, false),
            ("gcc:13", false, true, true),
        ] {
            let check = own_image_check(image, there);
            assert_eq!((check.ok, check.warning), (ok, warning), "{check:?}");
            assert!(check.detail.contains(image) && there == check.hint.is_empty(), "{check:?}");
        }
    }

    #[test]
    fn a_guest_without_a_cap_is_no_reason_not_to_work() {
        let check = memory_check(Err("no"));
        assert!(check.ok && check.warning && check.detail == "not capped: no", "{check:?}");
        assert!(!check.hint.is_empty(), "{check:?}");
        assert!(!memory_check(Ok(Path::new("/sys/fs/cgroup/a"))).warning);
    }

    #[test]
    fn lacking_limits_are_named() {
        let check = limits_check(&[("memory", true), ("PIDs", false), ("CPU", false)]);
        assert!(check.warning && check.detail.ends_with("PIDs, CPU"), "{check:?}");
        assert!(!limits_check(&[("memory", true)]).warning);
    }
}
