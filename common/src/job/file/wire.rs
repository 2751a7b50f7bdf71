//! A job that came over the wire, held to the same rules as one from a file.

use super::{CONFIG_BYTES_MAX, Input, JobFileError, checks, config_work, kconfig, repairs};
use crate::job::{ConfigBase, Job, Reproducer, ReproducerKind, Symptom, ToolchainChoice};

/// Refuses what no job file could have said; the error names the job file's key.
pub fn check(job: &Job) -> Result<(), JobFileError> {
    checks::name(job.name.clone())?;
    checks::repository(Some(job.repository.clone()))?;
    checks::bad(Some(job.bad.clone()))?;
    job.good.clone().map(|good| checks::revision("good", good)).transpose()?;
    if let ToolchainChoice::Image(image) = &job.toolchain {
        checks::toolchain(Some(image.clone()))?;
    }
    job.target.clone().map(checks::title).transpose()?;
    kernel(job)?;
    checks::plain_texts("reproducer.args", job.reproducer.args.clone())?;
    reproducer(job)?;
    checks::cflags(job.reproducer.kind, &job.reproducer.cflags)?;
    checks::path("reproducer", job.reproducer.name.clone())?;
    checks::cmdline(job.machine.cmdline.clone())?;
    repairs::check(&job.repairs)?;
    config_work::check(job)?;
    numbers(job)
}

/// Without a reproducer there is one thing to send, and with one there is a crash to look for.
fn reproducer(job: &Job) -> Result<(), JobFileError> {
    let word = job.symptom.word(job.mode);
    let problem = |help: &str| {
        Err(JobFileError::value("reproducer", format!("does not go with mode = {word:?}"), help))
    };
    match (job.symptom, job.reproducer.kind) {
        (Symptom::Crash, ReproducerKind::Nothing) => problem("name the file that makes the kernel crash"),
        (Symptom::Build | Symptom::Boot, _) if job.reproducer != Reproducer::nothing() => {
            problem("remove the section [reproducer]")
        }
        (Symptom::Crash | Symptom::Build | Symptom::Boot, _) => Ok(()),
    }
}

fn kernel(job: &Job) -> Result<(), JobFileError> {
    let kernel = &job.kernel;
    checks::arch(Some(kernel.arch.clone()))?;
    checks::make_args(kernel.make_args.clone())?;
    checks::fragments(kernel.fragments.iter().map(|fragment| fragment.name.clone()).collect())?;
    match &kernel.config {
        ConfigBase::Target(target) => {
            checks::base(Some(target.clone()), None)?;
        }
        ConfigBase::File(text) => config("config.file", "the config", text)?,
    }
    for (i, fragment) in kernel.fragments.iter().enumerate() {
        config(&format!("config.fragments[{i}]"), &fragment.name, &fragment.text)?;
    }
    Ok(())
}

pub(super) fn config(field: &str, path: &str, text: &str) -> Result<(), JobFileError> {
    let input = Input { field: field.into(), path: path.into(), bytes_max: CONFIG_BYTES_MAX };
    if text.len() > CONFIG_BYTES_MAX {
        let problem = format!("has more than {CONFIG_BYTES_MAX} bytes");
        return Err(JobFileError::content(&input, problem, "is it a kernel config?"));
    }
    kconfig::check(&input, text.as_bytes().to_vec()).map(drop)
}

fn numbers(job: &Job) -> Result<(), JobFileError> {
    let (timeouts, machine) = (&job.timeouts, &job.machine);
    for (field, number) in [
        ("runs.max", job.runs.max),
        ("runs.first_max", job.runs.first_max),
        ("timeouts.build_s", timeouts.build_s),
        ("timeouts.first_byte_s", timeouts.first_byte_s),
        ("timeouts.boot_s", timeouts.boot_s),
        ("timeouts.settle_ms", timeouts.settle_ms),
        ("timeouts.reproducer_s", timeouts.reproducer_s),
        ("timeouts.linger_ms", timeouts.linger_ms),
        ("timeouts.silence_s", timeouts.silence_s),
        ("timeouts.drain_ms", timeouts.drain_ms),
        ("machine.memory_mib", machine.memory_mib),
        ("machine.cpus", machine.cpus),
    ] {
        checks::number(field, Some(number.into()), number)?;
    }
    checks::first_byte_before_boot(timeouts)
}
