//! The agent's figures. docs/metrics.md has the same list, which a test holds against this one.

use kulprit_common::farm::item::ItemKey;
use kulprit_observe::figures::{Book, Count as _, LONG_S};
use prometheus::{GaugeVec, HistogramVec, IntCounterVec};
use std::sync::LazyLock;

/// Of this process.
pub static FIGURES: LazyLock<Figures> = LazyLock::new(Figures::new);

pub struct Figures {
    pub book: Book,
    pub attempts: IntCounterVec,
    pub failures: IntCounterVec,
    pub stage_time: HistogramVec,
    pub build_time: HistogramVec,
    pub boot_time: HistogramVec,
    pub ccache: IntCounterVec,
    pub shared_ccache: IntCounterVec,
    pub transfer_bytes: IntCounterVec,
    pub syncs: IntCounterVec,
    pub contact_age: GaugeVec,
    pub slots: GaugeVec,
    pub slots_busy: GaugeVec,
    pub able: GaugeVec,
    pub guests_capped: GaugeVec,
    pub disk_free: GaugeVec,
    pub removed: IntCounterVec,
}

impl Figures {
    fn new() -> Figures {
        let book = Book::of("kulprit-agent", kulprit_proto::VERSION);
        let figures = Figures {
            attempts: book.counter(
                "kulprit_agent_attempts_total",
                &["kind", "ending"],
                "Attempts that came to an end here, by how.",
            ),
            failures: book.counter(
                "kulprit_agent_attempt_failures_total",
                &["class"],
                "Attempts that failed here for reasons outside the kernel.",
            ),
            stage_time: book.histogram(
                "kulprit_agent_stage_seconds",
                &["stage", "ending"],
                LONG_S,
                "How long a stage of an attempt took.",
            ),
            build_time: book.histogram(
                "kulprit_agent_build_seconds",
                &["outcome"],
                LONG_S,
                "How long make ran for a kernel, a second try from a clean tree included.",
            ),
            boot_time: book.histogram(
                "kulprit_agent_boot_seconds",
                &["outcome"],
                LONG_S,
                "How long a guest ran, from its start to its end.",
            ),
            ccache: book.counter(
                "kulprit_agent_ccache_calls_total",
                &["result"],
                "Compilations that ccache was asked for, by whether it had them.",
            ),
            shared_ccache: book.counter(
                "kulprit_agent_shared_ccache_requests_total",
                &["result"],
                "What builds asked of the cache that agents share, and what came of it.",
            ),
            transfer_bytes: book.counter(
                "kulprit_agent_transfer_bytes_total",
                &["direction"],
                "Bytes of artifacts that were moved between here and the store.",
            ),
            syncs: book.counter(
                "kulprit_agent_syncs_total",
                &["result"],
                "Syncs with the coordinator, by whether they were answered.",
            ),
            contact_age: book.gauge(
                "kulprit_agent_contact_age_seconds",
                &[],
                "How long ago the last sync was answered; absent before the first.",
            ),
            slots: book.gauge("kulprit_agent_slots", &[], "Slots of this agent."),
            slots_busy: book.gauge("kulprit_agent_slots_busy", &[], "Slots that hold an item."),
            able: book.gauge("kulprit_agent_able", &["work"], "1 where this machine can do such work now."),
            guests_capped: book.gauge(
                "kulprit_agent_guest_memory_capped",
                &[],
                "1 where a guest's memory is capped from outside, 0 where only its own size bounds it.",
            ),
            disk_free: book.gauge(
                "kulprit_agent_disk_free_bytes",
                &["dir"],
                "Free disk below the agent's directories.",
            ),
            removed: book.counter(
                "kulprit_agent_removed_bytes_total",
                &[],
                "Bytes that were removed to make room on the disk.",
            ),
            book,
        };
        figures.begin();
        figures
    }

    fn begin(&self) {
        for kind in ItemKey::KINDS {
            self.attempts.begin(&[&[kind, "done"], &[kind, "infra"], &[kind, "cancelled"]]);
        }
        self.ccache.begin(&[&["hit"], &["shared-hit"], &["miss"], &["other"]]);
        let shared = ["hit", "miss", "failed", "written", "unwritten"];
        shared.iter().for_each(|result| self.shared_ccache.begin(&[&[result]]));
        self.transfer_bytes.begin(&[&["in"], &["out"]]);
        self.syncs.begin(&[&["answered"], &["failed"]]);
    }
}
