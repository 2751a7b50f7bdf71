//! Functions that never name a bug, because they only report it or do what their caller asked.
//!
//! Lists of patterns for whole names, by what the functions are for.

use std::sync::LazyLock;

use regex::{Regex, RegexBuilder};

use super::rules::Through;

/// Looked through in every report.
const ALWAYS: &[&str] = &[
    // printing the report
    r"_*dump_stack(?:_lvl|_print_info)?|_*show_stack(?:_log_lvl)?|show_trace\w*|dump_backtrace",
    r"unwind_backtrace|c_backtrace",
    r"_*show_regs|stack_trace_(?:save|consume)\w*|save_stack(?:_trace)?|walk_stackframe",
    r"arch_stack_walk\w*",
    r"print_(?:address_description|report|trailer|error|bad_pte|usage_bug|lock_invalid\w*|unlock_\w+|circular\w*|irq\w*|deadlock\w*|bad_\w+|kernel_ident|lock\w*)\w*",
    r"v?printk\w*|_+printk\w*|console_(?:unlock|flush\w*|emit\w*|trylock\w*)|call_console_drivers",
    r"_*warn_\w+|_+warn\w*|dev_v?printk\w*|_*(?:dev|netdev)_(?:printk|info|warn|err|notice|alert|crit|emerg|dbg)\w*|warn_slowpath\w*|warn_alloc\w*|report_bug\w*|fixup_bug\w*",
    r"panic|vpanic|nmi_panic|oops_(?:begin|end)|die|__die\w*|die_\w+|add_taint|check_panic_on_warn",
    r"bust_spinlocks",
    // exception entry
    r"(?:asm_)?(?:exc|sysvec)_\w+|handle_bug|do_error_trap|do_trap\w*|do_invalid_op|invalid_op",
    r"error_entry|fixup_exception",
    r"do_general_protection|general_protection|do_page_fault|page_fault|__do_page_fault",
    r"do_user_addr_fault|do_kern_addr_fault|no_context|__do_kernel_fault",
    r"do_translation_fault|do_mem_abort|do_DataAbort|do_PrefetchAbort|do_undefinstr|do_bad_area",
    r"page_fault_oops|kernelmode_fixup_or_oops|handle_page_fault|do_sea|do_sp_pc_abort",
    r"el[01]h?_\w*(?:sync|abort|dbg|undef|da|brk|bti|irq)\w*|el1t?_64_\w+|do_el0_\w+|brk_handler",
    r"bug_handler|bug_brk_handler|call_break_hook|do_debug_exception|kasan_(?:brk|handler)\w*",
    r"__und_svc\w*|__und_fault|handle_exception|do_trap_break|vectors",
    r"do_double_fault|df_debug|int3|do_int3",
    // panics of Rust code, and what checks and unwraps on behalf of the caller
    r"__rustc::rust_\w+|rust_begin_unwind|rust_panic\w*|rust_helper_\w+|<?(?:core|alloc)::[[:ascii:]]*",
    // assertions in functions of their own
    r"\w*assert_?fail\w*|assfail|asswarn|__cfi_\w+",
    // sanitizers
    r"k[acm]san_\w*|__k[acm]san_\w*|__(?:a|h|hw|kw|t)a?san_\w*|msan_\w+|__hwasan_\w*|__msan_\w*",
    r"kmsan\w*|__tsan_\w*|kfence_\w*|__kfence_\w*|check_memory_region\w*|memory_is_\w+",
    r"__sanitizer_\w*|__ubsan_\w*|ubsan_\w*|handle_overflow|val_to_string|end_report|start_report",
    r"report_enabled|check_canary\w*|__asan_\w*|assign_metadata_\w*|__internal_\w*poison\w*",
    r"describe_\w+|instrument_\w+|should_skip_validation|find_watchpoint|check_access|unpoison\w*",
    // copying and comparing on behalf of the caller
    r"(?:__|fortify_)?(?:mem(?:cpy|move|set|cmp|chr|scan|chr_inv|dup_user|dup)|str(?:n?cpy|n?cat|n?cmp|n?casecmp|n?chr|rchr|n?len|lcpy|scpy|lcat|n?str|sep|spn|cspn|pbrk|dup|ndup|reverse|scpy_pad))(?:_\w+)?",
    r"_*(?:raw_)?copy_(?:from|to|in)_(?:user|iter|iter_full|user_inatomic|kernel_nofault|user_nmi|user_mcsafe)\w*",
    r"\w*copy_(?:to|from|in)_user\w*|copy_user_\w+|copyin|copyout\w*|copy_page_\w*iter\w*",
    r"_*copy_iter\w*|_*copy_from_iter\w*|_*copy_to_iter\w*|csum_and_copy_\w+|iterate_(?:iovec|bvec|kvec|xarray|and_advance)\w*",
    r"_*clear_user\w*|rep_(?:movs|stos)\w*|clear_page_\w+|copy_page_?\w*|bcmp|csum_partial\w*|do_csum",
    r"_*might_fault|_*might_sleep\w*|_*might_resched\w*|__cant_\w+",
    r"v?s[cn]*printf|string|string_nocheck|pointer|number|format_decode|hex_dump_to_buffer|vsnprintf",
    r"kvasprintf\w*|kasprintf|__get_user_\w+|__put_user_\w+|get_unaligned\w*|put_unaligned\w*",
    r"memset\d+|memzero_explicit|__pi_(?:mem|str)\w+|__arch_(?:copy|clear)_\w*user\w*",
    // single words of memory
    r"_*(?:arch_|raw_|instrumented_)?(?:test_(?:and_\w+)?bit\w*|set_bit\w*|clear_bit\w*|change_bit\w*|constant_test_bit|variable_test_bit|find_(?:first|next|last)\w*_bit\w*)",
    r"_+(?:read|write)_once\w*|read_word_at_a_time|get_bit",
    r"(?:arch_|raw_|instrumented_)?_*atomic(?:64|_long)?_\w+|_*x?chg\w*|_*cmpxchg\w*",
    r"(?:queued|native_queued|arch)_(?:spin|read|write)_\w+|_*raw_(?:read|write)[bwlq]\w*",
    r"(?:in|out|logic_in|logic_out|_in|_out)[bwl]|_*(?:read|write)[bwlq](?:_relaxed)?|__xadd\w*",
    r"refcount_\w+|__refcount_\w+|kref_\w+|debug_(?:print_object|object_\w+|check_no_obj\w*)",
    r"__debug_\w+|debug_(?:timer|hrtimer|work|rcu_head|rcu|mutex|spin|rt)_\w+|init_timer_key",
    r"__init_work|init_timer_on_stack_key|rcu_(?:cblist|segcblist)_\w+|_*call_rcu\w*|kvfree_call_rcu",
    r"kfree_call_rcu\w*|__init_timer\w*|timer_fixup_\w+|assert_init\w*",
    // containers
    r"_*list_(?:add|del|move|splice|replace|empty|lru_(?:add|del)\w*)\w*|__hlist_\w+|hlist_\w+",
    r"_*rb_(?:erase|insert|next|prev|first|last|add|link|replace)\w*|plist_\w+|llist_\w+",
    r"klist_(?:put|next|del|remove)\w*",
    // taking and leaving locks
    r"_*(?:raw_)?(?:spin|read|write)_*(?:lock|unlock|trylock|locked)\w*|_+raw_(?:spin|read|write)_\w+",
    r"do_raw_(?:spin|read|write)_\w+|rwlock_\w+|spin_(?:dump|bug)|__spin_lock_\w+|spin_\w+",
    r"debug_spin_\w+|rwlock_bug|queued_\w+_slowpath|__pv_queued\w+|pv_\w+|virt_spin_lock|[a-z0-9]+_(?:write|read)_(?:un)?lock\w*",
    r"_*mutex_(?:un|try|is_)?lock\w*|_*mutex_\w+|_*ww_mutex_\w+|_*rt_mutex_\w*lock\w*|rt_mutex_\w+",
    r"rtlock_\w+|_*(?:down|up)_(?:read|write)\w*|_*rwsem_\w+|rwsem_\w+|call_rwsem_\w+",
    r"_*percpu_(?:down|up)\w+|_*down(?:_\w+)?|up|_*rt_spin_\w+|_*seqprop_\w+|seqcount_\w+|read_seq\w+",
    r"raw_spin_rq_\w+|write_seq\w+|_*bit_spin_\w+|__downgrade_\w+|lock_release_\w+|osq_\w+",
    r"_*lock_(?:acquire|release|acquired|contended|is_held|pin_\w+|unpin_\w+|downgrade|set_class)\w*",
    r"__lock_\w*|validate_chain",
    r"check_(?:prev\w*|noncircular\w*|irq_usage|deadlock|usage\w*|lock\w*|wait_context|flags|chain_key)",
    r"mark_(?:lock|held_locks|usage|lock_irq)\w*|register_lock_class|assign_lock_key",
    r"look_up_lock_class|find_held_lock|lockdep_\w+|debug_check_no_locks_\w+|debug_locks_\w+",
    r"reacquire_held_locks|valid_state|save_trace|debug_lockdep_\w+|trace_(?:hard|soft)irqs_\w+",
    r"hlock_class|check_critical_timing|invalid_wait\w*|percpu_rwsem_\w+|print_\w+_bug",
    // leaving interrupt-off sections, scheduling debugging
    r"(?:arch_)?local_(?:irq|bh)_\w+|__local_bh_\w+|_local_bh_\w+|(?:arch_)?irqs_disabled\w*|irq_(?:enter|exit)\w*",
    r"native_(?:irq\w*|save_fl|restore_fl|safe_halt|halt)|(?:arch_)?safe_halt",
    r"_*schedule_(?:bug|debug)\w*|schedule_debug|___?might_sleep|__might_resched",
    r"check_preemption_disabled|debug_smp_processor_id|__this_cpu_preempt_check",
    r"preempt_(?:count_\w+|schedule\w*)|_*preempt_\w+",
    r"rcu_(?:read_(?:lock|unlock)\w*|lock_acquire|lock_release|is_watching\w*|dynticks_\w+|note_context_switch|irq_\w+|nmi_\w+|eqs_\w+|user_\w+|lockdep\w*|momentary\w*|sleep_check|preempt_\w+)",
    r"_*rcu_(?:read|dereference)\w*|__srcu_read_(?:lock|unlock)\w*|trace_(?:event|raw_event|call)_\w+",
    r"trace_(?:preempt|irq|lock|kmalloc|kfree|kmem)\w*|__do_trace_\w+|perf_trace_\w+|srcu_\w+",
    // library code that does what it was told: objects, files in sysfs, ids, queues, checksums, ciphers
    r"_*kobject_\w+|kset_\w+|\w*device_(?:del|unregister|release|destroy|add|register|initialize)",
    r"device_release_driver\w*|get_device_parent|add_uevent_var",
    r"(?:dpm_|__?)?sysfs_\w+|_*kernfs_(?:remove|get|put|find)\w*",
    r"\w*devres_\w+|ida_\w+|ref_tracker_\w+|__?xa_\w+|xas_\w+",
    r"_*wake_up\w*|autoremove_wake_function|default_wake_function|try_to_wake_up|finish_wait",
    r"prepare_to_wait\w*|_*add_wait_queue\w*|complete(?:_all)?|complete_with_flags|swake_up\w*",
    r"wait_for_completion\w*|do_wait_for_common",
    r"_*queue_(?:delayed_)?work\w*|_*mod_delayed_work\w*|work_is_static_object|insert_work",
    r"_*flush_(?:work|workqueue)\w*|_*cancel_(?:delayed_)?work\w*|drain_workqueue|destroy_workqueue",
    r"kthread_(?:stop|queue_work|insert_work|park)\w*",
    r"worker_thread",
    r"(?:mod|add|del)_timer\w*|_*mod_timer\w*|timer_(?:delete|shutdown)\w*|del_timer_sync",
    r"try_to_del_timer\w*|hrtimer_(?:cancel|try_to_cancel|start)\w*|call_timer_fn|_*run_timers",
    r"expire_timers",
    r"drop_nlink|clear_nlink|inc_nlink|task_blocks_on_rt_mutex",
    r"crc\w+|_*crc32\w*|hex_string|hex2bin|bin2hex|aes\w*_\w+|(?:xts|cbc|ecb|gcm|ctr)_\w*crypt\w*|usb_submit_urb|get_taint|test_taint|cleanup_srcu_struct|_*sha\d\w*|chacha\w*",
    r"_*crypto_\w+|skcipher_\w+",
    r"\w*unregister_netdev\w*|rollback_registered\w*|(?:tty|i2c|usb|input|video|spi)_(?:unregister_device|del_adapter|deregister)",
    r"usb_start_wait_urb|usb_\w+_msg|simple_copy_to_iter|copy_to_iter",
    r"__x86_(?:indirect_thunk|return_thunk)\w*|__llvm_\w*|retpoline\w*|_stext",
    r"_*lock_page|unlock_page|_*folio_(?:lock|unlock)\w*|page_(?:ref|count|mapcount)\w*|mark_buffer_dirty",
    r"\w*iput|\w*dput\w*|\w*brelse|do_tag_check_\w+|bad_mode_\w+",
    // handing out and taking back memory
    r"\w*[mzc]alloc\w*|k\w*realloc\w*|_*kmem_cache_(?:alloc|free)\w*",
    r"\w*kv?free\w*|slab_\w+|_*slab_\w+|___slab_alloc|allocate_slab|new_slab",
    r"_*do_kmalloc\w*|_*cache_(?:alloc|free|flusharray|grow)\w*|__check_(?:object_size|heap_object)",
    r"check_heap_object|usercopy_\w+|quarantine_\w+|qlist_\w+|do_slab_free|_*memcg_slab\w*",
    r"vmalloc_\w*fault|_*vmalloc\w*|v[zm]alloc\w*|__vmalloc_\w+|vfree|vfree_atomic|krealloc\w*",
    r"alloc_pages\w*|_*alloc_pages\w*|_*alloc_frozen\w*|__folio_alloc\w*|get_page_from_freelist",
    r"prep_new_page|get_free_pages\w*|_*get_free_pages?|free_(?:pages?|unref_page|pcp)\w*",
    r"__free_pages?\w*|bad_page|check_(?:slab|object|bytes_and_report|new_page\w*|free_page\w*)",
    r"free_debug_processing|alloc_debug_processing|object_err|slab_err|slab_fix",
    r"free_(?:to_partial_list|consistency_checks)|free_pages_\w+|_*kmem_\w+|__alloc_skb_pad",
    r"sized_strscpy|post_alloc_hook|should_fail\w*|fault_create\w*|fail_dump|__should_fail\w*",
    r"discard_slab|free_slab|__free_slab|rcu_free_slab|kunit_\w*kmalloc\w*|percpu_ref_\w+",
    r"__percpu_ref_\w+",
    // list debugging and other asserting helpers
    r"_*list_(?:add|del)_\w*valid\w*|usercopy_abort|fortify_panic|__fortify_\w+|__stack_chk_fail",
    r"__get_vm_area_node|__warn_\w+|proc_register|proc_create\w*|proc_mkdir\w*|debug_objects_\w+|kobject_add\w*bug|schedule_bug",
    r"skb_(?:over_|under_)?panic|skb_(?:put|push|pull)|unwind_\w+|__unwind_(?:next|get)\w+",
    r"update_stack_state|deref_stack_reg|orc_find|get_stack_info|in_(?:task|irq|entry)_stack",
    r"kernel_text_address|__kernel_text_address|is_\w+_stack|native_\w*(?:read|write)\w*msr\w*",
    r"stack_access_ok|depot_\w+|stack_depot_\w+|__stack_depot\w+|__read_once_\w+",
];

