//! What people see, beside what is true; and how every job ends.

use crate::coordinator::Heard;
use crate::kernels::commit_id;
use crate::world::{SECOND, World};
use kulprit_common::farm::Farm;
use kulprit_common::farm::view::JobView;
use kulprit_common::id::AgentId;
use kulprit_common::time::Timestamp;

/// An agent not heard of for less counts as there, by whatever clock.
const THERE: u64 = 41 * SECOND;
/// And one not heard of for longer as gone.
const GONE: u64 = 43 * SECOND;

impl World {
    /// Every open job does something, or says truly what it waits for.
    pub fn look(&mut self) {
        let Some(index) = self.serving().filter(|index| self.lives[*index].is_quiet()) else { return };
        for view in self.lives[index].farm.jobs().into_iter().filter(|view| view.ended.is_none()) {
            self.check_reason(index, &view);
        }
    }

    fn check_reason(&mut self, index: usize, view: &JobView) {
        let life = &self.lives[index];
        let there: Vec<_> = life.heard.iter().filter(|(_, heard)| heard.at + THERE > self.now).collect();
        let detail = view.detail.as_str();
        let said = format!("job {} ({}) says {detail:?}", view.id, view.stage);
        let (what, holds) = if detail.is_empty() {
            let busy = life.heard.keys().any(|id| !life.farm.desired(id).assignments.is_empty());
            ("job works", busy || life.in_hands > 0)
        } else if detail.starts_with("waiting for an agent: none is connected") {
            ("job says that no agent is there", there.is_empty())
        } else if detail.starts_with("waiting for agents to say") {
            ("job says that agents have not spoken yet", life.age(self.now) < 31 * SECOND)
        } else if let Some((_, reason)) =
            detail.strip_prefix("retrying after ").and_then(|it| it.split_once(": "))
        {
            ("job says that it retries", self.promises.reasons.contains(reason))
        } else if let Some(problems) = detail.strip_prefix("waiting: ") {
            let agents = life.farm.agents();
            let troubled = |agent: &str| {
                let view = agents.iter().find(|it| it.id.as_str() == agent);
                let heard = life.heard.iter().find(|(id, _)| id.as_str() == agent);
                view.is_some_and(|it| it.state == "quarantined")
                    || heard.is_some_and(|(_, it)| !it.takes_work)
            };
            let all = problems.split("; ").all(|it| it.split_once(": ").is_some_and(|(id, _)| troubled(id)));
            ("job says what is wrong with agents", all)
        } else if detail.starts_with("waiting for an agent that can boot guests") {
            let able = there.iter().any(|(_, heard)| heard.takes_work);
            ("job says that no agent boots guests", !able)
        } else if detail.starts_with("waiting for an agent with 65536 MiB") {
            ("job says that no agent has the memory", true)
        } else if detail == "waiting for a free slot" {
            let views = life.farm.agents();
            let is_free = |id: &AgentId, heard: &Heard| {
                let view = views.iter().find(|view| view.id == *id).expect("it was heard");
                let leased = view.slots.iter().filter(|slot| slot.work.is_some()).count();
                let held =
                    self.agents.iter().find(|agent| agent.id == *id).map_or(0, |agent| agent.held.len());
                heard.takes_work && view.state == "online" && leased.max(held) < heard.slots
            };
            let mut heard = life.heard.values();
            let taking = heard.any(|heard| heard.takes_work && heard.at + GONE > self.now);
            (
                "job says that all slots are taken",
                taking && !there.iter().any(|(id, heard)| is_free(id, heard)),
            )
        } else {
            ("", false)
        };
        assert!(holds, "{said}, which is not so; agents: {:?}", life.farm.agents());
        self.stats.saw(what);
    }

    pub fn open_jobs(&self) -> String {
        let Some(index) = self.serving() else { return "no coordinator serves".into() };
        let views = self.promises.open_jobs().filter_map(|id| self.lives[index].farm.job(id));
        let said = views.map(|view| format!("job {} {}: {:?}; ", view.id, view.stage, view.detail));
        said.collect()
    }

    /// Every job has ended, with the right answer, and a restart changes nothing of that.
    pub fn at_the_end(&mut self) {
        self.stats.lasted_ms += self.now;
        let culprit = commit_id(self.plan.culprit);
        for (index, wish) in self.wishes.iter().enumerate() {
            let end = &self.promises.ends[wish.id.as_ref().expect("submitted")];
            let said = format!("wish {index}: {} {}", end.kind, end.message);
            match end.culprit {
                Some(found) => assert_eq!(found, culprit, "{said}"),
                None if end.kind == "cancelled" => assert!(wish.cancelled, "{said}"),
                None => {
                    assert!(self.plan.may_give_up(), "{said}");
                    assert!(["suspects", "blocked", "bad-end-broken"].contains(&end.kind.as_str()), "{said}");
                }
            }
            self.stats.saw(match (end.culprit, end.kind.as_str()) {
                (Some(_), _) => "job ends with the culprit",
                (None, "cancelled") => "job ends cancelled",
                (None, "blocked") => "job ends blocked",
                (None, _) => "job ends with suspects",
            });
        }
        let (farm, _) = Farm::restore(self.plan.config(), self.journal.facts.clone(), Timestamp(0));
        for view in farm.jobs() {
            let end = view.ended.map(|(_, end)| end);
            assert_eq!(end.as_ref(), self.promises.ends.get(&view.id), "job {} after a restart", view.id);
        }
    }
}
