//! One suite for every driver: what `Driver` promises, held against real sockets.
//!
//! Reading order: `world` (the harness, which checks the rules that hold at every moment), then
//! any of the others; each is generic over the driver and knows none of them.
//!
//! Where io_uring is missing its tests fail, because a suite that silently tests less proves
//! less; `RINGCAST_TEST_WITHOUT_URING=1` says that this is known.

mod accepting;
mod breaking;
mod receiving;
mod schedules;
mod sending;
mod waking;
mod world;

use ringcast::io::epoll::Epoll;
use ringcast::io::uring::Uring;
use ringcast::io::{Driver, Settings};

/// Makes one kind of driver, on the thread that will use it.
pub(crate) trait Kind: 'static {
    /// What it makes.
    type Driver: Driver;
    /// Whether its sockets use up the process's descriptors.
    const REGULAR: bool;
    /// Whether each socket is said to be quiet as soon as it is there, so that the claims are
    /// held against the way in which silent sockets are kept.
    const QUIET: bool = false;
    /// A driver with these settings, changed as its kind wants them.
    fn make(settings: &Settings) -> Self::Driver;
    /// Whether this machine can run it.
    fn is_there() -> bool {
        true
    }
}

struct EpollKind;

impl Kind for EpollKind {
    type Driver = Epoll;
    const REGULAR: bool = true;

    fn make(settings: &Settings) -> Epoll {
        Epoll::new(settings).expect("an epoll driver")
    }
}

/// DIRECT: descriptors of the ring's own. SILENT: whole sends post no completion.
struct UringKind<const DIRECT: bool, const SILENT: bool>;

impl<const DIRECT: bool, const SILENT: bool> Kind for UringKind<DIRECT, SILENT> {
    type Driver = Uring;
    const REGULAR: bool = !DIRECT;

    fn make(settings: &Settings) -> Uring {
        let settings = Settings { direct: DIRECT, sends_skip_success: SILENT, ..settings.clone() };
        Uring::new(&settings).expect("an io_uring driver (RINGCAST_TEST_WITHOUT_URING=1 to skip)")
    }

    fn is_there() -> bool {
        std::env::var_os("RINGCAST_TEST_WITHOUT_URING").is_none_or(|value| value != "1")
    }
}

/// The kind `K`, whose sockets are quiet from the start.
struct Quiet<K>(K);

impl<K: Kind> Kind for Quiet<K> {
    type Driver = K::Driver;
    const REGULAR: bool = K::REGULAR;
    const QUIET: bool = true;

    fn make(settings: &Settings) -> Self::Driver {
        K::make(settings)
    }

    fn is_there() -> bool {
        K::is_there()
    }
}

macro_rules! contract {
    ($($(#[$note:meta])* $name:ident: $kind:ty;)*) => {$(
        $(#[$note])*
        mod $name {
            contract!(@claims $name, $kind,
                accepting {
                    a_burst_of_500_connects_is_accepted_with_the_right_peers
                    stopping_reports_what_was_accepted_and_then_that_it_is_closed
                    without_room_accepting_pauses_until_resumed
                    without_descriptors_accepting_pauses_until_resumed
                    a_released_socket_lives_on_in_another_threads_driver
                }
                sending {
                    bytes_arrive_whole_and_in_order_through_a_slow_reader
                    a_full_socket_takes_nothing_and_is_writable_once
                    gathers_of_1_to_64_slices_arrive_in_order
                    two_thousand_are_sent_to_in_one_call
                    full_and_free_sockets_keep_their_places_in_one_call
                    a_send_to_a_closed_socket_fails_and_harms_no_other
                    tiny_queues_neither_lose_bytes_nor_misjudge_sends
                }
                receiving {
                    nothing_is_lost_when_buffers_run_out
                    the_end_is_told_once_and_sending_goes_on
                    the_end_is_told_after_the_bytes_in_one_segment
                    shutdown_sends_a_fin_and_receiving_goes_on
                    a_paused_idle_socket_is_silent_and_loses_nothing
                    a_paused_chatty_socket_is_silent_and_loses_nothing
                    the_end_of_a_paused_socket_waits_for_resume
                    what_arrives_during_sends_keeps_its_order
                    two_thousand_sockets_echo
                }
                breaking {
                    close_sends_a_fin_at_once_to_idle_chatty_and_paused_peers
                    a_reset_before_the_first_byte_is_told_once
                    a_reset_after_bytes_is_told_after_them
                    a_reset_in_the_middle_of_sending_is_told
                    a_reset_that_a_send_met_first_ends_the_stream_all_the_same
                    a_reset_after_the_end_shows_in_sends
                    a_reset_while_paused_is_told_after_resume
                    a_slot_reused_at_once_never_hears_its_predecessor
                    a_dropped_driver_closes_its_sockets
                    closing_after_shutdown_closes_the_right_socket
                }
                schedules {
                    seeded_schedules_lose_double_and_reorder_nothing
                }
                waking {
                    ten_thousand_wakes_from_four_threads_are_never_lost
                    a_wake_ends_an_endless_rest_every_time
                    a_rest_ends_in_time
                }
            );
        }
    )*};
    (@claims $name:ident, $kind:ty, $($file:ident { $($claim:ident)* })*) => {$($(
        #[test]
        fn $claim() {
            use $crate::*;
            if <$kind as Kind>::is_there() {
                world::bounded($file::$claim::<$kind>);
            }
        }
    )*)*};
}

contract! {
    epoll: EpollKind;
    uring_regular: UringKind<false, true>;
    uring_direct: UringKind<true, true>;
    /// What the driver falls back to where the self-test of its sends fails.
    uring_answered_sends: UringKind<false, false>;
    uring_regular_quiet: Quiet<UringKind<false, true>>;
    uring_direct_quiet: Quiet<UringKind<true, true>>;
}
