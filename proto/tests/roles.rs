//! Every RPC of the protocol is in the table of who may call it, and nothing else is.

use kulprit_common::access::METHODS;
use std::collections::BTreeSet;

#[test]
fn every_rpc_is_in_the_table_of_roles() {
    let root = env!("CARGO_MANIFEST_DIR");
    let files: Vec<String> = std::fs::read_dir(format!("{root}/kulprit/v1"))
        .expect("the protocol is there")
        .map(|entry| format!("kulprit/v1/{}", entry.expect("listed").file_name().to_string_lossy()))
        .collect();
    let compiled = protox::compile(&files, [root]).expect("the protocol compiles");
    let mut calls = BTreeSet::new();
    for file in &compiled.file {
        for service in &file.service {
            for method in &service.method {
                calls.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    assert!(calls.len() >= 16, "{calls:?}");
    let listed: BTreeSet<String> = METHODS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .filter(|name| name.starts_with("kulprit."))
        .collect();
    assert_eq!(listed, calls);
    assert_eq!(
        METHODS.len(),
        METHODS.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(),
        "once each"
    );
}
