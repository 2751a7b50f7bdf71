//! The class of a crash, told from its title: what kind of bug it is, in syzbot's words.

use super::Crash;

/// Titles that begin with the first text and contain the second are of the kind; the first row that fits counts.
///
/// An empty kind stands where syzbot names none, so that no wider row further down catches the title.
const KINDS: &[(&str, &str, &str)] = &[
    // KASAN: freeing wrongly, then what was accessed, then how; old titles without an access read
    ("KASAN: ", "invalid-free", "KASAN-INVALID-FREE"),
    ("KASAN: ", "double-free", "KASAN-INVALID-FREE"),
    ("KASAN: ", "null-ptr-deref Write", "KASAN-NULL-POINTER-DEREFERENCE-WRITE"),
    ("KASAN: ", "null-ptr-deref", "KASAN-NULL-POINTER-DEREFERENCE-READ"),
    ("KASAN: ", "use-after-free Write", "KASAN-USE-AFTER-FREE-WRITE"),
    ("KASAN: ", "use-after-free", "KASAN-USE-AFTER-FREE-READ"),
    ("KASAN: ", " Write", "KASAN-WRITE"),
    ("KASAN: ", "", "KASAN-READ"),
    // KMSAN
    ("KMSAN: ", "infoleak", "KMSAN-INFO-LEAK"),
    ("KMSAN: ", "use-after-free", "KMSAN-USE-AFTER-FREE-READ"),
    ("KMSAN: ", "uninit-value", "KMSAN-UNINIT-VALUE"),
    ("KMSAN: ", "", "KMSAN-UNKNOWN"),
    // KCSAN
    ("KCSAN: ", "assert", "KCSAN-ASSERT"),
    ("KCSAN: ", "data-race", "KCSAN-DATARACE"),
    ("KCSAN: ", "", "KCSAN-UNKNOWN"),
    // KFENCE
    ("KFENCE: ", "invalid free", "KFENCE-INVALID-FREE"),
    ("KFENCE: ", "memory corruption", "KFENCE-MEMORY-CORRUPTION"),
    ("KFENCE: use-after-free", "write", "KFENCE-USE-AFTER-FREE-WRITE"),
    ("KFENCE: use-after-free", "", "KFENCE-USE-AFTER-FREE-READ"),
    ("KFENCE: ", " write", "KFENCE-WRITE"),
    ("KFENCE: ", " read", "KFENCE-READ"),
    ("KFENCE: ", "", "KFENCE-UNKNOWN"),
    ("UBSAN: ", "", "UBSAN"),
    // locks and contexts
    ("possible deadlock in ", "", "LOCKDEP"),
    ("inconsistent lock state in ", "", "LOCKDEP"),
    ("INFO: trying to register non-static key in ", "", "LOCKDEP"),
    ("WARNING: suspicious RCU usage in ", "", "LOCKDEP"),
    ("WARNING: locking bug in ", "", "LOCKDEP"),
    ("WARNING: bad unlock balance", "", "LOCKDEP"),
    ("WARNING: held lock freed", "", "LOCKDEP"),
    ("WARNING: lock held ", "", "LOCKDEP"),
    ("WARNING: still has locks held", "", "LOCKDEP"),
    ("WARNING: nested lock was not taken", "", "LOCKDEP"),
    ("BUG: bad unlock balance", "", "LOCKDEP"),
    ("BUG: held lock freed", "", "LOCKDEP"),
    ("BUG: still has locks held", "", "LOCKDEP"),
    ("BUG: nested lock was not taken", "", "LOCKDEP"),
    ("BUG: spinlock ", "", "LOCKDEP"),
    ("BUG: rwlock ", "", "LOCKDEP"),
    ("BUG: using ", "preemptible", "LOCKDEP"),
    ("BUG: scheduling while atomic", "", "ATOMIC_SLEEP"),
    ("BUG: sleeping function called", "", "ATOMIC_SLEEP"),
    // time that passed without progress
    ("INFO: task hung", "", "HANG"),
    ("INFO: task can't die", "", "HANG"),
    ("INFO: rcu detected stall", "", "HANG"),
    ("BUG: soft lockup", "", "HANG"),
    ("BUG: hard lockup", "", "HANG"),
    // memory
    ("memory leak in ", "", "LEAK"),
    ("BUG: corrupted list", "", "MEMORY_SAFETY_BUG"),
    ("BUG: unable to handle kernel paging request", "", "MEMORY_SAFETY_BUG"),
    ("BUG: unable to handle kernel NULL pointer dereference", "", "NULL-POINTER-DEREFERENCE"),
    ("WARNING: refcount bug", "", "REFCOUNT_WARNING"),
    // assertions and warnings without a kind of their own
    ("kernel BUG ", "", "BUG"),
    ("BUG: bad usercopy", "", "BUG"),
    ("WARNING: kernel stack ", "has bad ", ""),
    ("WARNING", "", "WARNING"),
    // what stops the machine
    ("general protection fault in ", "", "DoS"),
    ("stack segment fault in ", "", "DoS"),
    ("divide error in ", "", "DoS"),
    ("invalid opcode in ", "", "DoS"),
    ("int3 in ", "", "DoS"),
    ("Alignment trap in ", "", "DoS"),
    ("Internal error in ", "", "DoS"),
    ("Unhandled fault in ", "", "DoS"),
    ("Oops in ", "", "DoS"),
    ("PANIC: double fault", "", "DoS"),
    ("kernel panic: ", "", "DoS"),
    ("kernel stack overflow in ", "", "DoS"),
    ("go runtime error", "", "DoS"),
    ("trusty: ", "", "DoS"),
    // beneath and beside the kernel
    ("unexpected kernel reboot", "", "REBOOT"),
    ("SYZFATAL", "", "SYZ_FAILURE"),
    ("SYZFAIL", "", "SYZ_FAILURE"),
];

/// The kind of crash that a title stands for; empty where there is no name for it.
pub fn kind(title: &str) -> &'static str {
    let row = KINDS.iter().find(|(begin, part, _)| title.starts_with(begin) && title.contains(part));
    row.map_or("", |row| row.2)
}

/// Which process of a syzkaller executor crashed the kernel, and in which of its programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Executor {
    pub proc: u32,
    pub id: u32,
}

impl Crash {
    /// The kind of crash, in syzbot's words; empty where there is no name for it.
    pub fn kind(&self) -> &'static str {
        kind(&self.title)
    }

    /// The executor whose process the report names, as in `Comm: syz.3.20`.
    pub fn executor(&self) -> Option<Executor> {
        self.report.split("Comm: syz.").skip(1).find_map(|rest| {
            let name = rest.split(|c: char| c.is_whitespace()).next()?;
            let (proc, id) = name.split_once('.')?;
            Some(Executor { proc: proc.parse().ok()?, id: id.parse().ok()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn kinds() {
        let check = |title: &str, expected: &str| assert_eq!(kind(title), expected, "{title}");
        check("KASAN: slab-use-after-free Write in f", "KASAN-USE-AFTER-FREE-WRITE");
        check("KASAN: slab-out-of-bounds Read in f", "KASAN-READ");
        check("KFENCE: use-after-free write in f", "KFENCE-USE-AFTER-FREE-WRITE");
        check("WARNING: lock held when returning to user space in f", "LOCKDEP");
        check("WARNING: kernel stack regs has bad 'bp' value", "");
        check("WARNING in f", "WARNING");
        check("BUG: Bad page state in f", "");
    }
}
