//! Titles of crash formats by architecture and age, from consoles written for the purpose.

use kulprit_common::crash::parse;

/// The title of the first crash, whether it is corrupted, and how many crashes there are.
fn check(console: &str, expected: &str) {
    let crashes = parse(console.as_bytes());
    let titles: Vec<&str> = crashes.iter().map(|crash| crash.title.as_str()).collect();
    assert_eq!(titles, [expected], "{console}");
    assert!(!crashes[0].corrupted, "{console}");
}

const TRACE: &str = "Call Trace:\n <TASK>\n dump_stack_lvl+0xcd/0x134\n alpha_helper+0x1/0x20\n beta_ioctl+0x33/0x90\n __x64_sys_ioctl+0x193/0x200\n do_syscall_64+0x35/0xb0\n entry_SYSCALL_64_after_hwframe+0x44/0xae\n </TASK>\n";

#[test]
fn x86_faults() {
    let check = |lead: &str, expected: &str| {
        check(
            &format!(
                "{lead}\nCPU: 0 PID: 1 Comm: a Not tainted 6.9.0 #1\nRIP: 0010:alpha+0x1/0x20\nCode: 00 <0f> 0b\n{TRACE}"
            ),
            expected,
        );
    };
    check(
        "Oops: general protection fault, probably for non-canonical address 0xdffffc0000000001: 0000 [#1] PREEMPT SMP KASAN",
        "general protection fault in alpha",
    );
    check("general protection fault: 0000 [#1] SMP KASAN", "general protection fault in alpha");
    check("Oops: stack segment: 0000 [#1] PREEMPT SMP", "stack segment fault in alpha");
    check("Oops: divide error: 0000 [#1] PREEMPT SMP KASAN", "divide error in alpha");
    check("divide error: 0000 [#1] SMP", "divide error in alpha");
    check("invalid opcode: 0000 [#1] SMP", "invalid opcode in alpha");
    check("Oops: int3: 0000 [#1] PREEMPT SMP", "int3 in alpha");
    check("traps: PANIC: double fault, error_code: 0x0", "PANIC: double fault in alpha");
    check(
        "BUG: kernel NULL pointer dereference, address: 0000000000000008\n#PF: supervisor read access in kernel mode\nOops: Oops: 0000 [#1] PREEMPT SMP",
        "BUG: unable to handle kernel NULL pointer dereference in alpha",
    );
    check(
        "BUG: unable to handle page fault for address: ffffed1021b00000\n#PF: error_code(0x0000) - not-present page\nOops: 0000 [#1] PREEMPT SMP",
        "BUG: unable to handle kernel paging request in alpha",
    );
    check("kernel BUG at net/core/skbuff.c:12!\ninvalid opcode: 0000 [#1] SMP", "kernel BUG in alpha");
    check(
        "list_add corruption. next->prev should be prev (ffff), but was ffff.\n------------[ cut here ]------------\nkernel BUG at lib/list_debug.c:29!\nOops: invalid opcode: 0000 [#1] SMP",
        "BUG: corrupted list in alpha",
    );
    check(
        "CFI failure at beta_call+0x12/0x40 (target: gamma+0x0/0x10; expected type: 0x1)",
        "CFI failure in beta_call",
    );
}

