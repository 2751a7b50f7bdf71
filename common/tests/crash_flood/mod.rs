//! Consoles gone mad: lines that look like crashes, as many as one likes, each kind in its own way.

/// What a flood is of, and a console with about as many lines as asked for.
pub type Flood = (&'static str, fn(usize) -> Vec<u8>);

pub const FLOODS: &[Flood] = &[
    ("WARNING", |lines| repeated("[   12.345678] WARNING: CPU: 0 PID: 7 at mm/slab.c:1 f+0x1/0x20\n", lines)),
    ("WARNING of a program", |lines| repeated("WARNING: something\n", lines)),
    ("BUG", |lines| repeated("[   12.345678] BUG: x\n", lines)),
    ("BUG: KASAN", |lines| repeated("[   12.345678] BUG: KASAN: use-after-free in f+0x1/0x20\n", lines)),
    ("UBSAN", |lines| repeated("[   12.345678] UBSAN: shift-out-of-bounds in a.c:1:2\n", lines)),
    ("Oops", |lines| repeated("[   12.345678] Oops: 0000 [#1] SMP\n", lines)),
    ("panic", |lines| repeated("[   12.345678] Kernel panic - not syncing: x\n", lines)),
    ("deadlock", |lines| {
        repeated("[   12.345678] WARNING: possible circular locking dependency detected\n", lines)
    }),
    ("stall", |lines| repeated("[   12.345678] rcu: INFO: rcu_sched self-detected stall on CPU\n", lines)),
    // Begins a report again and again that its next lines show to be none.
    ("task that is not hung", |lines| repeated("[   12.345678] INFO: task x:1 is well\n", lines)),
    ("Call Trace", |lines| repeated("[   12.345678] Call Trace:\n", lines)),
    ("frames", |lines| repeated("[   12.345678]  alpha+0x1/0x20\n", lines)),
    ("boots", |lines| repeated("[   99.000000] Linux version 6.1.0\n[   99.000001] x\n", lines / 2)),
    ("firmware", |lines| repeated("SeaBIOS (version 1)\n", lines)),
    ("suppressing", |lines| repeated("*** stack smashing detected ***\n", lines)),
    ("crash with a stack without end", |lines| {
        after("BUG: KASAN: use-after-free in f+0x1/0x20\nCall Trace:\n", " alpha+0x1/0x20\n", lines)
    }),
    // A panic takes every lead that follows for its own.
    ("panic without end", |lines| {
        after("Kernel panic - not syncing: x\n", "BUG: x\n alpha+0x1/0x20\n", lines / 2)
    }),
    ("stall of every task", |lines| {
        let mut text = "[    1.000000][   T1] rcu: INFO: rcu_sched self-detected stall on CPU\n".to_owned();
        (0..lines).for_each(|it| text += &format!("[    1.000000]{}  alpha+0x1/0x20\n", task(it)));
        text.into_bytes()
    }),
    ("interleaved contexts", |lines| {
        let line = |it: usize| format!("[    1.000000]{} BUG: KASAN: wild-access in f+0x1/0x20\n", task(it));
        (0..lines).map(line).collect::<String>().into_bytes()
    }),
    // As many reports as are held, each of which gets every line; none ever counts, or all become long.
    ("no crashes in all contexts", |lines| in_all_contexts("INFO: task x:1", 64, lines)),
    ("long crashes in all contexts", |lines| in_all_contexts("BUG: KASAN: wild-access in f", 4000, lines)),
    ("messages glued together", |lines| repeated(&("[    1.000000] BUG: x".repeat(50) + "\n"), lines / 50)),
    ("long crash lines", |lines| repeated(&("BUG: ".to_owned() + &"x".repeat(9000) + "\n"), lines / 200)),
    ("terminal escapes", |lines| {
        repeated(&("BUG: ".to_owned() + &"\x1b[".repeat(2000) + "\r\n"), lines / 100)
    }),
    ("no UTF-8", |lines| [b"BUG: \xff\xfe\xf0\x9f\n".as_slice()].repeat(lines).concat()),
    ("empty lines", |lines| repeated("\n", lines)),
];

fn repeated(text: &str, times: usize) -> Vec<u8> {
    text.repeat(times).into_bytes()
}

fn after(head: &str, text: &str, times: usize) -> Vec<u8> {
    (head.to_owned() + &text.repeat(times)).into_bytes()
}

/// Who prints, as the kernel says it.
fn task(id: usize) -> String {
    format!("[{:>6}]", format!("T{id}"))
}

/// Rounds of `length` lines, the first 32 of which each begin a report and the others belong to all.
fn in_all_contexts(lead: &str, length: usize, lines: usize) -> Vec<u8> {
    let line = |it: usize| match it % length {
        who @ ..32 => format!("[    1.000000]{} {lead}\n", task(who)),
        _ => "[    1.000000]  alpha+0x1/0x20\n".to_owned(),
    };
    (0..lines).map(line).collect::<String>().into_bytes()
}
