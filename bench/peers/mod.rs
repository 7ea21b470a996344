//! Servers a user would choose instead, as their users write them: a task per client on a
//! single-threaded tokio runtime, so that each is one core like one shard.
//!
//! All speak the least that serves the scenarios: `/echo` answers each message with itself, a
//! text on `/pub` goes to everyone who connected to `/ws`.

mod fastwebsockets;
mod tungstenite;

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::machine;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Fastwebsockets,
    Tungstenite,
    TungsteniteTuned,
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(long, value_enum)]
    kind: Kind,
    #[arg(long)]
    port: u16,
}

/// Serves until it is killed.
pub(crate) fn serve(arguments: &Arguments) -> io::Result<()> {
    machine::raise_descriptor_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, arguments.port).into())?;
        let listener = socket.listen(4096)?;
        match arguments.kind {
            Kind::Fastwebsockets => fastwebsockets::serve(listener).await,
            Kind::Tungstenite => tungstenite::serve(listener, false).await,
            Kind::TungsteniteTuned => tungstenite::serve(listener, true).await,
        }
    })
}

/// What a connection is for, by its path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Echo,
    Publisher,
    Subscriber,
}

impl Role {
    fn of(path: &str) -> Self {
        match path {
            "/echo" => Self::Echo,
            "/pub" => Self::Publisher,
            _ => Self::Subscriber,
        }
    }
}

/// Everyone who is subscribed: a queue for each.
struct Crowd<M> {
    queues: Mutex<(u64, HashMap<u64, UnboundedSender<M>>)>,
}

impl<M: Clone> Crowd<M> {
    fn new() -> Arc<Self> {
        Arc::new(Self { queues: Mutex::new((0, HashMap::new())) })
    }

    fn join(&self) -> (u64, UnboundedReceiver<M>) {
        let (sender, receiver) = unbounded_channel();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.0 += 1;
        let id = queues.0;
        queues.1.insert(id, sender);
        (id, receiver)
    }

    fn leave(&self, id: u64) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&id);
    }

    fn publish(&self, message: &M) {
        for queue in self.queues.lock().unwrap_or_else(PoisonError::into_inner).1.values() {
            let _ = queue.send(message.clone());
        }
    }
}
