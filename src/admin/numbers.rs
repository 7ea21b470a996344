//! The metrics page in OpenMetrics text, which Prometheus reads. One table says what each
//! number is called, what it means and where in [`ShardNumbers`] it stands.

use std::fmt;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::{ShardNumbers, Snapshot};
use crate::metrics::DEPTH_BOUNDS;

/// The metrics page.
pub(super) fn encode(snapshot: &Snapshot) -> String {
    let mut registry = Registry::with_prefix("ringcast");
    registry.register_collector(Box::new(Page(snapshot.clone())));
    let mut body = String::new();
    encode_text(&mut body, &registry).expect("a string takes every text");
    body
}

/// A number that each shard has one of.
struct Plain {
    name: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    help: &'static str,
    read: fn(&ShardNumbers) -> u64,
}

const fn counter(name: &'static str, help: &'static str, read: fn(&ShardNumbers) -> u64) -> Plain {
    Plain { name, unit: None, kind: MetricType::Counter, help, read }
}

const fn gauge(name: &'static str, help: &'static str, read: fn(&ShardNumbers) -> u64) -> Plain {
    Plain { name, unit: None, kind: MetricType::Gauge, help, read }
}

const fn bytes(name: &'static str, help: &'static str, read: fn(&ShardNumbers) -> u64) -> Plain {
    Plain { name, unit: Some(Unit::Bytes), kind: MetricType::Counter, help, read }
}

static PLAIN: [Plain; 24] = [
    gauge("connections", "Connections now, in any phase.", |shard| shard.connections),
    gauge("clients", "Clients now: open WebSockets, and who listens over HTTP.", |shard| {
        shard.clients
    }),
    counter("accepted", "Connections accepted.", |shard| shard.accepted),
    counter(
        "accept_failures",
        "Times accepting failed for want of descriptors or memory.",
        |shard| shard.accept_failures,
    ),
    counter("handed_over", "Accepted connections passed to a lighter shard.", |shard| {
        shard.handed_over
    }),
    counter("handshakes", "Handshakes that opened a WebSocket.", |shard| shard.handshakes_ok),
    counter("messages_received", "Messages from clients.", |shard| shard.messages_in),
    counter("errors", "Requests answered with an error.", |shard| shard.errors),
    counter("publishes", "Messages published to channels at home on the shard.", |shard| {
        shard.publishes
    }),
    counter("deliveries", "Messages given to subscribers.", |shard| shard.deliveries),
    counter("gaps", "Gap notices sent.", |shard| shard.gaps),
    bytes("received", "Bytes received.", |shard| shard.bytes_in),
    bytes("sent", "Bytes sent.", |shard| shard.bytes_out),
    counter("sends", "Sends submitted to the kernel.", |shard| shard.sends),
    gauge("backlogged", "Clients with a backlog now.", |shard| shard.backlogged),
    gauge("channels", "Channels at home on the shard now.", |shard| shard.channels),
    gauge("subscriptions", "Subscriptions of the shard's clients now.", |shard| {
        shard.subscriptions
    }),
    gauge("presence_users", "Users present in the channels at home on the shard now.", |shard| {
        shard.presence_users
    }),
    gauge(
        "presence_connections",
        "Connections of users and others in channels at home on the shard with presence, now.",
        |shard| shard.presence_connections,
    ),
    counter("ticks", "Turns of the shard's loop.", |shard| shard.ticks),
    counter("letters_sent", "Letters sent to other shards.", |shard| shard.letters_sent),
    counter("letters_received", "Letters received from other shards.", |shard| {
        shard.letters_received
    }),
    counter("mailbox_full", "Times another shard's mailbox was full.", |shard| shard.mailbox_full),
    gauge("load_permille", "Share of the last moments spent working, in thousandths.", |shard| {
        shard.load_permille
    }),
];