#[test]
fn warnings_old_and_new() {
    let check = |lead: &str, expected: &str| {
        check(&format!("{lead}\nModules linked in:\nCPU: 0 PID: 7 Comm: a\n{TRACE}"), expected)
    };
    check("WARNING: at net/core/dev.c:123 alpha_helper+0x1/0x20()", "WARNING in alpha_helper");
    check("WARNING: CPU: 0 PID: 7 at net/core/dev.c:123 alpha_helper+0x1/0x20", "WARNING in alpha_helper");
    check("WARNING: net/core/dev.c:123 at alpha_helper+0x1/0x20, CPU#0: a/7", "WARNING in alpha_helper");
    check(
        "WARNING: CPU: 0 PID: 7 at lib/refcount.c:28 refcount_warn_saturate+0x1/0x20",
        "WARNING: refcount bug in alpha_helper",
    );
    check(
        "WARNING: CPU: 1 PID: 7 at lib/kobject.c:612 kobject_get+0x3/0x9",
        "WARNING: kobject bug in alpha_helper",
    );
    check(
        "usb 1-1: BOGUS urb xfer, pipe 3 != type 1\nWARNING: CPU: 0 PID: 7 at drivers/usb/core/urb.c:503 usb_submit_urb+0xe4b/0x1730",
        "WARNING in alpha_helper/usb_submit_urb",
    );
    check(
        "UBSAN: shift-out-of-bounds in ./include/linux/log2.h:57:13\nshift exponent 64 is too large",
        "UBSAN: shift-out-of-bounds in alpha_helper",
    );
    check(
        "BUG: sleeping function called from invalid context at mm/slab.h:123\nin_atomic(): 1",
        "BUG: sleeping function called from invalid context in alpha_helper",
    );
    check("BUG: scheduling while atomic: a/7/0x00000002", "BUG: scheduling while atomic in alpha_helper");
    check(
        "BUG: using smp_processor_id() in preemptible [00000000] code: a/7",
        "BUG: using smp_processor_id() in preemptible code in alpha_helper",
    );
    check("BUG: Bad page state in process a  pfn:12345", "BUG: Bad page state in alpha_helper");
    check("BUG: Bad page map in process a  pte:ffff8880 pmd:1234", "BUG: Bad page map");
    check(
        "BUG: bad host security descriptor; not enough data (4 vs 5 left)",
        "BUG: bad host security descriptor; not enough data (NUM vs NUM left)",
    );
}

#[test]
fn other_architectures() {
    check(
        "Unable to handle kernel paging request at virtual address dfff800000000003\nKASAN: null-ptr-deref in range [0x18-0x1f]\nMem abort info:\n  ESR = 0x0000000096000005\nInternal error: Oops: 0000000096000005 [#1] PREEMPT SMP\nCPU: 0 PID: 1 Comm: a Not tainted 6.1.0\npstate: 80400005\npc : alpha+0x1/0x20\nlr : beta+0x1/0x20\nsp : ffff800\nCall trace:\n alpha+0x1/0x20\n gamma+0x1/0x20\n el0_svc+0x1/0x20\n",
        "BUG: unable to handle kernel paging request in alpha",
    );
    check(
        "Unable to handle kernel write to read-only memory at virtual address ffff800\nMem abort info:\nInternal error: Oops: 9600004f [#1] PREEMPT SMP\npc : alpha+0x1/0x20\nlr : beta+0x1/0x20\nCall trace:\n alpha+0x1/0x20\n",
        "BUG: unable to handle kernel write to read-only memory in alpha",
    );
    check(
        "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010\nOops [#1]\nModules linked in:\nCPU: 1 PID: 9 Comm: a\nHardware name: riscv-virtio,qemu (DT)\nepc : alpha+0x1a/0x40\n ra : beta+0x1a/0x40\nepc : ffffffff80001234 ra : ffffffff80001236 sp : ff20\nstatus: 0000000200000120 badaddr: 10 cause: 000000000000000d\n[<ffffffff80001234>] alpha+0x1a/0x40\n[<ffffffff80001236>] beta+0x1a/0x40\n[<ffffffff80001238>] ret_from_syscall+0x0/0x2\n",
        "BUG: unable to handle kernel NULL pointer dereference in alpha",
    );
    check(
        "BUG: Unable to handle kernel data access on read at 0xc0dead\nFaulting instruction address: 0xc000000000123456\nOops: Kernel access of bad area, sig: 11 [#1]\nLE PAGE_SIZE=64K MMU=Radix SMP NR_CPUS=2048 NUMA pSeries\nCPU: 0 PID: 1 Comm: a Not tainted 5.15.0\nNIP:  c000000000123456 LR: c000000000123450 CTR: 0\nNIP [c000000000123456] alpha+0x16/0x40\nLR [c000000000123450] beta+0x10/0x40\nCall Trace:\n[c00000000a000000] [c000000000123450] beta+0x10/0x40 (unreliable)\n[c00000000b000000] [c000000000123460] gamma+0x10/0x40\n",
        "BUG: unable to handle kernel paging request in alpha",
    );
    check(
        "8<--- cut here ---\nUnable to handle kernel NULL pointer dereference at virtual address 00000004 when read\n[00000004] *pgd=00000000\nInternal error: Oops: 5 [#1] SMP ARM\nCPU: 0 PID: 1 Comm: a Not tainted 6.1.0\nPC is at alpha+0x14/0x40\nLR is at beta+0x14/0x40\npc : [<80101234>]    lr : [<80101238>]    psr: 60000013\n alpha from beta+0x14/0x40\n beta from gamma+0x14/0x40\n gamma from ret_fast_syscall+0x0/0x1c\n",
        "BUG: unable to handle kernel NULL pointer dereference in alpha",
    );
}

