//! Whether the agents of a run can do what its job needs. They are all there ever will be, so a
//! search without a machine that boots guests would build for hours and then wait without end.

use super::super::failure::Failure;
use super::super::story::one_line;
use kulprit_proto::v1;

pub struct Fitness {
    agents: usize,
    judged: bool,
}

impl Fitness {
    pub fn new(agents: u32) -> Self {
        Fitness { agents: agents as usize, judged: false }
    }

    /// Refuses as soon as all agents are there and none is fit. Later on they are trusted to
    /// become so again: a full disk is emptied, an engine restarted.
    pub fn judge(&mut self, update: &v1::WatchUpdate) -> Result<(), Failure> {
        let there: Vec<_> = update.agents.iter().filter(|agent| agent.state != "lost").collect();
        let Some(job) = update.job.as_ref().filter(|_| !self.judged && there.len() >= self.agents) else {
            return Ok(());
        };
        self.judged = true;
        let boots = job.mode != v1::Mode::Build as i32;
        let lack = match there.as_slice() {
            all if all.iter().all(|agent| agent.cannot_build) => "build",
            all if boots && all.iter().all(|agent| agent.cannot_boot) => "boot guests",
            _ => return Ok(()),
        };
        let mut problems: Vec<String> = Vec::new();
        for problem in there.iter().flat_map(|agent| &agent.problems).map(|problem| one_line(problem)) {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        Err(Failure::Unable(format!(
            "no agent can {lack}: {}\n  `kulprit doctor` checks this machine and says what to do",
            problems.join("; ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(state: &str, cannot_build: bool, cannot_boot: bool) -> v1::AgentView {
        let problems = vec!["there is no QEMU".into()];
        v1::AgentView { state: state.into(), cannot_build, cannot_boot, problems, ..Default::default() }
    }

    #[test]
    fn a_run_without_a_fit_agent_is_refused_once() {
        let (able, no_boot, no_build) =
            (agent("online", false, false), agent("online", false, true), agent("online", true, false));
        let lost = agent("lost", false, false);
        for (agents, mode, refusal) in [
            (vec![no_boot.clone()], v1::Mode::Cause, None),
            (vec![no_boot.clone(), able], v1::Mode::Cause, None),
            (vec![no_boot.clone(), no_boot.clone()], v1::Mode::Build, None),
            (vec![lost.clone(), no_boot.clone()], v1::Mode::Cause, None),
            (
                vec![lost, no_boot.clone(), no_boot],
                v1::Mode::Cause,
                Some("no agent can boot guests: there is no QEMU\n"),
            ),
            (
                vec![no_build.clone(), no_build],
                v1::Mode::Build,
                Some("no agent can build: there is no QEMU\n"),
            ),
        ] {
            let job = Some(v1::JobView { mode: mode as i32, ..Default::default() });
            let update = v1::WatchUpdate { job, agents, ..Default::default() };
            let mut fitness = Fitness::new(2);
            let judged = fitness.judge(&update);
            match (&judged, refusal) {
                (Ok(()), None) => {}
                (Err(Failure::Unable(why)), Some(refusal)) => assert!(why.starts_with(refusal), "{why}"),
                _ => panic!("{update:?}: {judged:?}"),
            }
            assert!(fitness.judge(&update).is_ok(), "once");
        }
    }
}
