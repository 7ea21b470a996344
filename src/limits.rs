//! Every bound by name, where the number came from, and the relations between them.
//!
//! What an operator may set lives in `config`; what is fixed lives here.

use std::time::Duration;

/// Completions handled in one tick before the shard hears its mailboxes again. A completion
/// costs about a microsecond, so a tick stays near a millisecond even when all are used.
pub const COMPLETIONS_PER_TICK_MAX: usize = 1024;

/// Letters heard from each mailbox in one tick.
pub const LETTERS_PER_TICK_MAX: usize = 512;

/// Timers fired in one tick. A crowd that came at once is looked at, pinged or turned away at
/// once; at about two microseconds each, this keeps such a tick below 10 ms.
pub const TIMERS_PER_TICK_MAX: usize = 4096;

/// Channels forgotten in one tick: they may all have been deserted at once.
pub const CHANNELS_EXPIRED_PER_TICK_MAX: usize = 1024;

/// Letters that wait in a mailbox between two shards. Beyond it the sender keeps its letter
/// and stops reading from the clients whose requests need that shard.
pub const MAILBOX_LETTERS_MAX: usize = 4096;

/// Bytes of one place in each of a shard's three mailboxes (requests, deliveries, notes) together;
/// `shard::mailbox` asserts it. The places are there from the start.
pub const MAILBOX_PLACE_BYTES_MAX: usize = 320;

