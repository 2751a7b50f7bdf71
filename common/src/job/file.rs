//! The job file a person writes (TOML), and what can be wrong with it.
//!
//! `JobFile::parse` checks all that the text alone tells; `resolve` adds the files it names
//! and yields the job. Reading files is the caller's part. `docs/job-file.md` is the manual.

mod checks;
mod config_work;
mod error;
mod kconfig;
mod keys;
mod repairs;
mod wire;

pub use error::JobFileError;
pub use keys::{KEYS, Key, Takes};
pub use repairs::farm as farm_repairs;
pub use wire::check;

use super::{
    ConfigBase, Fragment, Job, KernelBuild, Machine, Mode, NOTHING, Prior, Repairs, Reproducer,
    ReproducerKind, Runs, Symptom, Timeouts, ToolchainChoice,
};
use crate::id::Digest;
use serde::Deserialize;

/// A job file whose text is valid; the files it names are not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFile {
    name: Option<String>,
    repository: String,
    bad: String,
    good: Option<String>,
    mode: Mode,
    symptom: Symptom,
    toolchain: ToolchainChoice,
    arch: String,
    config: Base,
    fragments: Vec<String>,
    make_args: Vec<String>,
    reproducer: ReproducerKind,
    reproducer_path: String,
    args: Vec<String>,
    cflags: Vec<String>,
    target: Option<String>,
    runs: Runs,
    timeouts: Timeouts,
    machine: Machine,
    prior: Prior,
    repairs: Repairs,
    config_work: config_work::Asked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Base {
    File(String),
    Target(String),
}

/// A file the caller reads for the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The key that names it, such as `config.fragments[0]`.
    pub field: String,
    /// As written: absolute, or relative to the job file's directory (`Place::path`).
    pub path: String,
    /// A longer file is refused; the reader may stop there.
    pub bytes_max: usize,
}

/// Where the job file lies.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The absolute directory that relative paths start from.
    pub dir: &'a str,
    /// The file's name without its ending: the job's name where the file gives none.
    pub stem: &'a str,
}

impl Place<'_> {
    /// The path a relative one stands for; an absolute one stays as it is.
    pub fn path(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.into();
        }
        let path = path.strip_prefix("./").unwrap_or(path);
        match (path, self.dir.trim_end_matches('/')) {
            ("" | ".", dir) => dir.into(),
            (path, dir) => format!("{dir}/{path}"),
        }
    }

    /// As `path`, but what git takes for an address is no path.
    fn repository(&self, text: &str) -> String {
        let is_scp = text.split_once(':').is_some_and(|(host, _)| !host.contains('/'));
        if is_scp { text.into() } else { self.path(text) }
    }
}

const CONFIG_BYTES_MAX: usize = 4 << 20;
const SOURCE_BYTES_MAX: usize = 4 << 20;
/// With what else a job carries, below what a message may be.
const BINARY_BYTES_MAX: usize = 16 << 20;

impl JobFile {
    /// Reads the text and checks every value in it.
    pub fn parse(text: &str) -> Result<JobFile, JobFileError> {
        keys::check(text)?;
        let raw: Raw = toml::from_str(text).map_err(|error| keys::explain(text, &error))?;
        raw.check()
    }

    /// The files `resolve` will ask for, in its order.
    pub fn inputs(&self) -> Vec<Input> {
        let mut inputs = Vec::new();
        if let Base::File(path) = &self.config {
            inputs.push(Input {
                field: "config.file".into(),
                path: path.clone(),
                bytes_max: CONFIG_BYTES_MAX,
            });
        }
        for (i, path) in self.fragments.iter().enumerate() {
            let field = format!("config.fragments[{i}]");
            inputs.push(Input { field, path: path.clone(), bytes_max: CONFIG_BYTES_MAX });
        }
        inputs.extend(self.config_work.input());
        inputs.extend(self.reproducer_input());
        inputs
    }

    fn reproducer_input(&self) -> Option<Input> {
        let (field, bytes_max) = match self.reproducer {
            ReproducerKind::CSource => ("reproducer.c_source", SOURCE_BYTES_MAX),
            ReproducerKind::Script => ("reproducer.script", SOURCE_BYTES_MAX),
            ReproducerKind::Binary => ("reproducer.binary", BINARY_BYTES_MAX),
            ReproducerKind::Nothing => return None,
        };
        Some(Input { field: field.into(), path: self.reproducer_path.clone(), bytes_max })
    }

