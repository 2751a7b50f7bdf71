//! The coordinator's figures. docs/metrics.md has the same list, which a test holds against this one.

use kulprit_common::farm::census::Census;
use kulprit_common::farm::item::ItemKey;
use kulprit_common::time::Timestamp;
use kulprit_observe::figures::{Book, Count as _, LONG_S, MOMENTS_S, Say as _, number};
use prometheus::{GaugeVec, HistogramVec, IntCounterVec};
use std::sync::LazyLock;

/// Of this process.
pub static FIGURES: LazyLock<Figures> = LazyLock::new(Figures::new);

const FACTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 10_000.0];

pub struct Figures {
    pub book: Book,
    pub jobs: GaugeVec,
    pub jobs_submitted: IntCounterVec,
    pub jobs_ended: IntCounterVec,
    pub verdicts: IntCounterVec,
    pub items: GaugeVec,
    pub oldest_ready: GaugeVec,
    pub agents: GaugeVec,
    pub slots: GaugeVec,
    pub slots_busy: GaugeVec,
    pub syncs: IntCounterVec,
    pub grants: IntCounterVec,
    pub grant_wait: HistogramVec,
    pub completions: IntCounterVec,
    pub failures: IntCounterVec,
    pub attempt_time: HistogramVec,
    pub refused: IntCounterVec,
    pub queue: GaugeVec,
    pub queue_max: GaugeVec,
    pub answering: GaugeVec,
    pub facts: IntCounterVec,
    pub append_time: HistogramVec,
    pub commit_time: HistogramVec,
    pub commit_facts: HistogramVec,
    pub journal_bytes: GaugeVec,
    pub disk_free: GaugeVec,
    pub transfers: IntCounterVec,
    pub transfer_bytes: IntCounterVec,
    pub transfer_time: HistogramVec,
    pub leading: GaugeVec,
    pub stored: GaugeVec,
    pub stored_bytes: GaugeVec,
    pub removed: IntCounterVec,
    pub removed_bytes: IntCounterVec,
    pub lost: IntCounterVec,
    pub source_packs: IntCounterVec,
    pub source_pack_bytes: IntCounterVec,
    pub source_pack_time: HistogramVec,
}