/// Bytes that the letters of one mailbox may point to: payloads, messages, names. Enough for a
/// tick of the shard that hears them (a GB/s at a tick of 2 ms), and 4096 letters of any size a
/// client may send would be beyond every memory budget.
pub const MAILBOX_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Sends given to the kernel in one submission, so that receives interleave (64 to 256 measured
/// alike).
pub const SENDS_PER_SUBMISSION_MAX: usize = 128;

/// Bytes of messages of one channel that one tick puts into one shared segment. A slow client
/// keeps whole segments alive, so a segment is small beside an outbox (64 KiB).
pub const SEGMENT_BYTES_MAX: usize = 32 * 1024;

/// Bytes gathered for one client in one send. The kernel's send buffer is smaller than that in
/// nearly every configuration; more would only be cut.
pub const GATHERED_BYTES_MAX: usize = 256 * 1024;

/// The same where what is gathered may grow too old. The kernel looks at `notsent_lowat_bytes` before
/// it takes a send and then takes all of it, and what it has taken nobody can drop: over
/// 64 kbit/s, these are one second.
pub const GATHERED_FRESH_BYTES_MAX: usize = 8 * 1024;

/// Bytes in the reply lane of one client above which nothing more is read from it: a client that
/// floods pings or does not read its replies waits for itself.
pub const REPLIES_BYTES_MAX: usize = 16 * 1024;

/// Publishes of one client whose answers are awaited from other shards, above which nothing more is
/// read from it: the answers may all come at once, and to a full socket. Several times what one
/// receive brings, so who publishes fast is not slowed down by it.
pub const PUBLISHES_UNANSWERED_MAX: u32 = 512;

/// Pages of histories that one shard gives out in a tick, or waits for from other shards.
pub const RECALLS_AT_ONCE_MAX: usize = 32;

/// Bytes of histories above which one shard gives out no further page in a tick: several small pages,
/// or one. Whoever was not away waits for its message no longer than the kernel takes them, and those
/// who were are served no later: every page is a send of its own anyway.
pub const RECALLED_BYTES_PER_TICK_MAX: u32 = 16 * 1024;

/// Bytes of one page of a history, about: a larger message is a page of its own. With a quarter of
/// it, those who were away are served 1.5 to 1.7 times later, at as much more CPU, and whoever was
/// not waits about as long as with this (`resume` of `ringcast-bench`, both drivers).
pub const RECALL_PAGE_BYTES_MAX: u32 = 64 * 1024;

/// Messages in the answer to one `history` request.
pub const HISTORY_PAGE_MESSAGES_MAX: u32 = 1_000;

/// Segments of a pattern that a client subscribes to: a hierarchy twice as deep as any seen, and how
/// deep a trie of patterns can get.
pub const PATTERN_SEGMENTS_MAX: usize = 16;

/// Wildcards of such a pattern. Each can double the ways by which a name may run through the trie.
pub const PATTERN_WILDCARDS_MAX: usize = 8;

/// Patterns that one client may be subscribed to.
pub const PATTERNS_PER_CLIENT_MAX: usize = 16;

/// Channels that a client is subscribed to by patterns only, beside `channels_per_client_max`. One
/// more ends the pattern. The lists of a client are searched from their beginning: with so many,
/// somebody who comes or goes costs about a millisecond.
pub const MATCHED_CHANNELS_PER_CLIENT_MAX: usize = 1024;

/// Places of a shard's table of channels that one tick looks at for new patterns, at some ten
/// nanoseconds each: a hundred thousand channels take some ten ticks.
pub const TOPICS_LOOKED_AT_PER_TICK_MAX: usize = 8192;

/// Channels that one tick finds to match new patterns. Each is told to another shard in a letter, of
/// which a mailbox holds sixteen times as many.
pub const TOPICS_FOUND_PER_TICK_MAX: usize = 256;

/// The part of a shard's memory for messages that patterns, and subscriptions by patterns, may take:
/// one in so many.
pub const PATTERNS_MEMORY_PART: usize = 8;

/// What a pattern costs beside its bytes, which are kept twice: entries of tables and lists.
pub const PATTERN_PLACE_BYTES: usize = 192;

/// What each segment of a pattern costs in a trie.
pub const PATTERN_SEGMENT_BYTES: usize = 160;

/// What a subscription by a pattern costs: its places in the lists of the client and of the channel.
pub const MATCH_PLACE_BYTES: usize = 48;

/// What stands in front of a channel's name in the name of the channel where it is told who comes and
/// goes. Both have the same home.
pub const PRESENCE_PREFIX: &str = "presence:";

/// Bytes of the name that a client gives itself: an address of electronic mail that is a long one, or
/// a UUID and to spare.
pub const USER_BYTES_MAX: usize = 64;

/// Names in one message about who has come or gone: at 64 bytes each a message stays near 8 KiB, an
/// eighth of what a client may have waiting.
pub const PRESENCE_USERS_PER_EVENT_MAX: usize = 100;

/// Users that come and go in one interval and are told by name. Beyond it they are told as numbers:
/// who wants the names asks for the list, which is hardly longer then.
pub const PRESENCE_CHANGES_TOLD_MAX: usize = 1_000;

/// Users in the answer to one `presence` request.
pub const PRESENCE_PAGE_USERS_MAX: u32 = 1_000;

/// Bytes of the names in that answer, about: twice what a client may leave unread before nothing more
/// is read from it.
pub const PRESENCE_PAGE_BYTES_MAX: usize = 32 * 1024;

/// Users whose coming and going one letter tells: a mailbox has room for some hundred such letters.
pub const PRESENCE_CHANGES_PER_LETTER_MAX: usize = 256;

/// Users whose time has come that are looked at in one tick: a shard with all of its clients may have
/// gone, and at half a microsecond each they take two milliseconds.
pub const PRESENCE_DUE_PER_TICK_MAX: usize = 4_096;

/// What a user costs beside the name: entries of the list, of the queue of those who have left, and of
/// what is to be told.
pub const PRESENCE_PLACE_BYTES: usize = 160;

/// The part of a shard's memory for messages that lists of users may take: one in so many.
pub const PRESENCE_MEMORY_PART: usize = 8;

/// What a client may ask of one channel before the home has answered its `since`.
pub const RECOVERY_WISHES_MAX: usize = 16;

/// Bytes of the key of a publish: room for a UUID in quotes and to spare.
pub const PUBLISH_KEY_BYTES_MAX: usize = 128;

/// What a remembered key costs beside its bytes: two list entries and a counter.
pub const KEY_PLACE_BYTES: usize = 96;

/// The part of a shard's memory for messages that remembered keys may take: one in so many.
pub const KEYS_MEMORY_PART: usize = 16;

/// Bytes of events that are written for a client that listens over HTTP and have not left. Beyond them
/// its messages wait in its queue, where the channels' rules are.
pub const EVENTS_WRITTEN_BYTES_MAX: usize = 16 * 1024;

/// How long a poll waits that does not say so: below the half minute after which the impatient among
/// proxies give up.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(25);

/// How long a poll may wait.
pub const POLL_TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// Milliseconds after which a browser comes back to a stream that has ended. Chromium waits three
/// seconds if nobody says so.
pub const STREAM_RETRY_MS: u32 = 2_000;

/// Keys of one conflated channel whose newest messages wait for the end of an interval: more than an
/// exchange has symbols. Beyond it what waits leaves before its time.
pub const CONFLATION_KEYS_MAX: usize = 10_000;

/// Bytes of the name of the member that is the key.
pub const CONFLATION_KEY_NAME_BYTES_MAX: usize = 64;

/// What a waiting message costs beside the bytes of key and payload: a table entry, its number and
/// time.
pub const CONFLATION_PLACE_BYTES: usize = 96;

/// The part of a shard's memory for messages that may wait for the end of an interval: one in so many.
pub const CONFLATION_MEMORY_PART: usize = 16;

/// Different intervals at which the messages of one channel are sent, its own always among them: each
/// costs a copy of what waits. The reason of an error says the number in words.
pub const CONFLATION_INTERVALS_MAX: usize = 8;

/// The longest interval that a rule or a client may ask for: who wants less than a message a minute
/// asks when it wants one.
pub const CONFLATION_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Groups of conflated channels that are looked at in one tick because they are due.
pub const CONFLATION_GROUPS_DUE_PER_TICK_MAX: usize = 1024;

/// Bytes of an HTTP request head. nginx takes 8 KiB a line, Node 16 KiB in all; an upgrade
/// request with a fat cookie fits 8 KiB.
pub const REQUEST_HEAD_BYTES_MAX: usize = 8 * 1024;

/// Header fields of an HTTP request head. Browsers send 15 to 20.
pub const REQUEST_HEADERS_MAX: usize = 64;

/// Bytes behind a chunk's size, up to its line end: extensions, which nobody uses and everybody
/// has to skip.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;

/// RFC 6455 5.5: control frames carry at most 125 bytes.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// Bytes of a message below which it is not compressed: JSON begins to gain at about 130 bytes
/// (a fifth at 170), and trying costs ten microseconds.
pub const COMPRESSED_PAYLOAD_BYTES_MIN: usize = 128;

/// Blocks of a compressed message that claim to be the last one of all. After each the window has
/// to be set up anew, which costs about a microsecond; whoever flushes so, writes one a message.
pub const FINAL_BLOCKS_PER_MESSAGE_MAX: u32 = 8;

/// Bytes of a channel's name.
pub const CHANNEL_NAME_BYTES_MAX: usize = 255;

/// Bytes of a request's `id`, echoed in the answer: room for a UUID in quotes and to spare.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Bytes of a buffer that a shard keeps for what came in another dialect than JSON: most messages are
/// far below the default of message_bytes_max, and a larger buffer is made for each that is not.
pub const TEXT_KEPT_BYTES_MAX: usize = 64 * 1024;

/// Depth of nesting in a JSON message. Deeper ones are refused, not parsed with a deep stack.
pub const JSON_DEPTH_MAX: usize = 128;

/// Bytes of the largest message an operator may allow.
pub const MESSAGE_BYTES_MAX_MAX: usize = 16 * 1024 * 1024;

/// Shards in one process: far above any edge box, small enough for a table.
pub const SHARDS_MAX: usize = 256;

/// How long a channel that nobody subscribes or publishes to keeps its numbering (`epoch` and `seq`).
pub const CHANNEL_IDLE: Duration = Duration::from_secs(60);

/// Bytes read and thrown away from a peer whose connection ended with an error, so that the
/// close frame or the status reaches it before a reset can overtake it.
pub const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Silence after which a socket is kept the cheap way (a poll instead of an armed receive). Long
/// enough for a client to subscribe after it has connected, short enough that a crowd which comes at
/// once and then is silent has few requests armed at a time (the kernel keeps their memory).
pub const QUIET_AFTER: Duration = Duration::from_millis(250);

/// How long accepting rests after the kernel refused for want of descriptors or memory.
pub const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Time between two log lines that say that accepting fails. It is tried again ten times a second,
/// and a full disk of warnings helps nobody; the metric counts each.
pub const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// One step of the timer wheel: what a deadline may be late by.
pub const WHEEL_STEP: Duration = Duration::from_millis(16);

const _: () = assert!(REPLIES_BYTES_MAX > CONTROL_PAYLOAD_BYTES_MAX + 4);
const _: () = assert!(SEGMENT_BYTES_MAX <= GATHERED_BYTES_MAX);
const _: () = assert!(COMPLETIONS_PER_TICK_MAX >= SENDS_PER_SUBMISSION_MAX);