    /// Reads the named files through `read`, checks them, and yields the job with the
    /// reproducer's bytes.
    pub fn resolve(
        self,
        place: &Place<'_>,
        read: &mut dyn FnMut(&Input) -> Result<Vec<u8>, String>,
    ) -> Result<(Job, Vec<u8>), JobFileError> {
        let mut contents = Vec::new();
        for input in self.inputs() {
            let bytes = read_bounded(&input, read)?;
            contents.push((input, bytes));
        }
        let reproducer = match self.reproducer {
            ReproducerKind::Nothing => NOTHING.to_vec(),
            kind => {
                let (input, bytes) = contents.pop().expect("the reproducer is an input");
                checks::reproducer(&input, kind, &bytes)?;
                bytes
            }
        };
        let mut texts = Vec::new();
        for (input, bytes) in contents {
            texts.push(kconfig::check(&input, bytes)?);
        }
        let job = self.into_job(place, texts, Digest::of(&reproducer))?;
        Ok((job, reproducer))
    }

    /// `texts` are the config file, if one is named, the fragments, and the baseline, if there is one.
    fn into_job(self, place: &Place<'_>, texts: Vec<String>, digest: Digest) -> Result<Job, JobFileError> {
        let mut texts = texts.into_iter();
        let config = match self.config {
            Base::Target(target) => ConfigBase::Target(target),
            Base::File(_) => ConfigBase::File(texts.next().expect("the config file is the first input")),
        };
        let fragments = self
            .fragments
            .iter()
            .zip(texts.by_ref())
            .map(|(path, text)| Fragment { name: file_name(path), text })
            .collect();
        let name = match self.name {
            Some(name) => name,
            None => checks::name(place.stem.into())?,
        };
        Ok(Job {
            name,
            repository: place.repository(&self.repository),
            bad: self.bad,
            good: self.good,
            mode: self.mode,
            symptom: self.symptom,
            kernel: KernelBuild { arch: self.arch, config, fragments, make_args: self.make_args },
            toolchain: self.toolchain,
            reproducer: Reproducer {
                kind: self.reproducer,
                name: file_name(&self.reproducer_path),
                digest,
                args: self.args,
                cflags: self.cflags,
            },
            target: self.target,
            runs: self.runs,
            timeouts: self.timeouts,
            machine: self.machine,
            prior: self.prior,
            repairs: self.repairs,
            config_work: self.config_work.with(texts.next()),
        })
    }
}

fn read_bounded(
    input: &Input,
    read: &mut dyn FnMut(&Input) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, JobFileError> {
    let bytes = read(input).map_err(|problem| JobFileError::Unreadable {
        field: input.field.clone(),
        path: input.path.clone(),
        problem,
    })?;
    if bytes.len() > input.bytes_max {
        let problem = format!("is larger than {} MiB", input.bytes_max >> 20);
        return Err(JobFileError::content(input, problem, "name the right file"));
    }
    Ok(bytes)
}

fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).into()
}

/// The file as serde sees it: every key may be absent, numbers are not yet in range.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Option<String>,
    repository: Option<String>,
    bad: Option<String>,
    good: Option<String>,
    mode: Option<RawMode>,
    toolchain: Option<String>,
    #[serde(default)]
    config: RawConfig,
    #[serde(default)]
    reproducer: RawReproducer,
    #[serde(default)]
    target: RawTarget,
    #[serde(default)]
    runs: RawRuns,
    #[serde(default)]
    timeouts: RawTimeouts,
    #[serde(default)]
    machine: RawMachine,
    #[serde(default)]
    search: RawSearch,
    #[serde(default)]
    config_work: config_work::RawConfigWork,
    backports: Option<Vec<repairs::RawBackport>>,
    configs: Option<Vec<repairs::RawSwitchedOff>>,
}

/// What a job file calls a mode: the direction, or the symptom.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawMode {
    Cause,
    Fix,
    Build,
    Boot,
}

