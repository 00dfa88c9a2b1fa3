// The worker's side of a lease (docs/reliability.md). Pure: times are given.
#ifndef SEQPAR_WORKER_DAEMON_LEASE_H_
#define SEQPAR_WORKER_DAEMON_LEASE_H_

#include <cstdint>
#include <map>

namespace seqpar {

// Counts, by CLOCK_BOOTTIME, from sending the message that was answered. The coordinator counts from
// receiving it, so its lease ends later by the message's way; the worker's ends a margin earlier on top: one
// second, or half of a lease shorter than two.
class WorkerLease {
 public:
  // Welcome answers the Hello sent at `hello_sent_us`.
  void Grant(int64_t lease_ms, int64_t hello_sent_us);
  void HeartbeatSent(int64_t sequence, int64_t now_us);
  // True where the answer extends the lease: it is for a heartbeat of this grant, the first answer for it.
  bool HeartbeatAnswered(int64_t sequence);

  // From sending to the deadline; 0 before the first Grant.
  int64_t length_us() const;
  // 0 before the first Grant.
  int64_t deadline_us() const { return deadline_us_; }
  bool Over(int64_t now_us) const { return now_us >= deadline_us_; }

 private:
  void ExtendFrom(int64_t sent_us);

  int64_t lease_us_ = 0;
  int64_t deadline_us_ = 0;
  std::map<int64_t, int64_t> sent_us_;  // unanswered heartbeats by sequence
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_LEASE_H_
