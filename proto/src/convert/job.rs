//! Jobs.

use super::{InvalidMessage, Result, digest, enum_map, need};
use crate::v1;
use kulprit_common::job::{
    Backport, ConfigBase, ConfigWish, Fragment, Job, KernelBuild, Machine, Mode, Prior, Repairs, Reproducer,
    ReproducerKind, Runs, SwitchedOff, Symptom, Timeouts, ToolchainChoice,
};

/// Direction and symptom are one word on the wire, as they are in the job file.
pub(crate) fn mode_out(mode: Mode, symptom: Symptom) -> i32 {
    let wire = match (symptom, mode) {
        (Symptom::Crash, Mode::Cause) => v1::Mode::Cause,
        (Symptom::Crash, Mode::Fix) => v1::Mode::Fix,
        (Symptom::Build, _) => v1::Mode::Build,
        (Symptom::Boot, _) => v1::Mode::Boot,
    };
    wire as i32
}

fn mode_in(raw: i32, field: &'static str) -> Result<(Mode, Symptom)> {
    match v1::Mode::try_from(raw) {
        Ok(v1::Mode::Cause) => Ok((Mode::Cause, Symptom::Crash)),
        Ok(v1::Mode::Fix) => Ok((Mode::Fix, Symptom::Crash)),
        Ok(v1::Mode::Build) => Ok((Mode::Cause, Symptom::Build)),
        Ok(v1::Mode::Boot) => Ok((Mode::Cause, Symptom::Boot)),
        Ok(v1::Mode::Unspecified) | Err(_) => {
            Err(InvalidMessage::new(field, format!("{raw} is not a value of it")))
        }
    }
}

enum_map!(v1::ReproducerKind, ReproducerKind, kind_out, kind_in, v1::ReproducerKind::Unspecified, {
    CSource => ReproducerKind::CSource,
    Script => ReproducerKind::Script,
    Binary => ReproducerKind::Binary,
    Nothing => ReproducerKind::Nothing,
});

impl From<Job> for v1::Job {
    fn from(job: Job) -> Self {
        v1::Job {
            name: job.name,
            repository: job.repository,
            bad: job.bad,
            good: job.good,
            mode: mode_out(job.mode, job.symptom),
            kernel: Some(job.kernel.into()),
            toolchain_image: match job.toolchain {
                ToolchainChoice::Auto => None,
                ToolchainChoice::Image(image) => Some(image),
            },
            reproducer: Some(job.reproducer.into()),
            target: job.target,
            runs: Some(v1::Runs { max: job.runs.max, first_max: job.runs.first_max }),
            timeouts: Some(job.timeouts.into()),
            machine: Some(job.machine.into()),
            flat_prior: job.prior == Prior::Flat,
            backports: job.repairs.backports.map(backports_out),
            configs: job.repairs.configs.map(configs_out),
            config_work: (job.config_work != ConfigWish::default()).then(|| wish_out(job.config_work)),
        }
    }
}

impl TryFrom<v1::Job> for Job {
    type Error = InvalidMessage;
    fn try_from(job: v1::Job) -> Result<Self> {
        let runs = need(job.runs, "job.runs")?;
        for (field, text) in [("job.repository", &job.repository), ("job.bad", &job.bad)] {
            if text.is_empty() {
                return Err(InvalidMessage::Missing(field));
            }
        }
        if runs.max == 0 || runs.first_max == 0 {
            return Err(InvalidMessage::new("job.runs", "max and first_max must be at least 1"));
        }
        let (mode, symptom) = mode_in(job.mode, "job.mode")?;
        Ok(Job {
            name: job.name,
            repository: job.repository,
            bad: job.bad,
            good: job.good,
            mode,
            symptom,
            kernel: need(job.kernel, "job.kernel")?.try_into()?,
            toolchain: job.toolchain_image.map_or(ToolchainChoice::Auto, ToolchainChoice::Image),
            reproducer: need(job.reproducer, "job.reproducer")?.try_into()?,
            target: job.target,
            runs: Runs { max: runs.max, first_max: runs.first_max },
            timeouts: need(job.timeouts, "job.timeouts")?.into(),
            machine: need(job.machine, "job.machine")?.into(),
            prior: if job.flat_prior { Prior::Flat } else { Prior::Auto },
            repairs: Repairs {
                backports: job.backports.map(backports_in),
                configs: job.configs.map(configs_in).transpose()?,
            },
            config_work: job.config_work.map(wish_in).unwrap_or_default(),
        })
    }
}

impl From<Fragment> for v1::Fragment {
    fn from(fragment: Fragment) -> Self {
        v1::Fragment { name: fragment.name, text: fragment.text }
    }
}

impl From<v1::Fragment> for Fragment {
    fn from(fragment: v1::Fragment) -> Self {
        Fragment { name: fragment.name, text: fragment.text }
    }
}

fn wish_out(wish: ConfigWish) -> v1::ConfigWork {
    v1::ConfigWork {
        drop_instrumentation: wish.drop_instrumentation,
        baseline: wish.baseline.map(Into::into),
        steps_max: wish.steps_max,
    }
}