/// Functions that take and drop references for who counts them wrongly.
const REFERENCES: &[&str] = &[r"put_device|get_device|consume_skb|\w*fput|sock_put"];

/// Functions that take a lock for who passed a broken one.
const LOCKING: &[&str] = &[r"_*lock_sock\w*|release_sock|\w+_lock_nested"];

/// Functions that start, stop, run and free tracked objects for their owners.
const OBJECTS: &[&str] = &[r"\w*timer\w*|\w*rcu\w*|\w*debug_\w+|\w*_work(?:_on|_sync)?"];

/// Functions in which tasks wait for what they were promised.
const WAITING: &[&str] = &[
    r"console_lock|process_(?:one_work|scheduled_works)|worker_thread|_*wait_rcu_gp|do_read_cache_\w+|_*schedule\w*|context_switch|io_schedule\w*|schedule_timeout\w*",
    r"_*wait_on_(?:bit|page|buffer)\w*|bit_wait\w*|out_of_line_wait\w*",
    r"_*wait_(?:for_)?(?:common|completion|event)\w*|do_wait_for_common|_*wait_for_\w*common",
    r"wait_for_completion\w*|do_wait_\w*|prepare_to_wait\w*|finish_wait|wait_woken|_*switch_to\w*",
    r"_*down_\w+|preempt_\w+|folio_wait_\w+|_*folio_lock\w*|_*lock_page\w*|_*lock_(?:sock|buffer)\w*",
    r"lock_(?:super|mount|two\w*)|wait_on_page_bit_common|rcu_barrier_\w*wait|percpu_\w+wait\w*",
    r"flush_(?:work|workqueue|delayed_work)\w*|_*flush_(?:work|workqueue)\w*|__cancel_work\w*",
    r"cancel_(?:delayed_)?work_sync|sleep_on_\w+|usleep\w*|msleep\w*|schedule_preempt_disabled",
    r"do_nanosleep|hrtimer_nanosleep|refrigerator|try_to_freeze\w*|__refrigerator|wb_wait_for_\w+",
    r"blk_mq_freeze_queue_wait|_*synchronize_(?:hardirq|irq|net)|jbd2_log_wait\w+|rt_mutex_schedule",
    r"rwbase_\w+|kthread_(?:park|stop\w*)|wait_current_trans|kthread_stop|freezable_\w+|do_fcntl_wait",
    r"__mutex_\w+|mark_\w+lock",
];

