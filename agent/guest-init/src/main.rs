//! PID 1 of a guest: mounts what programs expect, starts the reproducer, says how it went, ends the guest.
//!
//! The kernel panics when PID 1 dies, and such a panic would read as a crash of the kernel under
//! test. So nothing here may panic, and a panic that happens all the same ends the guest quietly.

mod channel;
mod kernel;
mod machine;
mod plan;
mod reproducer;

use channel::Channel;
use plan::Plan;
use std::time::Duration;

/// Between two signs of life.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

fn main() {
    std::panic::set_hook(Box::new(|_| machine::end()));
    machine::mount_all();
    match Plan::take() {
        Ok(plan) => run(&plan),
        Err(error) => machine::complain(&format!("kulprit: cannot read the plan: {error}\n")),
    }
    machine::end()
}

fn run(plan: &Plan) {
    let mut channel = Channel::open(&plan.nonce, &plan.marker);
    if let Some(id) = kernel::build_id() {
        channel.say(&format!("kernel {id}"));
    }
    channel.mark("up");
    machine::prepare();
    if plan.busybox {
        reproducer::install_busybox();
    }
    std::thread::sleep(plan.settle);
    channel.say("settled");
    // Whatever the kernel prints from here on came after the reproducer's start.
    channel.mark("start");
    match reproducer::start(plan) {
        Ok(child) => {
            let ending = reproducer::watch(child, plan.reproducer, || channel.say("alive"));
            channel.say(&ending.to_string());
            linger(plan.linger, &mut channel);
            channel.say("done");
        }
        Err(reason) => channel.say(&format!("cannot-start {reason}")),
    }
}

/// Leaves time for crashes that come after the reproducer's end, such as those of RCU callbacks.
fn linger(time: Duration, channel: &mut Channel) {
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(ALIVE_EVERY);
        std::thread::sleep(step);
        reproducer::reap_orphans();
        channel.say("alive");
        left -= step;
    }
}
