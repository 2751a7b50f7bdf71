//! `WARNING:` in all its forms: WARN_ON places known by their file, then any place, then plain text.

use super::{Family, Rule, Through};

/// The lead of a WARN at a given file, with and without CPU and PID, old order and new.
macro_rules! at {
    ($file:literal) => {
        concat!(r"WARNING: (?:\[.*\] )?(?:CPU: \d+ )?(?:PID: -?\d+ )?(?:at )?(?:\S*/)?", $file, r":\d+ ")
    };
}

pub(super) const FAMILY: Family = Family {
    benign: &[
        // told by programs, or by boot about the machine, not about a bug
        r"WARNING: /etc/ssh/",
        r"WARNING: (?:linker|REMOTE HOST|UNPROTECTED|Host|apt|ld\.so|Ignoring|The following|Running)\b",
        r"[Tt]he mand mount option|workqueue cpumask: online intersect|Unsupported flag value|See https?:",
        r"fbcon: Driver|Unprivileged eBPF|not configured for storing trace|You are running an unsupported",
        r"(?:Spectre|MDS|TAA|MMIO|RETBleed|SRSO|GDS|ITS)\b.*WARNING",
        r"WARNING: (?:CPU feature|stack protector|Unable to find|Adjusting)",
        r"@\s+WARNING",
        r"_WARNING",
    ],
    rules: &[
        Rule::new(at!(r"lib/refcount\.c"), "WARNING: refcount bug in {frame}").through(Through::References),
        Rule::new(at!(r"lib/debugobjects\.c"), "WARNING: ODEBUG bug in {frame}").through(Through::Objects),
        Rule::new(at!(r"lib/kobject\.c"), "WARNING: kobject bug in {frame}").through(Through::References),
        // a driver that submits a request the device cannot have meant
        Rule::new(
            r"WARNING: (?:\[.*\] )?(?:CPU: \d+ )?(?:PID: -?\d+ )?(?:at )?\S*drivers/usb/core/urb\.c:\d+ (?:at )?usb_submit_urb",
            "WARNING in {frame}/usb_submit_urb",
        ),
        Rule::new(
            at!(r"kernel/locking/(?:lockdep|mutex|rwsem|rtmutex|semaphore)\S*\.c"),
            "WARNING: locking bug in {frame}",
        )
        .through(Through::Locking),
        Rule::new(
            at!(r"kernel/rcu/(?:tree|update|srcutree)\S*\.[ch] rcu_\w*note"),
            "WARNING: suspicious RCU usage in {frame}",
        ),
        Rule::new(at!(r"mm/usercopy\.c"), "WARNING: bad usercopy in {frame}"),
        Rule::new(at!(r"mm/(?:slab_common|util)\.c"), "WARNING: kmalloc bug in {frame}"),
        // newer kernels check sizes where they allocate
        Rule::new(
            r"WARNING: (?:\[.*\] )?(?:CPU: \d+ )?(?:PID: -?\d+ )?(?:at )?\S*mm/sl[aou]b\.c:\d+ (?:at )?_*kv?[mzc]alloc",
            "WARNING: kmalloc bug in {frame}",
        ),
        Rule::new(at!(r"mm/vmalloc\.c"), "WARNING: zero-size vmalloc in {frame}"),
        Rule::new(at!(r"fs/proc/generic\.c"), "WARNING: proc registration bug in {frame}"),
        Rule::new(at!(r"[\w./-]+\.[chS]"), "WARNING in {frame}"),
        Rule::bare(
            r"WARNING: kernel stack (?P<what>regs|frame pointer) .* has bad '(?P<reg>\w+)' value",
            "WARNING: kernel stack {what} has bad '{reg}' value",
        ),
        Rule::bare(
            r"WARNING: kernel stack frame pointer .* has bad value",
            "WARNING: kernel stack frame pointer has bad value",
        ),
    ],
    catch_all: &[Rule::bare(r"WARNING: (?P<what>\S.*)", "WARNING: {what}")],
};
