//! Agents without hands, and a job for them.

use super::secure::{Farm, sync};
use super::text;
use kulprit_proto::tls::Link;
use kulprit_proto::v1;
use kulprit_proto::v1::agents_client::AgentsClient;
use tonic::Status;

/// An agent without hands: it holds what it is given for as long as the test wants.
pub struct Idler {
    pub name: &'static str,
    pub client: AgentsClient<Link>,
    sequence: u64,
    pub held: Option<v1::Assignment>,
}

impl Idler {
    pub fn new(name: &'static str, link: Link) -> Self {
        Idler { name, client: AgentsClient::new(link), sequence: 0, held: None }
    }

    pub async fn sync(&mut self) -> Result<v1::SyncResponse, Status> {
        self.sequence += 1;
        let held = self.held.iter().map(|it| v1::Holding {
            attempt: it.attempt,
            item: it.item.clone(),
            slot: it.slot,
            activity: "at it".into(),
        });
        let message = v1::SyncRequest {
            sequence: self.sequence,
            info: Some(v1::AgentInfo {
                slots: vec![v1::Slot { cores: 1, memory_mib: 1024 }],
                can_build: true,
                ..Default::default()
            }),
            holding: held.collect(),
            draining: false,
            ..sync(self.name)
        };
        let answer = self.client.sync(message).await?.into_inner();
        self.held = answer.assignments.first().cloned().map(|it| v1::Assignment {
            item: it.item.or_else(|| self.held.as_ref().and_then(|held| held.item.clone())),
            ..it
        });
        Ok(answer)
    }

    /// Syncs until it has been given something.
    pub async fn take_work(&mut self) -> v1::Assignment {
        for _ in 0..10 {
            self.sync().await.expect("an answer");
            if let Some(held) = &self.held {
                return held.clone();
            }
        }
        panic!("{} is given no work", self.name);
    }

    pub async fn complete(&mut self, work: &v1::Assignment) -> Result<v1::CompleteAnswer, Status> {
        let facts =
            v1::ToolchainFacts { image_id: "sha256:1".into(), gcc: "12.2.0".into(), ld: "2.40".into() };
        let product = v1::Product { product: Some(v1::product::Product::Toolchain(facts)) };
        self.end(work, v1::attempt_end::End::Product(product)).await
    }

    /// Says that it could not be done, for no fault of a kernel's.
    pub async fn fail(&mut self, work: &v1::Assignment, reason: &str) -> Result<v1::CompleteAnswer, Status> {
        let infra = v1::Infra { class: v1::InfraClass::Toolchain as i32, reason: reason.into() };
        self.end(work, v1::attempt_end::End::Infra(infra)).await
    }

    async fn end(
        &mut self,
        work: &v1::Assignment,
        end: v1::attempt_end::End,
    ) -> Result<v1::CompleteAnswer, Status> {
        let message = v1::CompleteRequest {
            agent: self.name.into(),
            session: 1,
            attempt: work.attempt,
            item: work.item.clone(),
            end: Some(v1::AttemptEnd { end: Some(end) }),
        };
        Ok(self.client.complete(message).await?.into_inner().answer())
    }

    pub async fn log(&mut self, attempt: u64, offset: u64, text: &str) -> Result<(), Status> {
        let chunk = v1::LogChunk { agent: self.name.into(), attempt, offset, data: text.as_bytes().to_vec() };
        self.client.append_log(tokio_stream::iter([chunk])).await.map(drop)
    }
}

/// Submits a job of two commits, whose first work is to look into a toolchain image.
pub fn submit(farm: &Farm) {
    let repository = farm.dir.join("linux");
    let git = |args: &[&str]| super::git(&repository, args);
    std::fs::create_dir_all(&repository).unwrap();
    git(&["init", "-q", "-b", "main"]);
    git(&["commit", "-q", "--allow-empty", "-m", "good"]);
    let good = git(&["rev-parse", "HEAD"]);
    git(&["commit", "-q", "--allow-empty", "-m", "bad"]);
    std::fs::write(farm.dir.join("repro.sh"), "#!/bin/sh\n").unwrap();
    let job = farm.dir.join("job.toml");
    let lines = [
        "name = \"work\"",
        &format!("repository = \"{}\"", repository.display()),
        "bad = \"main\"",
        &format!("good = \"{good}\""),
        "mode = \"cause\"",
        "toolchain = \"some/image\"",
        "[config]",
        "make_target = \"tinyconfig\"",
        "[reproducer]",
        "script = \"repro.sh\"",
    ];
    std::fs::write(&job, lines.join("\n")).unwrap();
    let submitted = farm.kulprit(&["bisect", "start", &job.to_string_lossy()]);
    assert!(submitted.status.success(), "{}", text(&submitted.stderr));
}
