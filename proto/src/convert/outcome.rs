//! What attempts came to.

use super::{InvalidMessage, Result, artifact, build_id, digest, enum_map, need};
use crate::v1;
use kulprit_common::crash::Crash;
use kulprit_common::outcome::{
    AttemptEnd, Build, BuildOutcome, Infra, InfraClass, Kernel, Maintainers, Outcome, Phase, Product,
    ReproducerOutcome, Run, SeenCrash, ToolchainFacts,
};

enum_map!(v1::Phase, Phase, phase_out, phase_in, v1::Phase::Unspecified, {
    Boot => Phase::Boot,
    Settle => Phase::Settle,
    Reproducer => Phase::Reproducer,
});

enum_map!(v1::InfraClass, InfraClass, class_out, class_in, v1::InfraClass::Unspecified, {
    Engine => InfraClass::Engine,
    Toolchain => InfraClass::Toolchain,
    Source => InfraClass::Source,
    Disk => InfraClass::Disk,
    Memory => InfraClass::Memory,
    Qemu => InfraClass::Qemu,
    Artifact => InfraClass::Artifact,
    Timeout => InfraClass::Timeout,
    Internal => InfraClass::Internal,
    Limit => InfraClass::Limit,
});

impl From<AttemptEnd> for v1::AttemptEnd {
    fn from(end: AttemptEnd) -> Self {
        use v1::attempt_end::End;
        v1::AttemptEnd {
            end: Some(match end {
                AttemptEnd::Done(product) => End::Product(product.into()),
                AttemptEnd::Infra(infra) => End::Infra(infra.into()),
                AttemptEnd::Released => End::Released(v1::Released {}),
            }),
        }
    }
}

impl TryFrom<v1::AttemptEnd> for AttemptEnd {
    type Error = InvalidMessage;
    fn try_from(end: v1::AttemptEnd) -> Result<Self> {
        use v1::attempt_end::End;
        Ok(match need(end.end, "end")? {
            End::Product(product) => AttemptEnd::Done(product.try_into()?),
            End::Infra(infra) => AttemptEnd::Infra(infra.try_into()?),
            End::Released(v1::Released {}) => AttemptEnd::Released,
        })
    }
}

impl From<Infra> for v1::Infra {
    fn from(infra: Infra) -> Self {
        v1::Infra { class: class_out(infra.class), reason: infra.reason }
    }
}

impl TryFrom<v1::Infra> for Infra {
    type Error = InvalidMessage;
    fn try_from(infra: v1::Infra) -> Result<Self> {
        Ok(Infra { class: class_in(infra.class, "infra.class")?, reason: infra.reason })
    }
}

impl From<Product> for v1::Product {
    fn from(product: Product) -> Self {
        use v1::product::Product as Wire;
        v1::Product {
            product: Some(match product {
                Product::Toolchain(facts) => Wire::Toolchain(v1::ToolchainFacts {
                    image_id: facts.image_id,
                    gcc: facts.gcc,
                    ld: facts.ld,
                }),
                Product::Reproducer(outcome) => Wire::Reproducer(v1::ReproducerProduct {
                    outcome: Some(match outcome {
                        ReproducerOutcome::Ready(ready) => {
                            v1::reproducer_product::Outcome::Ready(ready.into())
                        }
                        ReproducerOutcome::Failed { message } => {
                            v1::reproducer_product::Outcome::Failed(message)
                        }
                    }),
                }),
                Product::Maintainers(said) => {
                    Wire::Maintainers(v1::MaintainersProduct { output: said.output, problem: said.problem })
                }
                Product::Build(build) => Wire::Build(build.into()),
                Product::Run(run) => Wire::Run(v1::RunProduct {
                    outcome: Some(run.outcome.into()),
                    console: Some(run.console.into()),
                    duration_ms: run.duration_ms,
                }),
            }),
        }
    }
}

impl TryFrom<v1::Product> for Product {
    type Error = InvalidMessage;
    fn try_from(product: v1::Product) -> Result<Self> {
        use v1::product::Product as Wire;
        Ok(match need(product.product, "product")? {
            Wire::Toolchain(facts) => {
                Product::Toolchain(ToolchainFacts { image_id: facts.image_id, gcc: facts.gcc, ld: facts.ld })
            }
            Wire::Reproducer(product) => {
                Product::Reproducer(match need(product.outcome, "reproducer.outcome")? {
                    v1::reproducer_product::Outcome::Ready(ready) => {
                        ReproducerOutcome::Ready(artifact(Some(ready), "reproducer.ready")?)
                    }
                    v1::reproducer_product::Outcome::Failed(message) => ReproducerOutcome::Failed { message },
                })
            }
            Wire::Maintainers(said) => {
                Product::Maintainers(Maintainers { output: said.output, problem: said.problem })
            }
            Wire::Build(build) => Product::Build(build.try_into()?),
            Wire::Run(run) => Product::Run(Run {
                outcome: need(run.outcome, "run.outcome")?.try_into()?,
                console: artifact(run.console, "run.console")?,
                duration_ms: run.duration_ms,
            }),
        })
    }
}

