//! The table: who may call what. A call that is not in it is refused.

use super::Role;

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Everybody who reaches the port.
    Anyone,
    Roles(&'static [Role]),
}

const MEMBERS: Allowed = Allowed::Roles(&Role::ALL);
const AGENTS: Allowed = Allowed::Roles(&[Role::Agent]);
const OPERATORS: Allowed = Allowed::Roles(&[Role::Operator]);
const READERS: Allowed = Allowed::Roles(&[Role::Operator, Role::Viewer]);

/// What the artifact endpoint asks for; it has no gRPC names.
pub const ENDPOINT_READ: &str = "artifacts/read";
pub const ENDPOINT_WRITE: &str = "artifacts/write";

/// Every RPC, as `SERVICE/METHOD`.
pub const METHODS: &[(&str, Allowed)] = &[
    ("kulprit.v1.Enrol/Join", Allowed::Anyone),
    ("kulprit.v1.Enrol/Renew", MEMBERS),
    ("kulprit.v1.Agents/Sync", AGENTS),
    ("kulprit.v1.Agents/Complete", AGENTS),
    ("kulprit.v1.Agents/AppendLog", AGENTS),
    ("kulprit.v1.Agents/Source", AGENTS),
    ("kulprit.v1.Agents/Upload", AGENTS),
    ("kulprit.v1.Agents/Uploaded", AGENTS),
    ("kulprit.v1.Agents/Download", AGENTS),
    ("kulprit.v1.Jobs/Submit", OPERATORS),
    ("kulprit.v1.Jobs/Get", READERS),
    ("kulprit.v1.Jobs/List", READERS),
    ("kulprit.v1.Jobs/Watch", READERS),
    ("kulprit.v1.Jobs/Cancel", OPERATORS),
    ("kulprit.v1.Jobs/Overrule", OPERATORS),
    ("kulprit.v1.Jobs/Release", OPERATORS),
    ("kulprit.v1.Jobs/AgentList", READERS),
    ("kulprit.v1.Jobs/AgentQuarantine", OPERATORS),
    ("kulprit.v1.Jobs/AgentRelease", OPERATORS),
    ("kulprit.v1.Jobs/FarmStatus", READERS),
    ("kulprit.v1.Jobs/ReadLog", READERS),
    ("kulprit.v1.Artifacts/List", READERS),
    ("kulprit.v1.Artifacts/Get", READERS),
    // Reads all that is stored, which is work for whoever pays for the store.
    ("kulprit.v1.Artifacts/Verify", OPERATORS),
    ("kulprit.v1.Artifacts/Gc", OPERATORS),
    ("kulprit.v1.Access/TokenCreate", OPERATORS),
    ("kulprit.v1.Access/TokenList", OPERATORS),
    ("kulprit.v1.Access/TokenRevoke", OPERATORS),
    ("kulprit.v1.Access/Revoke", OPERATORS),
    // Says no more than that the port is served, which whoever reaches it sees anyway.
    ("grpc.health.v1.Health/Check", Allowed::Anyone),
    ("grpc.health.v1.Health/Watch", MEMBERS),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", MEMBERS),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", MEMBERS),
    (ENDPOINT_READ, MEMBERS),
    (ENDPOINT_WRITE, AGENTS),
];

/// Who may call `method`, or `None` where nobody may.
pub fn allowed(method: &str) -> Option<Allowed> {
    METHODS.iter().find(|(name, _)| *name == method).map(|(_, allowed)| *allowed)
}

impl Allowed {
    pub fn admits(self, role: Role) -> bool {
        match self {
            Allowed::Anyone => true,
            Allowed::Roles(roles) => roles.contains(&role),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_change_nothing_and_agents_see_no_jobs() {
        let admitted = |role| {
            let admits = move |(name, allowed): &&(&'static str, Allowed)| {
                allowed.admits(role).then_some(*name).is_some()
            };
            METHODS.iter().filter(admits).map(|(name, _)| *name).collect::<Vec<_>>()
        };
        let viewer = admitted(Role::Viewer);
        for changing in [
            "Submit",
            "Cancel",
            "Overrule",
            "Release",
            "Quarantine",
            "Token",
            "Access",
            "Agents/",
            "write",
            "Gc",
        ] {
            assert!(!viewer.iter().any(|name| name.contains(changing)), "{changing}: {viewer:?}");
        }
        assert!(!admitted(Role::Agent).iter().any(|name| name.contains("Jobs") || name.contains("Access")));
        assert!(!admitted(Role::Operator).iter().any(|name| name.contains("Agents/")));
        assert_eq!(allowed("kulprit.v1.Jobs/Nothing"), None);
    }
}
