//! What tests may bend in a coordinator: where it dies, and which version it takes itself for.
//!
//! `KULPRIT_FAILPOINT=before-commit:17` ends the process, as SIGKILL does, the 17th time that it
//! comes by that point. Release builds have none of this.

/// The version of this coordinator; agents are held against it.
pub fn version() -> String {
    #[cfg(debug_assertions)]
    if let Ok(pretended) = std::env::var("KULPRIT_PRETEND_VERSION") {
        return pretended;
    }
    kulprit_proto::VERSION.into()
}

/// A point that the process comes by.
#[cfg(not(debug_assertions))]
pub fn pass(_point: &str) {}

#[cfg(debug_assertions)]
pub use armed::pass;

#[cfg(debug_assertions)]
mod armed {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        point: String,
        at: u64,
        passed: AtomicU64,
    }

    static ARMED: LazyLock<Option<Armed>> =
        LazyLock::new(|| std::env::var("KULPRIT_FAILPOINT").ok().map(|text| Armed::read(&text)));

    /// A point that the process comes by, and at which it may be told to end.
    pub fn pass(point: &str) {
        if let Some(armed) = &*ARMED
            && armed.is_due(point)
        {
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
    }

    impl Armed {
        fn read(text: &str) -> Armed {
            let parts = text.split_once(':').and_then(|(point, at)| Some((point, at.parse().ok()?)));
            let (point, at) = parts.unwrap_or_else(|| {
                panic!("KULPRIT_FAILPOINT={text:?}: write POINT:N, as in before-commit:17")
            });
            Armed { point: point.into(), at, passed: AtomicU64::new(0) }
        }

        fn is_due(&self, point: &str) -> bool {
            point == self.point && self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.at
        }
    }

    #[test]
    fn a_point_is_due_once() {
        let armed = Armed::read("before-commit:2");
        let passed = ["before-commit", "log", "before-commit", "before-commit"].map(|it| armed.is_due(it));
        assert_eq!(passed, [false, false, true, false]);
        assert!(std::panic::catch_unwind(|| Armed::read("before-commit")).is_err());
    }
}