impl From<Build> for v1::BuildProduct {
    fn from(build: Build) -> Self {
        use v1::build_product::Outcome as Wire;
        v1::BuildProduct {
            outcome: Some(match build.outcome {
                BuildOutcome::Built(kernel) => Wire::Built(v1::Kernel {
                    image: Some(kernel.image.into()),
                    vmlinux: Some(kernel.vmlinux.into()),
                    config: Some(kernel.config.into()),
                    fingerprint: kernel.fingerprint.as_bytes().to_vec(),
                    build_id: kernel.build_id,
                }),
                BuildOutcome::Failed { message } => Wire::Failed(message),
            }),
            log: Some(build.log.into()),
            duration_ms: build.duration_ms,
        }
    }
}

impl TryFrom<v1::BuildProduct> for Build {
    type Error = InvalidMessage;
    fn try_from(build: v1::BuildProduct) -> Result<Self> {
        use v1::build_product::Outcome as Wire;
        Ok(Build {
            outcome: match need(build.outcome, "build.outcome")? {
                Wire::Built(kernel) => BuildOutcome::Built(Kernel {
                    image: artifact(kernel.image, "kernel.image")?,
                    vmlinux: artifact(kernel.vmlinux, "kernel.vmlinux")?,
                    config: artifact(kernel.config, "kernel.config")?,
                    fingerprint: digest(&kernel.fingerprint, "kernel.fingerprint")?,
                    build_id: build_id(kernel.build_id, "kernel.build_id")?,
                }),
                Wire::Failed(message) => BuildOutcome::Failed { message },
            },
            log: artifact(build.log, "build.log")?,
            duration_ms: build.duration_ms,
        })
    }
}

impl From<Outcome> for v1::Outcome {
    fn from(outcome: Outcome) -> Self {
        let (kind, crashes, reason) = match outcome {
            Outcome::Ok => (v1::OutcomeKind::Ok, vec![], String::new()),
            Outcome::Crashed(crashes) => (v1::OutcomeKind::Crashed, crashes, String::new()),
            Outcome::BootFailed { crashes, reason } => (v1::OutcomeKind::BootFailed, crashes, reason),
            Outcome::NoReproducerStart { reason } => (v1::OutcomeKind::NoReproducerStart, vec![], reason),
            Outcome::Hung { reason } => (v1::OutcomeKind::Hung, vec![], reason),
        };
        v1::Outcome { kind: kind as i32, crashes: crashes.into_iter().map(Into::into).collect(), reason }
    }
}

impl TryFrom<v1::Outcome> for Outcome {
    type Error = InvalidMessage;
    fn try_from(outcome: v1::Outcome) -> Result<Self> {
        let crashes = outcome.crashes.into_iter().map(TryInto::try_into).collect::<Result<Vec<_>>>()?;
        let reason = outcome.reason;
        match v1::OutcomeKind::try_from(outcome.kind) {
            Ok(v1::OutcomeKind::Ok) => Ok(Outcome::Ok),
            Ok(v1::OutcomeKind::Crashed) => Ok(Outcome::Crashed(crashes)),
            Ok(v1::OutcomeKind::BootFailed) => Ok(Outcome::BootFailed { crashes, reason }),
            Ok(v1::OutcomeKind::NoReproducerStart) => Ok(Outcome::NoReproducerStart { reason }),
            Ok(v1::OutcomeKind::Hung) => Ok(Outcome::Hung { reason }),
            Ok(v1::OutcomeKind::Unspecified) | Err(_) => {
                Err(InvalidMessage::new("outcome.kind", "unknown outcome"))
            }
        }
    }
}

impl From<SeenCrash> for v1::SeenCrash {
    fn from(seen: SeenCrash) -> Self {
        let crash = seen.crash;
        v1::SeenCrash {
            phase: phase_out(seen.phase),
            title: crash.title,
            alt_titles: crash.alt_titles,
            frame: crash.frame,
            frames: crash.frames,
            files: crash.files,
            corrupted: crash.corrupted,
            suppressed: crash.suppressed,
            panicked: crash.panicked,
            first_line: crash.first_line as u64,
            last_line: crash.last_line as u64,
            report: crash.report,
        }
    }
}

impl TryFrom<v1::SeenCrash> for SeenCrash {
    type Error = InvalidMessage;
    fn try_from(seen: v1::SeenCrash) -> Result<Self> {
        let line = |raw: u64| usize::try_from(raw).unwrap_or(usize::MAX);
        Ok(SeenCrash {
            phase: phase_in(seen.phase, "crash.phase")?,
            crash: Crash {
                title: seen.title,
                alt_titles: seen.alt_titles,
                frame: seen.frame,
                frames: seen.frames,
                files: seen.files,
                corrupted: seen.corrupted,
                suppressed: seen.suppressed,
                panicked: seen.panicked,
                first_line: line(seen.first_line),
                last_line: line(seen.last_line),
                report: seen.report,
            },
        })
    }
}
