//! `kulprit artifact …`.

use super::args::{ArtifactGcArgs, ArtifactGetArgs, ArtifactListArgs, ArtifactVerifyArgs};
use super::bisect::print;
use super::client::{Coordinator, root_cause};
use super::failure::Failure;
use super::progress::Progress;
use super::tables;
use kulprit_common::id::Digest;
use kulprit_common::report::ending::EXIT_INTERNAL;
use kulprit_proto::v1;
use kulprit_proto::v1::ArtifactState;
use serde_json::{Value, json};
use sha2::Digest as _;
use std::io::Write as _;
use std::path::Path;
use tonic::{Code, Status, Streaming};

pub async fn list(args: ArtifactListArgs) -> Result<u8, Failure> {
    let mut coordinator = Coordinator::dial(&args.to).await?;
    let mut views = Vec::new();
    let mut stream = coordinator.artifact_list().await?;
    while let Some(view) = next(&coordinator, &mut stream).await? {
        if !args.needed || !view.jobs.is_empty() {
            views.push(view);
        }
    }
    views.sort_by_key(|view| (std::cmp::Reverse(view.modified_ms), hex(view.artifact.as_ref())));
    let text = || tables::artifacts(&views, tables::now_ms());
    print(args.output, text, || views.iter().map(view_json).collect())?;
    Ok(0)
}

pub async fn get(args: ArtifactGetArgs) -> Result<u8, Failure> {
    let mut coordinator = Coordinator::dial(&args.to).await?;
    let mut stream = coordinator.artifact_get(&args.digest).await?;
    let failed = |error| Failure::internal(format!("write {}", args.out.display()), error);
    let dir = match args.out.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(dir)
        .map_err(|error| Failure::Input(format!("--out {}: {error}", args.out.display())))?;
    let mut progress = Progress::new("fetching", 0);
    let (mut hasher, mut size) = (sha2::Sha256::new(), 0u64);
    while let Some(chunk) = next(&coordinator, &mut stream).await? {
        if chunk.size > 0 {
            progress.of(chunk.size);
        }
        hasher.update(&chunk.data);
        size += chunk.data.len() as u64;
        file.write_all(&chunk.data).map_err(failed)?;
        progress.at(size);
    }
    progress.close();
    if Digest::from_bytes(hasher.finalize().into()) != args.digest {
        return Err(Failure::Internal(anyhow::anyhow!(
            "fetch {}: what came has another digest; try again, or see `kulprit artifact verify`",
            args.digest
        )));
    }
    // As any file that is written: readable for whom the umask lets.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.persist(&args.out).map_err(|error| failed(error.error))?;
    let (digest, out) = (args.digest.to_string(), args.out.display().to_string());
    let text = || format!("{out}: {size} bytes, verified\n");
    print(args.output, text, || json!({ "digest": digest, "size": size, "file": out }))?;
    Ok(0)
}

pub async fn verify(args: ArtifactVerifyArgs) -> Result<u8, Failure> {
    let mut coordinator = Coordinator::dial(&args.to).await?;
    let mut stream = coordinator.artifact_verify(&args.digests).await?;
    let mut progress = Progress::new("verified", 0);
    let (mut whole, mut wrong) = (0u64, Vec::new());
    while let Some(verdict) = next(&coordinator, &mut stream).await? {
        match verdict.state() {
            ArtifactState::Whole => whole += 1,
            ArtifactState::Corrupt | ArtifactState::Missing | ArtifactState::Unspecified => {
                wrong.push(verdict.clone());
            }
        }
        progress.of(verdict.all);
        progress.at(whole + wrong.len() as u64);
    }
    progress.close();
    let text = || tables::verdicts(whole, &wrong);
    let one = |it: &v1::ArtifactVerdict| {
        json!({
            "digest": hex(it.artifact.as_ref()),
            "size": it.artifact.as_ref().map(|it| it.size),
            "content": it.content,
            "state": tables::state_word(it.state()),
            "jobs": it.jobs,
        })
    };
    print(
        args.output,
        text,
        || json!({ "whole": whole, "wrong": wrong.iter().map(one).collect::<Vec<_>>() }),
    )?;
    Ok(if wrong.is_empty() { 0 } else { EXIT_INTERNAL })
}

pub async fn gc(args: ArtifactGcArgs) -> Result<u8, Failure> {
    let mut coordinator = Coordinator::dial(&args.to).await?;
    let request = v1::ArtifactGcRequest {
        dry_run: args.dry_run,
        age_max_ms: args.keep_days.map(|days| u64::from(days) * 24 * 3600 * 1000),
        bytes_max: args.max_gib.map(|gib| gib << 30),
    };
    let mut stream = coordinator.artifact_gc(request).await?;
    let mut progress = Progress::new(if args.dry_run { "would go" } else { "removed" }, 0);
    let (mut gone, mut sums) = (Vec::new(), v1::ArtifactGone::default());
    while let Some(message) = next(&coordinator, &mut stream).await? {
        match message.gone {
            Some(view) => gone.push(view),
            None => sums = message,
        }
        progress.at(gone.len() as u64);
    }
    progress.close();
    let bytes: u64 = gone.iter().filter_map(|view| view.artifact.as_ref()).map(|it| it.size).sum();
    let value = || {
        json!({
            "dry_run": args.dry_run,
            "removed": gone.iter().map(view_json).collect::<Vec<_>>(),
            "removed_bytes": bytes,
            "stored": sums.stored,
            "stored_bytes": sums.stored_bytes,
            "needed": sums.needed,
        })
    };
    print(args.output, || tables::collected(&gone, &sums, args.dry_run), value)?;
    Ok(0)
}

/// The next message of a stream; what ends it before its end is said as that of a call is.
async fn next<T>(coordinator: &Coordinator, stream: &mut Streaming<T>) -> Result<Option<T>, Failure> {
    stream.message().await.map_err(|status| failure(coordinator, &status))
}

fn failure(coordinator: &Coordinator, status: &Status) -> Failure {
    match status.code() {
        Code::DataLoss => Failure::Internal(anyhow::anyhow!("{}", root_cause(status))),
        _ => coordinator.failure(status),
    }
}

fn view_json(view: &v1::ArtifactView) -> Value {
    json!({
        "digest": hex(view.artifact.as_ref()),
        "size": view.artifact.as_ref().map(|it| it.size),
        "modified_ms": view.modified_ms,
        "content": (!view.content.is_empty()).then_some(&view.content),
        "jobs": view.jobs,
    })
}

fn hex(artifact: Option<&v1::Artifact>) -> String {
    artifact.map(|it| hex::encode(&it.digest)).unwrap_or_default()
}