impl RawMode {
    fn meaning(self) -> (Mode, Symptom) {
        match self {
            RawMode::Cause => (Mode::Cause, Symptom::Crash),
            RawMode::Fix => (Mode::Fix, Symptom::Crash),
            RawMode::Build => (Mode::Cause, Symptom::Build),
            RawMode::Boot => (Mode::Cause, Symptom::Boot),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    make_target: Option<String>,
    file: Option<String>,
    #[serde(default)]
    fragments: Vec<String>,
    arch: Option<String>,
    #[serde(default)]
    make_args: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReproducer {
    c_source: Option<String>,
    script: Option<String>,
    binary: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    cflags: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTarget {
    title: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRuns {
    max: Option<i64>,
    first_max: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTimeouts {
    build_s: Option<i64>,
    first_byte_s: Option<i64>,
    boot_s: Option<i64>,
    settle_ms: Option<i64>,
    reproducer_s: Option<i64>,
    linger_ms: Option<i64>,
    silence_s: Option<i64>,
    drain_ms: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMachine {
    memory_mib: Option<i64>,
    cpus: Option<i64>,
    cmdline: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSearch {
    prior: Option<Prior>,
}

impl Raw {
    fn check(self) -> Result<JobFile, JobFileError> {
        let (mode, symptom) = self.mode.unwrap_or(RawMode::Cause).meaning();
        let (reproducer, reproducer_path) = self.reproducer.chosen(mode, symptom)?;
        checks::cflags(reproducer, &self.reproducer.cflags)?;
        Ok(JobFile {
            name: self.name.map(checks::name).transpose()?,
            repository: checks::repository(self.repository)?,
            bad: checks::bad(self.bad)?,
            good: self.good.map(|good| checks::revision("good", good)).transpose()?,
            mode,
            symptom,
            toolchain: checks::toolchain(self.toolchain)?,
            arch: checks::arch(self.config.arch)?,
            config: checks::base(self.config.make_target, self.config.file)?,
            fragments: checks::fragments(self.config.fragments)?,
            make_args: checks::make_args(self.config.make_args)?,
            reproducer,
            reproducer_path,
            args: checks::plain_texts("reproducer.args", self.reproducer.args)?,
            cflags: self.reproducer.cflags,
            target: self.target.title.map(checks::title).transpose()?,
            runs: self.runs.check()?,
            timeouts: self.timeouts.check()?,
            machine: self.machine.check()?,
            prior: self.search.prior.unwrap_or_default(),
            repairs: repairs::check_raw(self.backports, self.configs)?,
            config_work: self.config_work.check(mode, symptom)?,
        })
    }
}

impl RawReproducer {
    fn chosen(&self, mode: Mode, symptom: Symptom) -> Result<(ReproducerKind, String), JobFileError> {
        if symptom != Symptom::Crash {
            return self.none(symptom.word(mode));
        }
        let given = [
            (ReproducerKind::CSource, "reproducer.c_source", &self.c_source),
            (ReproducerKind::Script, "reproducer.script", &self.script),
            (ReproducerKind::Binary, "reproducer.binary", &self.binary),
        ];
        let mut given =
            given.into_iter().filter_map(|(kind, field, path)| Some((kind, field, path.as_ref()?)));
        match (given.next(), given.next()) {
            (Some((kind, field, path)), None) => Ok((kind, checks::path(field, path.clone())?)),
            (None, _) => Err(JobFileError::Missing {
                field: "reproducer.c_source, reproducer.script or reproducer.binary".into(),
                help: "name the file that makes the kernel crash".into(),
            }),
            (Some((_, first, _)), Some((_, second, _))) => {
                Err(JobFileError::Both { first: first.into(), second: second.into() })
            }
        }
    }
}

impl RawReproducer {
    /// Where nothing but the kernel itself is tried, a reproducer would be passed over silently.
    fn none(&self, mode: &str) -> Result<(ReproducerKind, String), JobFileError> {
        let keys = [
            ("reproducer.c_source", self.c_source.is_some()),
            ("reproducer.script", self.script.is_some()),
            ("reproducer.binary", self.binary.is_some()),
            ("reproducer.args", !self.args.is_empty()),
            ("reproducer.cflags", !self.cflags.is_empty()),
        ];
        match keys.into_iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(JobFileError::value(
                field,
                format!("has no use with mode = {mode:?}"),
                "remove the section [reproducer]",
            )),
            None => Ok((ReproducerKind::Nothing, Reproducer::nothing().name)),
        }
    }
}

impl RawRuns {
    fn check(self) -> Result<Runs, JobFileError> {
        let default = Runs::default();
        Ok(Runs {
            max: checks::number("runs.max", self.max, default.max)?,
            first_max: checks::number("runs.first_max", self.first_max, default.first_max)?,
        })
    }
}

impl RawTimeouts {
    fn check(self) -> Result<Timeouts, JobFileError> {
        let d = Timeouts::default();
        let boot_s = checks::number("timeouts.boot_s", self.boot_s, d.boot_s)?;
        let first_byte_s = d.first_byte_s.min(boot_s);
        let timeouts = Timeouts {
            build_s: checks::number("timeouts.build_s", self.build_s, d.build_s)?,
            first_byte_s: checks::number("timeouts.first_byte_s", self.first_byte_s, first_byte_s)?,
            boot_s,
            settle_ms: checks::number("timeouts.settle_ms", self.settle_ms, d.settle_ms)?,
            reproducer_s: checks::number("timeouts.reproducer_s", self.reproducer_s, d.reproducer_s)?,
            linger_ms: checks::number("timeouts.linger_ms", self.linger_ms, d.linger_ms)?,
            silence_s: checks::number("timeouts.silence_s", self.silence_s, d.silence_s)?,
            drain_ms: checks::number("timeouts.drain_ms", self.drain_ms, d.drain_ms)?,
        };
        checks::first_byte_before_boot(&timeouts)?;
        Ok(timeouts)
    }
}

impl RawMachine {
    fn check(self) -> Result<Machine, JobFileError> {
        let default = Machine::default();
        Ok(Machine {
            memory_mib: checks::number("machine.memory_mib", self.memory_mib, default.memory_mib)?,
            cpus: checks::number("machine.cpus", self.cpus, default.cpus)?,
            cmdline: checks::cmdline(self.cmdline.unwrap_or(default.cmdline))?,
        })
    }
}