#[test]
fn sanitizers() {
    let check =
        |lead: &str, expected: &str| check(&format!("{lead}\n\nCPU: 0 PID: 7 Comm: a\n{TRACE}"), expected);
    check(
        "BUG: KASAN: slab-use-after-free in alpha_helper+0x1/0x20\nRead of size 8 at addr ffff88801 by task a/7",
        "KASAN: slab-use-after-free Read in alpha_helper",
    );
    check(
        "BUG: KASAN: slab-out-of-bounds in memcpy include/linux/string.h:12 [inline]\nBUG: KASAN: slab-out-of-bounds in alpha_helper+0x1/0x20 net/a.c:1\nWrite of size 8 at addr ffff88801 by task a/7",
        "KASAN: slab-out-of-bounds Write in alpha_helper",
    );
    check("BUG: KASAN: double-free or invalid-free in kfree+0x1/0x20", "KASAN: invalid-free in alpha_helper");
    check(
        "BUG: KFENCE: use-after-free read in alpha_helper+0x1/0x20\n\nUse-after-free read at 0xffff (in kfence-#12):",
        "KFENCE: use-after-free read in alpha_helper",
    );
    check("BUG: KMSAN: uninit-value in alpha_helper+0x1/0x20", "KMSAN: uninit-value in alpha_helper");
    check("BUG: KCSAN: assert: race in alpha_helper / beta", "KCSAN: assert: race in alpha_helper / beta");
}

#[test]
fn hangs() {
    check(
        "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [a:7]\nCPU: 1 PID: 7 Comm: a\nRIP: 0010:alpha+0x1/0x20\nCall Trace:\n gamma_work+0x1/0x20\n process_one_work+0x1/0x20\n worker_thread+0x1/0x20\n kthread+0x1/0x20\n",
        "BUG: soft lockup in gamma_work",
    );
    check(
        "INFO: task a:7 blocked for more than 143 seconds.\n      Not tainted 6.1.0 #1\ntask:a state:D stack:27600 pid:7 ppid:1\nCall Trace:\n <TASK>\n __schedule+0x1/0x20\n schedule+0x1/0x20\n io_schedule+0x1/0x20\n folio_wait_bit_common+0x1/0x20\n alpha_truncate+0x1/0x20\n do_syscall_64+0x1/0x20\n",
        "INFO: task hung in alpha_truncate",
    );
    check(
        "BUG: workqueue leaked atomic, lock or RCU: kworker/0:1[10]\n     preempt=0x00000000 lock=0->1 RCU=0->0 workfn=alpha_work\n1 lock held by kworker/0:1/10:\nCall Trace:\n dump_stack+0x1/0x20\n process_one_work+0x1/0x20\n",
        "BUG: workqueue leaked lock or atomic in alpha_work",
    );
}