/// Numbers that each shard has one of for every value of a label.
struct Labelled {
    name: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    help: &'static str,
    label: &'static str,
    read: fn(&ShardNumbers) -> &[(&'static str, u64)],
}

static LABELLED: [Labelled; 6] = [
    Labelled {
        name: "handshakes_failed",
        unit: None,
        kind: MetricType::Counter,
        help: "Handshakes that opened no WebSocket, by reason.",
        label: "reason",
        read: |shard| &shard.handshakes_failed,
    },
    Labelled {
        name: "requests",
        unit: None,
        kind: MetricType::Counter,
        help: "Requests taken over HTTP, by door.",
        label: "door",
        read: |shard| &shard.requests,
    },
    Labelled {
        name: "ended",
        unit: None,
        kind: MetricType::Counter,
        help: "Connections whose life ended, by reason.",
        label: "reason",
        read: |shard| &shard.ended,
    },
    Labelled {
        name: "frames_encoded",
        unit: None,
        kind: MetricType::Counter,
        help: "Messages encoded, once for each form that somebody receives them in.",
        label: "format",
        read: |shard| &shard.encoded,
    },
    Labelled {
        name: "dropped",
        unit: None,
        kind: MetricType::Counter,
        help: "Messages kept from a subscriber whose outbox was full, or because they were too old, by policy.",
        label: "policy",
        read: |shard| &shard.dropped,
    },
    Labelled {
        name: "memory",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        help: "Bytes held now, by line of the memory plan.",
        label: "line",
        read: |shard| &shard.memory,
    },
];

#[derive(Debug)]
struct Page(Snapshot);

/// One number of a family, in the way its kind is written.
fn write(
    encoder: &mut MetricEncoder<'_>,
    kind: MetricType,
    labels: &[(&str, &str)],
    n: u64,
) -> fmt::Result {
    let mut encoder = encoder.encode_family(&labels)?;
    match kind {
        MetricType::Counter => encoder.encode_counter::<[(&str, &str); 0], _, u64>(&n, None),
        _ => encoder.encode_gauge(&n),
    }
}

impl Collector for Page {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_process(&mut out)?;
        let names: Vec<String> = (0..self.0.shards.len()).map(|shard| shard.to_string()).collect();
        let shards = || names.iter().map(String::as_str).zip(&self.0.shards);
        for number in &PLAIN {
            let Plain { name, unit, kind, help, read } = number;
            let mut family = out.encode_descriptor(name, help, unit.as_ref(), *kind)?;
            for (shard, numbers) in shards() {
                write(&mut family, *kind, &[("shard", shard)], read(numbers))?;
            }
        }
        for number in &LABELLED {
            let Labelled { name, unit, kind, help, label, read } = number;
            let mut family = out.encode_descriptor(name, help, unit.as_ref(), *kind)?;
            for (shard, numbers) in shards() {
                for (value, n) in read(numbers) {
                    write(&mut family, *kind, &[("shard", shard), (label, value)], *n)?;
                }
            }
        }
        let help = "Messages left waiting for a client when its socket was full after a send.";
        let mut family =
            out.encode_descriptor("outbox_depth", help, None, MetricType::Histogram)?;
        for (shard, numbers) in shards() {
            let bounds = DEPTH_BOUNDS.iter().map(|bound| *bound as f64).chain([f64::INFINITY]);
            // `f64::INFINITY` is the crate's name for the bucket without a bound.
            let buckets: Vec<(f64, u64)> = bounds.zip(numbers.outbox_depth).collect();
            let count = numbers.outbox_depth.iter().sum();
            let sum = numbers.outbox_depth_sum as f64;
            let labels: &[(&str, &str)] = &[("shard", shard)];
            family
                .encode_family(&labels)?
                .encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

impl Page {
    /// What there is one of in the process.
    fn encode_process(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Snapshot { started_at, driver, plan, process, ready, draining, .. } = &self.0;
        let help = "The version that runs.";
        let mut family = out.encode_descriptor("build", help, None, MetricType::Info)?;
        family.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let help = "How sockets are driven.";
        let mut family = out.encode_descriptor("driver", help, None, MetricType::Info)?;
        family.encode_info(&[("driver", driver.name), ("descriptors", driver.descriptors)])?;

        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            out.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
        };
        let since_epoch = started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let help = "When the process started, since 1970.";
        gauge("start_time", help, Some(&Unit::Seconds), since_epoch.as_secs_f64())?;
        gauge("ready", "1 while new clients may be sent here.", None, flag(*ready && !draining))?;
        gauge("draining", "1 while a shutdown is under way.", None, flag(*draining))?;
        if let Some(process) = process {
            let help = "Bytes of memory that are really there.";
            gauge("resident_memory", help, Some(&Unit::Bytes), process.resident_bytes as f64)?;
            let help = "CPU time, user and system.";
            out.encode_descriptor("cpu", help, Some(&Unit::Seconds), MetricType::Counter)?
                .encode_counter::<[(&str, &str); 0], _, u64>(&process.cpu_seconds, None)?;
        }
        let help = "Bytes set aside by the memory plan, by line.";
        let kind = MetricType::Gauge;
        let mut family = out.encode_descriptor("memory_planned", help, Some(&Unit::Bytes), kind)?;
        for (line, planned) in plan {
            write(&mut family, kind, &[("line", line)], *planned)?;
        }
        Ok(())
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[cfg(test)]
mod tests {
    use super::super::tests::snapshot;
    use super::*;

    #[test]
    fn every_number_stands_with_its_labels() {
        let page = encode(&snapshot());
        for line in [
            "ringcast_connections{shard=\"0\"} 3",
            "ringcast_connections{shard=\"1\"} 0",
            "# TYPE ringcast_accepted counter",
            "ringcast_accepted_total{shard=\"0\"} 7",
            "ringcast_handshakes_failed_total{shard=\"0\",reason=\"bad_request\"} 2",
            "ringcast_requests_total{shard=\"0\",door=\"publish\"} 4",
            "ringcast_frames_encoded_total{shard=\"0\",format=\"json_deflate\"} 4",
            "ringcast_dropped_total{shard=\"0\",policy=\"drop_oldest\"} 5",
            "# TYPE ringcast_sent_bytes counter",
            "ringcast_sent_bytes_total{shard=\"0\"} 4096",
            "ringcast_memory_bytes{shard=\"0\",line=\"messages\"} 512",
            "ringcast_memory_planned_bytes{line=\"connections\"} 1048576",
            "ringcast_driver_info{driver=\"uring\",descriptors=\"direct\"} 1",
            "ringcast_outbox_depth_bucket{le=\"1.0\",shard=\"0\"} 4",
            "ringcast_outbox_depth_bucket{le=\"+Inf\",shard=\"0\"} 5",
            "ringcast_outbox_depth_sum{shard=\"0\"} 70.0",
            "ringcast_start_time_seconds 1000.0",
            "ringcast_cpu_seconds_total 1.5",
            "ringcast_ready 1.0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn the_page_is_well_formed() {
        // OpenMetrics: every family is described once, before its samples, which stand together.
        let page = encode(&snapshot());
        let mut described = std::collections::HashSet::new();
        let mut family = "";
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().expect("a name");
                assert!(described.insert(family), "{family} is described twice");
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(!help.is_empty(), "{name} has no help");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(family), "{line} stands under {family}");
                let value = line.rsplit(' ').next().expect("a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
