//! What is run and how it is confined, turned into the engine's words.

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, ResourcesUlimits,
};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// Room for the compiler's temporary files; it counts as the container's memory.
const TMP_SIZE: &str = "512m";
/// Largest file that a command may write, holes included; nothing that is built here comes near.
const FILE_BYTES_MAX: i64 = 16 << 30;
/// The user of containers when the agent itself is root.
const ORDINARY_USER: (u32, u32) = (1000, 1000);

/// What a container may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory and swap together.
    pub memory_bytes: u64,
    pub pids_max: u32,
    /// In billionths of a core; absent, as much as is free.
    pub nano_cpus: Option<u64>,
    pub time: Duration,
    /// A command is stopped while this much of the agent's disk is left.
    pub disk_free_bytes_min: u64,
    /// How much of the output is kept: its head and its tail.
    pub log_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: 4 << 30,
            pids_max: 4096,
            nano_cpus: None,
            time: Duration::from_secs(3600),
            disk_free_bytes_min: 0,
            log_bytes_max: 16 << 20,
        }
    }
}

/// A directory of the host, seen in the container.
#[derive(Clone, Copy, Debug)]
pub struct Bind<'a> {
    pub host: &'a Path,
    pub container: &'a str,
    pub access: Access,
}

/// What a container may do with a directory of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    /// A command that leaves more than this in it is stopped, and what it made is not used.
    Writable {
        bytes_max: u64,
    },
}

/// One command in one container.
#[derive(Clone, Debug)]
pub struct RunSpec<'a> {
    /// The id or name of an image that is there.
    pub image_id: &'a str,
    pub argv: Vec<String>,
    pub env: Vec<(&'static str, String)>,
    pub workdir: &'a str,
    pub binds: Vec<Bind<'a>>,
    pub limits: Limits,
    /// Stands in a label, for people and for cleaning up.
    pub attempt: &'a str,
}

/// User and group of the processes in containers: never root, and able to write what the
/// agent hands over.
pub fn container_user() -> (u32, u32) {
    let uid = nix::unistd::geteuid();
    if uid.is_root() { ORDINARY_USER } else { (uid.as_raw(), nix::unistd::getegid().as_raw()) }
}

impl RunSpec<'_> {
    pub(super) fn body(&self, labels: &[(&str, &str)], rootless_podman: bool) -> ContainerCreateBody {
        let (uid, gid) = container_user();
        let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        ContainerCreateBody {
            image: Some(self.image_id.into()),
            // An image's own entrypoint would get our command as arguments.
            entrypoint: Some(self.argv.clone()),
            cmd: Some(Vec::new()),
            env: Some(self.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
            working_dir: Some(self.workdir.into()),
            user: Some(format!("{uid}:{gid}")),
            labels: Some(labels.collect()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            network_disabled: Some(true),
            host_config: Some(self.host_config(rootless_podman)),
            ..Default::default()
        }
    }

    fn host_config(&self, rootless_podman: bool) -> HostConfig {
        let memory = i64::try_from(self.limits.memory_bytes).unwrap_or(i64::MAX);
        let tmp = format!("rw,nosuid,nodev,size={TMP_SIZE},mode=1777");
        let ulimit = |name: &str, most| ResourcesUlimits {
            name: Some(name.into()),
            soft: Some(most),
            hard: Some(most),
        };
        HostConfig {
            network_mode: Some("none".into()),
            readonly_rootfs: Some(true),
            tmpfs: Some(HashMap::from([("/tmp".into(), tmp)])),
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges".into()]),
            privileged: Some(false),
            memory: Some(memory),
            memory_swap: Some(memory),
            pids_limit: Some(self.limits.pids_max.into()),
            nano_cpus: self.limits.nano_cpus.map(|cpus| i64::try_from(cpus).unwrap_or(i64::MAX)),
            // When the host runs short, a build goes before the agent.
            oom_score_adj: Some(500),
            ulimits: Some(vec![ulimit("core", 0), ulimit("fsize", FILE_BYTES_MAX)]),
            mounts: Some(self.binds.iter().map(Bind::mount).collect()),
            // We keep the output ourselves; an engine's copy would only fill the disk.
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
            userns_mode: rootless_podman.then(|| "keep-id".into()),
            ..Default::default()
        }
    }
}

impl Bind<'_> {
    /// Said as a mount rather than as `host:container:ro`, which a path with a colon would break.
    fn mount(&self) -> Mount {
        Mount {
            typ: Some(MountType::BIND),
            source: Some(self.host.display().to_string()),
            target: Some(self.container.into()),
            read_only: Some(self.access == Access::ReadOnly),
            ..Default::default()
        }
    }
}
