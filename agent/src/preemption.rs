//! Notices that the machine under us will be taken away, as the large clouds give them.
//!
//! Which cloud it is, the firmware's tables say: nothing is sent where there is none.
//! Sources: the instance metadata documentation of Amazon EC2 (spot instance termination
//! notices), Google Compute Engine (preemption, maintenance events), and Azure (scheduled events).

use serde::Deserialize;
use std::path::Path;
use std::time::Duration;

/// Where all three clouds answer.
pub const METADATA_URL: &str = "http://169.254.169.254";
/// The shortest notice is Google's and Azure's, 30 s.
const ASK_EVERY: Duration = Duration::from_secs(3);
const ASK_EVERY_AT_MOST: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// A cloud that tells before it takes a machine back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    Aws,
    Gcp,
    Azure,
}

/// How to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Watching {
    /// By what the firmware says of the machine
    Auto,
    Off,
    Aws,
    Gcp,
    Azure,
}

impl Watching {
    pub fn cloud(self) -> Option<Cloud> {
        match self {
            Watching::Auto => Cloud::of(&Firmware::read(Path::new("/sys/class/dmi/id"))),
            Watching::Off => None,
            Watching::Aws => Some(Cloud::Aws),
            Watching::Gcp => Some(Cloud::Gcp),
            Watching::Azure => Some(Cloud::Azure),
        }
    }
}

/// What the firmware says of the machine.
#[derive(Default)]
struct Firmware {
    vendor: String,
    product: String,
    asset_tag: String,
}

impl Firmware {
    fn read(dir: &Path) -> Firmware {
        let value = |name| std::fs::read_to_string(dir.join(name)).unwrap_or_default().trim().to_owned();
        Firmware {
            vendor: value("sys_vendor"),
            product: value("product_name"),
            asset_tag: value("chassis_asset_tag"),
        }
    }
}

impl Cloud {
    fn of(firmware: &Firmware) -> Option<Cloud> {
        match firmware {
            Firmware { vendor, .. } if vendor == "Amazon EC2" => Some(Cloud::Aws),
            Firmware { product, .. } if product == "Google Compute Engine" => Some(Cloud::Gcp),
            // Microsoft's other machines have its vendor too, and not this tag.
            Firmware { asset_tag, .. } if asset_tag == "7783-7084-3265-9085-8269-3286-77" => {
                Some(Cloud::Azure)
            }
            Firmware { .. } => None,
        }
    }
}

/// An answer of the metadata service.
struct Answer {
    status: u16,
    body: String,
}

/// Asks one cloud's metadata service.
pub struct Watch {
    cloud: Cloud,
    base: String,
    http: reqwest::Client,
    /// Amazon's permission to ask.
    token: Option<String>,
    /// By this Azure's events name the machine.
    name: Option<String>,
}

impl Watch {
    pub fn new(cloud: Cloud, base: &str) -> anyhow::Result<Watch> {
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_LIMIT).build()?;
        Ok(Watch { cloud, base: base.trim_end_matches('/').to_owned(), http, token: None, name: None })
    }

    /// Returns once the machine is to be taken away, with what was said of it.
    pub async fn notice(mut self) -> String {
        let mut pause = ASK_EVERY;
        loop {
            match self.ask().await {
                Ok(Some(notice)) => return notice,
                Ok(None) => pause = ASK_EVERY,
                Err(error) => {
                    if pause == ASK_EVERY {
                        tracing::warn!(cloud = ?self.cloud, %error, "cannot ask for preemption notices; trying again");
                    }
                    pause = (pause * 2).min(ASK_EVERY_AT_MOST);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask(&mut self) -> anyhow::Result<Option<String>> {
        match self.cloud {
            Cloud::Aws => self.ask_aws().await,
            Cloud::Gcp => self.ask_gcp().await,
            Cloud::Azure => self.ask_azure().await,
        }
    }

    async fn ask_aws(&mut self) -> anyhow::Result<Option<String>> {
        let token = match self.token.take() {
            Some(token) => token,
            None => {
                let put = self.http.put(format!("{}/latest/api/token", self.base));
                expect_ok(send(put.header("X-aws-ec2-metadata-token-ttl-seconds", "21600")).await?)?
            }
        };
        let asked = self.get("latest/meta-data/spot/instance-action", ("X-aws-ec2-metadata-token", &token));
        let answer = asked.await?;
        // A token that has run out is not kept.
        if answer.status != 401 {
            self.token = Some(token);
        }
        aws(&answer)
    }

    async fn ask_gcp(&mut self) -> anyhow::Result<Option<String>> {
        let flavor = ("Metadata-Flavor", "Google");
        let preempted = self.get("computeMetadata/v1/instance/preempted", flavor).await?;
        let maintenance = self.get("computeMetadata/v1/instance/maintenance-event", flavor).await?;
        gcp(&expect_ok(preempted)?, &expect_ok(maintenance)?)
    }

    async fn ask_azure(&mut self) -> anyhow::Result<Option<String>> {
        let wanted = ("Metadata", "true");
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let path = "metadata/instance/compute/name?api-version=2021-02-01&format=text";
                let name = expect_ok(self.get(path, wanted).await?)?.trim().to_owned();
                self.name.insert(name).clone()
            }
        };
        let events = self.get("metadata/scheduledevents?api-version=2020-07-01", wanted).await?;
        azure(&expect_ok(events)?, &name)
    }

    async fn get(&self, path: &str, (header, value): (&str, &str)) -> anyhow::Result<Answer> {
        send(self.http.get(format!("{}/{path}", self.base)).header(header, value)).await
    }
}

async fn send(request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
    let response = request.send().await?;
    Ok(Answer { status: response.status().as_u16(), body: response.text().await? })
}

fn expect_ok(answer: Answer) -> anyhow::Result<String> {
    anyhow::ensure!(answer.status == 200, "the metadata service answered {}", answer.status);
    Ok(answer.body)
}

/// There is no such document until the instance is to be stopped, hibernated or terminated.
fn aws(answer: &Answer) -> anyhow::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Action {
        action: String,
        time: String,
    }
    match answer.status {
        404 => Ok(None),
        200 => {
            let Action { action, time } = serde_json::from_str(&answer.body)?;
            Ok(Some(format!("{action} at {time}")))
        }
        status => anyhow::bail!("the metadata service answered {status}"),
    }
}

