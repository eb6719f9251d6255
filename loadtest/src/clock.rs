//! The machine's monotonic clock, which all processes of one run share.

/// Nanoseconds since boot; comparable between processes, unlike `std::time::Instant`.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
