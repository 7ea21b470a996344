"""What was published, what was seen, and whether the two agree: every subscriber sees each
channel's numbers rise by one, except over gaps it is told of, and under one number everybody sees
the same message."""

from collections import Counter, deque

from wire import Broken

# Numbers remembered of each channel: far more than the outboxes and socket buffers between the
# fastest and the slowest subscriber can hold.
REMEMBERED = 20_000


class Ledger:
    """The common knowledge of all checked clients of one server."""

    def __init__(self):
        self.epochs = {}  # channel -> epoch: all are in use until the end, so it must not change
        self.marks = {}  # channel -> {seq: mark of the message}
        self.order = {}  # channel -> the seqs in the order they were learnt
        self.last = {}  # channel -> the highest seq that was acknowledged
        self.may_begin_anew = set()  # channels that nobody may have wanted for a minute
        self.counts = Counter()

    def subscribed(self, channel, epoch, seq):
        """Begins a subscription."""
        known = self.epochs.setdefault(channel, epoch)
        if known != epoch and channel in self.may_begin_anew:
            self.may_begin_anew.remove(channel)
            self.counts["of earlier epochs"] += self.last.get(channel, 0)
            self.forget(channel)
            known = self.epochs[channel] = epoch
        if known != epoch:
            raise Broken(f"{channel} was numbered in {known} and is now in {epoch}")
        return Continuity(self, channel, seq)

    def learn(self, channel, seq, mark):
        """Somebody says that the message `mark` has this number."""
        marks = self.marks.setdefault(channel, {})
        if seq not in marks:
            marks[seq] = mark
            order = self.order.setdefault(channel, deque())
            order.append(seq)
            if len(order) > REMEMBERED:
                del marks[order.popleft()]
        elif marks[seq] != mark:
            raise Broken(f"{channel} {seq} is {marks[seq]} for one and {mark} for another")

    def acked(self, channel, seq, mark):
        self.counts["acked"] += 1
        self.learn(channel, seq, mark)
        self.last[channel] = max(self.last.get(channel, 0), seq)

    def forget(self, channel):
        """Nobody of ours will come back to it."""
        for known in (self.epochs, self.marks, self.order, self.last):
            known.pop(channel, None)


class Continuity:
    """One subscription: the next number that may come."""

    def __init__(self, ledger, channel, seq):
        self.ledger, self.channel, self.seq = ledger, channel, seq

    def message(self, seq, mark):
        if seq != self.seq + 1:
            raise Broken(f"{self.channel}: {seq} came after {self.seq}, and no gap was told")
        self.seq = seq
        self.ledger.counts["received"] += 1
        self.ledger.learn(self.channel, seq, mark)

    def gap(self, first, last, reason):
        if first != self.seq + 1 or last < first:
            raise Broken(f"{self.channel}: a gap of {first} to {last} was told after {self.seq}")
        if reason not in ("slow_consumer", "memory") and (reason, self.channel[:6]) != ("stale", "fresh."):
            raise Broken(f"{self.channel}: a gap because of {reason!r}")
        self.seq = last
        self.ledger.counts["gaps"] += 1
        self.ledger.counts["gapped"] += last - first + 1