fn gcp(preempted: &str, maintenance: &str) -> anyhow::Result<Option<String>> {
    match (preempted.trim(), maintenance.trim()) {
        ("TRUE", _) => Ok(Some("preempted".into())),
        (_, event @ "TERMINATE_ON_HOST_MAINTENANCE") => Ok(Some(event.into())),
        ("FALSE", _) => Ok(None),
        (other, _) => anyhow::bail!("the metadata service said {other:?} of preemption"),
    }
}

/// Events are told to all machines of a group; only two kinds take one away for good.
fn azure(body: &str, name: &str) -> anyhow::Result<Option<String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Events {
        events: Vec<Event>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Event {
        event_type: String,
        resources: Vec<String>,
        #[serde(default)]
        not_before: String,
    }
    let Events { events } = serde_json::from_str(body)?;
    let ours = |event: &Event| {
        matches!(event.event_type.as_str(), "Preempt" | "Terminate")
            && event.resources.iter().any(|resource| resource.eq_ignore_ascii_case(name))
    };
    let event = events.into_iter().find(ours);
    Ok(event.map(|event| format!("{} not before {:?}", event.event_type, event.not_before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_tells_the_cloud() {
        for (vendor, product, asset_tag, expected) in [
            ("Amazon EC2", "m7i.large", "Amazon EC2", Some(Cloud::Aws)),
            ("Google", "Google Compute Engine", "", Some(Cloud::Gcp)),
            ("Google", "Google Pixelbook", "", None),
            (
                "Microsoft Corporation",
                "Virtual Machine",
                "7783-7084-3265-9085-8269-3286-77",
                Some(Cloud::Azure),
            ),
            ("Microsoft Corporation", "Surface Laptop", "", None),
            ("QEMU", "Standard PC", "", None),
            ("", "", "", None),
        ] {
            let firmware =
                Firmware { vendor: vendor.into(), product: product.into(), asset_tag: asset_tag.into() };
            assert_eq!(Cloud::of(&firmware), expected, "{vendor} {product}");
        }
        assert_eq!(Cloud::of(&Firmware::read(Path::new("/nonexistent"))), None);
    }

    #[test]
    fn only_the_end_of_the_machine_is_a_notice() {
        let aws = |status, body: &str| aws(&Answer { status, body: body.into() }).map_err(drop);
        let at = r#"{"action": "terminate", "time": "2026-11-21T18:02:00Z"}"#;
        let azure = |kind: &str, resource: &str| {
            let event = format!(r#""EventType":"{kind}","Resources":["{resource}"],"NotBefore":"soon""#);
            let body =
                format!(r#"{{"DocumentIncarnation":1,"Events":[{{{event},"EventStatus":"Scheduled"}}]}}"#);
            super::azure(&body, "vm-1").map_err(drop)
        };
        let gcp = |preempted, maintenance| super::gcp(preempted, maintenance).map_err(drop);
        for (answer, expected) in [
            (aws(404, "Not Found"), Ok(None)),
            (aws(200, at), Ok(Some("terminate at 2026-11-21T18:02:00Z"))),
            (aws(200, "<html>"), Err(())),
            (aws(401, ""), Err(())),
            (gcp("FALSE\n", "NONE"), Ok(None)),
            (gcp("FALSE", "MIGRATE_ON_HOST_MAINTENANCE"), Ok(None)),
            (gcp("FALSE", "TERMINATE_ON_HOST_MAINTENANCE"), Ok(Some("TERMINATE_ON_HOST_MAINTENANCE"))),
            (gcp("TRUE", "NONE"), Ok(Some("preempted"))),
            (gcp("<html>", ""), Err(())),
            (azure("Preempt", "VM-1"), Ok(Some("Preempt not before \"soon\""))),
            (azure("Terminate", "vm-1"), Ok(Some("Terminate not before \"soon\""))),
            (azure("Preempt", "vm-2"), Ok(None)),
            (azure("Freeze", "vm-1"), Ok(None)),
            (super::azure(r#"{"DocumentIncarnation":1,"Events":[]}"#, "vm-1").map_err(drop), Ok(None)),
            (super::azure("", "vm-1").map_err(drop), Err(())),
        ] {
            assert_eq!(answer, expected.map(|notice| notice.map(str::to_owned)));
        }
    }
}