impl Figures {
    #[allow(clippy::too_many_lines, reason = "a list")]
    fn new() -> Figures {
        let book = Book::of("kulprit-coordinator", kulprit_proto::VERSION);
        let figures = Figures {
            jobs: book.gauge("kulprit_jobs", &["stage"], "Jobs by the stage they are in."),
            jobs_submitted: book.counter("kulprit_jobs_submitted_total", &[], "Jobs that were taken."),
            jobs_ended: book.counter(
                "kulprit_jobs_ended_total",
                &["ending"],
                "Jobs that came to an end, by how; see docs/results.md.",
            ),
            verdicts: book.counter(
                "kulprit_verdicts_total",
                &["verdict"],
                "Verdicts on revisions that jobs came to.",
            ),
            items: book.gauge(
                "kulprit_items",
                &["kind", "state"],
                "Items of work that have not yielded yet.",
            ),
            oldest_ready: book.gauge(
                "kulprit_oldest_ready_item_age_seconds",
                &[],
                "For how long the item waits that has been ready for longest; 0 where none waits.",
            ),
            agents: book.gauge("kulprit_agents", &["state"], "Agents by state, as agent list calls it."),
            slots: book.gauge("kulprit_slots", &[], "Slots of the agents that are there."),
            slots_busy: book.gauge("kulprit_slots_busy", &[], "Slots that hold an item."),
            syncs: book.counter(
                "kulprit_syncs_total",
                &["answer"],
                "Syncs of agents, by how they were answered.",
            ),
            grants: book.counter("kulprit_grants_total", &["kind"], "Items given to agents."),
            grant_wait: book.histogram(
                "kulprit_grant_wait_seconds",
                &["kind"],
                LONG_S,
                "How long an item was ready before it was granted.",
            ),
            completions: book.counter(
                "kulprit_completions_total",
                &["kind", "ending", "answer"],
                "Attempts that agents reported ended, by how they did and what became of it.",
            ),
            failures: book.counter(
                "kulprit_attempt_failures_total",
                &["class"],
                "Attempts that failed for reasons outside the kernel.",
            ),
            attempt_time: book.histogram(
                "kulprit_attempt_seconds",
                &["kind", "ending"],
                LONG_S,
                "From the grant to the completion that was taken.",
            ),
            refused: book.counter(
                "kulprit_calls_refused_total",
                &["reason"],
                "Calls that did not pass the gate.",
            ),
            queue: book.gauge("kulprit_driver_queue_length", &[], "Events that wait for the driver."),
            queue_max: book.gauge(
                "kulprit_driver_queue_capacity",
                &[],
                "Events that may wait; whoever has one more waits.",
            ),
            answering: book.gauge(
                "kulprit_driver_up",
                &[],
                "1 where the driver answered this scrape in time; else gauges of the farm are old.",
            ),
            facts: book.counter("kulprit_facts_total", &["kind"], "Facts given to the journal."),
            append_time: book.histogram(
                "kulprit_journal_append_seconds",
                &[],
                MOMENTS_S,
                "From giving facts to the journal until they are on disk.",
            ),
            commit_time: book.histogram(
                "kulprit_journal_commit_seconds",
                &[],
                MOMENTS_S,
                "One transaction of the journal, with its fsync.",
            ),
            commit_facts: book.histogram(
                "kulprit_journal_commit_facts",
                &[],
                FACTS,
                "Facts in one transaction.",
            ),
            journal_bytes: book.gauge(
                "kulprit_journal_size_bytes",
                &[],
                "What the journal and its write-ahead log take on disk.",
            ),
            disk_free: book.gauge(
                "kulprit_disk_free_bytes",
                &["dir"],
                "Free disk below the state directory.",
            ),
            transfers: book.counter(
                "kulprit_store_transfers_total",
                &["direction", "ending"],
                "Artifacts through the coordinator's own endpoint.",
            ),
            transfer_bytes: book.counter(
                "kulprit_store_transfer_bytes_total",
                &["direction"],
                "Bytes of artifacts through the coordinator's own endpoint.",
            ),
            transfer_time: book.histogram(
                "kulprit_store_transfer_seconds",
                &["direction"],
                LONG_S,
                "How long one artifact took.",
            ),
            leading: book.gauge(
                "kulprit_leading",
                &[],
                "1 on the coordinator that leads the farm, 0 on one that stands by, starts or stops.",
            ),
            stored: book.gauge(
                "kulprit_artifacts",
                &["needed"],
                "Artifacts in the store when retention last went through it; absent before.",
            ),
            stored_bytes: book.gauge(
                "kulprit_artifacts_bytes",
                &["needed"],
                "Bytes of the artifacts in the store when retention last went through it.",
            ),
            removed: book.counter(
                "kulprit_artifacts_removed_total",
                &[],
                "Artifacts that retention removed, by itself or when an operator asked.",
            ),
            removed_bytes: book.counter(
                "kulprit_artifacts_removed_bytes_total",
                &[],
                "Bytes of the artifacts that retention removed.",
            ),
            lost: book.counter(
                "kulprit_artifacts_lost_total",
                &["condition"],
                "Artifacts that were gone or damaged when somebody needed them, and are made again.",
            ),
            source_packs: book.counter(
                "kulprit_source_packs_total",
                &["kind"],
                "Packs of source that agents were given, by whether they were made for it.",
            ),
            source_pack_bytes: book.counter(
                "kulprit_source_pack_bytes_total",
                &["kind"],
                "Bytes of the packs of source that were made.",
            ),
            source_pack_time: book.histogram(
                "kulprit_source_pack_seconds",
                &["kind"],
                LONG_S,
                "How long it took to make a pack of source and store it.",
            ),
            book,
        };
        figures.begin();
        figures
    }

    /// Has the series there whose labels are known, so that rates are right from the first event on.
    fn begin(&self) {
        for kind in ItemKey::KINDS {
            self.grants.begin(&[&[kind]]);
            for ending in ["done", "infra", "released"] {
                self.completions.begin(&[&[kind, ending, "recorded"]]);
            }
        }
        for direction in ["in", "out"] {
            self.transfer_bytes.begin(&[&[direction]]);
            self.transfers.begin(&[&[direction, "done"], &[direction, "failed"]]);
        }
        self.removed.begin(&[&[]]);
        self.removed_bytes.begin(&[&[]]);
        self.lost.begin(&[&["missing"], &["corrupt"]]);
        self.source_packs.begin(&[&["base"], &["thin"], &["reused"]]);
        self.source_pack_bytes.begin(&[&["base"], &["thin"]]);
        self.syncs.begin(&[&["answered"], &["superseded"], &["refused"], &["failed"]]);
        self.refused.begin(&[&["too-fast"], &["not-admitted"]]);
        self.verdicts.begin(&[&["good"], &["bad"], &["skip"]]);
        self.jobs_ended.begin(&[&["culprit"], &["suspects"], &["blocked"], &["cancelled"], &["invalid"]]);
    }

    /// Shows the farm as it is counted.
    pub fn take(&self, census: &Census, now: Timestamp) {
        census.jobs.iter().for_each(|(stage, count)| self.jobs.say(&[stage], number(*count)));
        census.agents.iter().for_each(|(state, count)| self.agents.say(&[state], number(*count)));
        for ((kind, state), count) in &census.items {
            self.items.say(&[kind, state], number(*count));
        }
        self.slots.say(&[], number(census.slots));
        self.slots_busy.say(&[], number(census.slots_busy));
        let age = census.oldest_ready.map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
        self.oldest_ready.say(&[], age);
    }
}