/// Functions that allocate on behalf of who forgot to free.
const ALLOCATION: &[&str] = &[
    r"create_object|kmemleak_\w+|_*list_lru_init\w*|kobject_init_and_add|[a-z]+_map_alloc(?:_\w+)?",
    r"sget_userns|alloc_super",
    r"(?:__)?(?:alloc_skb|netdev_alloc_skb|napi_alloc_skb|build_skb|dev_alloc_skb|skb_clone|skb_copy|pskb_\w+)\w*",
    r"sk_(?:prot_)?alloc|sock_(?:k?malloc|alloc|alloc_inode|wmalloc|kzalloc)\w*|__sock_create",
    r"sock_alloc_send_\w+|inet6?_alloc\w*",
    r"alloc_(?:inode\w*|netdev_mqs|etherdev\w*|file\w*|empty_file\w*|fdtable|super|vfsmnt|percpu\w*|workqueue\w*|bio\w*|buffer_head|pid|disk\w*|page_buffers|ep_\w+)",
    r"pcpu_\w+|_*alloc_percpu\w*|new_inode\w*|__d_alloc|d_alloc\w*|radix_tree_node_alloc|xas_alloc",
    r"idr_\w+|mempool_\w+|getname\w*|bpf_(?:map_)?area_\w*alloc\w*|__bpf_map_area_alloc|devm_k\w+",
    r"kstrdup\w*|kmemdup\w*|v?memdup_\w+|kobject_\w*create\w*|kobject_set_name\w*|dev_set_name",
    r"prealloc_shrinker|security_\w+alloc\w*|lsm_\w+alloc\w*|dup_task_struct|copy_process|mm_alloc",
    r"vm_area_(?:alloc|dup)|kmem_\w+|__kernfs_iattrs|bio_alloc\w*|array_\w*alloc\w*|kv?malloc\w*",
    r"_*vmalloc\w*|pidfd\w*|__do_kmalloc\w*|netlink_alloc\w*|nlmsg_new|sbitmap_\w+|blk_alloc\w+",
    r"crypto_\w*alloc\w*|alloc_pages_\w+",
];