fn wish_in(wish: v1::ConfigWork) -> ConfigWish {
    ConfigWish {
        drop_instrumentation: wish.drop_instrumentation,
        baseline: wish.baseline.map(Into::into),
        steps_max: wish.steps_max,
    }
}

fn backports_out(list: Vec<Backport>) -> v1::Backports {
    let one = |it: Backport| v1::Backport {
        fix: it.fix,
        title: it.title,
        breaks: it.breaks,
        is_farms: it.is_farms,
    };
    v1::Backports { list: list.into_iter().map(one).collect() }
}

fn backports_in(backports: v1::Backports) -> Vec<Backport> {
    let one = |it: v1::Backport| Backport {
        fix: it.fix,
        title: it.title,
        breaks: it.breaks,
        is_farms: it.is_farms,
    };
    backports.list.into_iter().map(one).collect()
}

fn configs_out(list: Vec<SwitchedOff>) -> v1::SwitchedOffs {
    let one = |it: SwitchedOff| v1::SwitchedOff { disable: it.disable, before: it.before.to_string() };
    v1::SwitchedOffs { list: list.into_iter().map(one).collect() }
}

fn configs_in(configs: v1::SwitchedOffs) -> Result<Vec<SwitchedOff>> {
    let one = |it: v1::SwitchedOff| {
        let before = it.before.parse();
        let before = before.map_err(|error: String| InvalidMessage::new("job.configs.before", error))?;
        Ok(SwitchedOff { disable: it.disable, before })
    };
    configs.list.into_iter().map(one).collect()
}

impl From<KernelBuild> for v1::KernelBuild {
    fn from(kernel: KernelBuild) -> Self {
        v1::KernelBuild {
            arch: kernel.arch,
            config: Some(match kernel.config {
                ConfigBase::File(text) => v1::kernel_build::Config::ConfigFile(text),
                ConfigBase::Target(target) => v1::kernel_build::Config::ConfigTarget(target),
            }),
            fragments: kernel.fragments.into_iter().map(Into::into).collect(),
            make_args: kernel.make_args,
        }
    }
}

impl TryFrom<v1::KernelBuild> for KernelBuild {
    type Error = InvalidMessage;
    fn try_from(kernel: v1::KernelBuild) -> Result<Self> {
        Ok(KernelBuild {
            arch: kernel.arch,
            config: match need(kernel.config, "kernel.config")? {
                v1::kernel_build::Config::ConfigFile(text) => ConfigBase::File(text),
                v1::kernel_build::Config::ConfigTarget(target) => ConfigBase::Target(target),
            },
            fragments: kernel.fragments.into_iter().map(Into::into).collect(),
            make_args: kernel.make_args,
        })
    }
}

impl From<Reproducer> for v1::Reproducer {
    fn from(reproducer: Reproducer) -> Self {
        v1::Reproducer {
            kind: kind_out(reproducer.kind),
            name: reproducer.name,
            digest: reproducer.digest.as_bytes().to_vec(),
            args: reproducer.args,
            cflags: reproducer.cflags,
        }
    }
}

impl TryFrom<v1::Reproducer> for Reproducer {
    type Error = InvalidMessage;
    fn try_from(reproducer: v1::Reproducer) -> Result<Self> {
        Ok(Reproducer {
            kind: kind_in(reproducer.kind, "reproducer.kind")?,
            name: reproducer.name,
            digest: digest(&reproducer.digest, "reproducer.digest")?,
            args: reproducer.args,
            cflags: reproducer.cflags,
        })
    }
}

impl From<Timeouts> for v1::Timeouts {
    fn from(t: Timeouts) -> Self {
        v1::Timeouts {
            build_s: t.build_s,
            first_byte_s: t.first_byte_s,
            boot_s: t.boot_s,
            settle_ms: t.settle_ms,
            reproducer_s: t.reproducer_s,
            linger_ms: t.linger_ms,
            silence_s: t.silence_s,
            drain_ms: t.drain_ms,
        }
    }
}

impl From<v1::Timeouts> for Timeouts {
    fn from(t: v1::Timeouts) -> Self {
        Timeouts {
            build_s: t.build_s,
            first_byte_s: t.first_byte_s,
            boot_s: t.boot_s,
            settle_ms: t.settle_ms,
            reproducer_s: t.reproducer_s,
            linger_ms: t.linger_ms,
            silence_s: t.silence_s,
            drain_ms: t.drain_ms,
        }
    }
}

impl From<Machine> for v1::Machine {
    fn from(machine: Machine) -> Self {
        v1::Machine { memory_mib: machine.memory_mib, cpus: machine.cpus, cmdline: machine.cmdline }
    }
}

impl From<v1::Machine> for Machine {
    fn from(machine: v1::Machine) -> Self {
        Machine { memory_mib: machine.memory_mib, cpus: machine.cpus, cmdline: machine.cmdline }
    }
}
