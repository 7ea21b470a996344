//! Whoever comes back, beside whoever was not away.

use super::*;
use crate::hub::{ChannelRule, Retention};
use crate::limits::RECALLED_BYTES_PER_TICK_MAX;

/// Messages of the channel `missed`: they fit into one page, and two such pages are more than a tick
/// gives out.
const MESSAGES: usize = 16;
const PAYLOAD_BYTES: usize = 900;
const _: () = assert!(MESSAGES * (PAYLOAD_BYTES + 100) < RECALLED_BYTES_PER_TICK_MAX as usize);
const _: () = assert!(2 * MESSAGES * PAYLOAD_BYTES > RECALLED_BYTES_PER_TICK_MAX as usize);

/// What was seen: while 10,000 clients caught up, a message for somebody else waited until the kernel
/// had taken 32 of their pages, for milliseconds. Why: they were given out before what had been
/// published, and counted by page.
#[test]
fn who_comes_back_is_served_behind_who_was_not_away_and_only_so_much_in_a_tick() {
    let history = Retention { messages: 100, age: Duration::from_secs(60), bytes: 100_000 };
    let rule = Rule { history, ..Rule::default() };
    let rules = vec![ChannelRule { pattern: "missed".into(), rule }];
    let mut one = One::with_rules(1 << 20, 1, MailboxRoom::default(), rules);
    one.text(r#"{"type":"subscribe","channel":"live"}"#);
    let payload = "x".repeat(PAYLOAD_BYTES);
    for _ in 0..MESSAGES {
        one.text(&format!(r#"{{"type":"publish","channel":"missed","payload":"{payload}"}}"#));
    }
    let returning: Vec<_> = (1..=6).map(|index| one.connect(index)).collect();
    for socket in &returning {
        one.send_from(*socket, UPGRADE);
    }
    let ask = r#"{"type":"subscribe","channel":"missed","since":{"last":100}}"#;
    for socket in &returning {
        one.arrives(*socket, &frame(Opcode::Text, ask.as_bytes()));
    }
    let publish = br#"{"type":"publish","channel":"live","payload":1}"#;
    one.arrives(SOCKET, &frame(Opcode::Text, publish));
    let before = one.shard.driver.sent_to.len();
    let caught_up = |one: &One| {
        let heard = |socket| one.said_to(socket).matches(r#""type":"message""#).count();
        returning.iter().filter(|socket| heard(**socket) == MESSAGES).count()
    };
    one.tick();
    assert_eq!(one.shard.driver.sent_to[before], SOCKET, "what is live comes first");
    assert!(one.said_to(SOCKET).ends_with(r#""seq":1,"payload":1}"#));
    for count in [2, 4, 6] {
        assert_eq!(caught_up(&one), count);
        assert_eq!(one.shard.rest(one.now).is_some_and(|rest| rest.is_zero()), count < 6);
        one.tick();
    }
    let _ = one.shard.audit();
}
