//! Addresses: whatever a commit message or `get_maintainer.pl` says, none breaks out of a header.
#![no_main]

use kulprit_common::recipients::{Mailbox, Recipients, quoted};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    for line in text.lines() {
        if let Some(mailbox) = Mailbox::parse(line) {
            sound(&mailbox);
            let again = Mailbox::parse(&mailbox.to_string()).expect("an address is an address");
            assert_eq!(again.email, mailbox.email);
        }
    }
    let mut recipients = Recipients::of_commit(text.lines().next().unwrap_or_default(), &text);
    recipients.add_maintainers(&text);
    let all = || recipients.to.iter().chain(&recipients.cc);
    all().for_each(sound);
    for list in [&recipients.to, &recipients.cc] {
        assert!(list.len() <= 100 && list.is_sorted_by(|a, b| a.email <= b.email), "{}", quoted(list));
    }
    let mut emails: Vec<String> = all().map(|mailbox| mailbox.email.to_ascii_lowercase()).collect();
    emails.sort();
    assert!(emails.is_sorted_by(|a, b| a < b), "somebody is written to twice: {emails:?}");
});

fn sound(mailbox: &Mailbox) {
    let email = &mailbox.email;
    assert!(email.len() <= 254 && email.contains('@') && !email.starts_with('-'), "{email:?}");
    assert!(email.chars().all(|c| c.is_ascii_graphic() && !"<>()[]\",;:\\".contains(c)), "{email:?}");
}
