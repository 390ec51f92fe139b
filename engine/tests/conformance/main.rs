//! What every engine must do, whatever it is made of.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // tests fail by panics, and wait for a real kernel

mod bytes_in_and_out;
mod connections;
mod ends;
mod harness;
mod mail_and_time;
mod push_back;
mod rings;

use engine::Kind;

/// Runs a test on `kind`, where the kernel allows that.
fn on(kind: Kind, test: fn(Kind)) {
    match engine::choose(Some(kind)) {
        Ok(_) => test(kind),
        Err(error) => println!("skipped: {error}"),
    }
}

/// The same on the `uring` engine with nearly every connection in a further ring.
fn on_rings(kind: Kind, test: fn(Kind)) {
    harness::FEW_FILES_A_RING.set(true);
    on(kind, test);
}

macro_rules! conformance {
    ($($topic:ident: $($test:ident)*;)*) => {
        conformance!(@ uring Uring on $($topic: $($test)*;)*);
        conformance!(@ uring_rings Uring on_rings $($topic: $($test)*;)*);
        conformance!(@ monoio Monoio on $($topic: $($test)*;)*);
        conformance!(@ epoll Epoll on $($topic: $($test)*;)*);
        #[cfg(feature = "glommio")]
        conformance!(@ glommio Glommio on $($topic: $($test)*;)*);
    };
    (@ $module:ident $kind:ident $on:ident $($topic:ident: $($test:ident)*;)*) => {
        mod $module {
            $($(
                #[test]
                fn $test() {
                    super::$on(super::Kind::$kind, super::$topic::$test);
                }
            )*)*
        }
    };
}

conformance! {
    bytes_in_and_out:
        echo_comes_back
        split_reads_keep_order
        a_slow_reader_gets_everything
        a_fast_writer_is_read_completely
        more_data_than_receive_buffers
        a_turn_receives_a_bounded_number_of_times
        sent_tells_the_size_of_each_batch;
    ends:
        a_reset_closes_with_reset
        a_half_closed_connection_is_still_answered
        a_flush_delivers_the_last_bytes_although_the_peer_goes_on_sending
        a_flush_ends_after_the_linger_time
        a_flush_can_become_an_abort
        an_abort_resets
        stop_ends_everything
        a_panic_is_an_error_of_join;
    connections:
        names_are_reused_with_another_generation
        thousands_connect_at_once
        a_connect_can_choose_its_source
        a_refused_connect_says_so
        stop_accepting_refuses_and_keeps_what_is_open
        a_port_in_use_is_an_error
        each_shard_can_listen_alone
        a_connection_says_which_listener_took_it
        a_full_shard_refuses
        out_of_files_is_survived;
    mail_and_time:
        mail_goes_both_ways_between_control_and_shards
        what_a_turn_leaves_is_done_in_the_next
        full_mailboxes_lose_nothing_and_keep_order
        a_pushed_back_shard_reads_no_socket
        mail_that_waits_holds_the_clients_of_all_shards_and_no_link
        timeouts_are_never_early
        a_shard_that_stood_still_reads_before_its_deadlines_pass
        the_wall_clock_is_told_where_it_differs;
    push_back:
        a_core_holds_accepted_connections_while_opened_ones_go_on
        pushing_back_again_and_again_loses_nothing
        much_that_is_held_keeps_its_order
        what_is_held_does_not_delay_an_end
        a_flush_ends_with_a_fin_that_is_held
        a_flush_ends_with_a_fin_that_came_behind_what_is_held
        a_pushed_back_core_still_accepts_and_answers;
}