fn names(lists: &[&[&str]]) -> Regex {
    let parts: Vec<String> =
        lists.iter().flat_map(|list| list.iter()).map(|part| format!("(?:{part})")).collect();
    let whole = format!("^(?:{})$", parts.join("|"));
    // Without Unicode classes the automaton is a hundred times smaller.
    RegexBuilder::new(&whole).unicode(false).build().expect("helper lists are valid patterns")
}

static HELPERS: LazyLock<Regex> = LazyLock::new(|| names(&[ALWAYS]));
static WAITING_HELPERS: LazyLock<Regex> = LazyLock::new(|| names(&[ALWAYS, WAITING]));
static ALLOCATION_HELPERS: LazyLock<Regex> = LazyLock::new(|| names(&[ALWAYS, ALLOCATION]));
static REFERENCE_HELPERS: LazyLock<Regex> = LazyLock::new(|| names(&[ALWAYS, REFERENCES]));
static LOCKING_HELPERS: LazyLock<Regex> = LazyLock::new(|| names(&[ALWAYS, LOCKING]));
static OBJECT_HELPERS: LazyLock<Regex> = LazyLock::new(|| names(&[ALWAYS, OBJECTS]));

/// Says whether a function never names a crash of a family that looks through `through`.
pub(super) fn is_helper(function: &str, through: Through) -> bool {
    match through {
        Through::Nothing => HELPERS.is_match(function),
        Through::Waiting => WAITING_HELPERS.is_match(function),
        Through::Allocation => ALLOCATION_HELPERS.is_match(function),
        Through::References => REFERENCE_HELPERS.is_match(function),
        Through::Locking => LOCKING_HELPERS.is_match(function),
        Through::Objects => OBJECT_HELPERS.is_match(function),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_a_bug_and_who_does_not() {
        let check = |names: &str, through: Through, expected: bool| {
            for name in names.split_whitespace() {
                assert_eq!(is_helper(name, through), expected, "{name} {through:?}");
            }
        };
        check(
            "dump_stack_lvl print_address_description kasan_report __asan_report_load8_noabort panic __warn
             report_bug do_error_trap exc_invalid_op asm_exc_page_fault die memcpy strnlen _copy_from_user
             bpf_prog_copy_to_user copyin vsnprintf kasprintf __list_add_valid list_del __queue_work flush_work
             cancel_work_sync del_timer_sync refcount_inc kref_put lock_acquire mutex_lock_nested down_read
             rt_spin_lock __kmalloc kmem_cache_alloc kvmalloc_node bpf_map_kzalloc vfree kfree_skb_list
             kobject_put sysfs_remove_group usb_submit_urb assfail btrfs_assertfail core::option::unwrap_failed
             _dev_warn netdev_warn __x86_indirect_thunk_rax perf_trace_lock __might_fault",
            Through::Nothing,
            true,
        );
        check(
            "lock_sock_nested release_sock iterate_supers iterate_dir irq_bypass_register_consumer put_device
             rb_alloc ext4_writepages request_wait_answer skb_dequeue pskb_expand_head __radix_tree_lookup
             idr_for_each rtnl_lock synchronize_rcu do_exit sock_sendmsg hci_register_dev",
            Through::Nothing,
            false,
        );
        check(
            "schedule io_schedule wait_on_page_bit wait_for_completion __mutex_lock",
            Through::Waiting,
            true,
        );
        check("request_wait_answer synchronize_rcu rtnl_lock p9_client_rpc", Through::Waiting, false);
        check("sk_alloc alloc_skb new_inode kmemdup create_object", Through::Allocation, true);
        check("put_device sock_put", Through::References, true);
        check("lock_sock_nested", Through::Locking, true);
        check("call_timer_fn init_timer_key", Through::Objects, true);
    }
}
