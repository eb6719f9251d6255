//! Hard ceilings, with units. What an operator may set lies below these; see `config::reference`.

/// Header fields one head may ever have: the size of the parser's array on the stack.
pub const HEADERS_CEILING: usize = 256;

/// Fields that a head read later has room for already.
pub const FIELDS_KEPT_MAX: usize = 64;

/// Bytes one head may ever have.
pub const HEAD_BYTES_CEILING: usize = 256 * 1024;

/// Empty lines tolerated before a request line (RFC 9112 section 2.2 asks for at least one).
pub const LEADING_EMPTY_LINES_MAX: usize = 2;

/// A method longer than this is no method (the longest registered has 17 letters).
pub const METHOD_BYTES_MAX: usize = 32;

/// Hex digits of a chunk size; 16 would already overflow the counters.
pub const CHUNK_SIZE_DIGITS_MAX: u32 = 15;

/// Bytes of all chunk extensions of one body together: legal, useless, skipped.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a trailer section, which is read and dropped.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Interim (1xx) answers tolerated before a final one.
pub const INTERIM_ANSWERS_MAX: usize = 16;

/// A buffer that reads heads: most requests fit whole.
pub const SMALL_BUFFER_BYTES: usize = 4 * 1024;

/// A buffer that streams bodies.
pub const LARGE_BUFFER_BYTES: usize = 64 * 1024;

/// Room kept before the bytes of every buffer, where a rewritten head or a chunk size goes.
pub const BUFFER_HEADROOM_BYTES: usize = 1024;

/// Room kept behind them, for a chunk's end and the last chunk.
pub const BUFFER_TAILROOM_BYTES: usize = 16;

/// Bytes of free buffers of each size that a worker keeps: 800 small ones, 60 large ones.
pub const FREE_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A message that is sent with others when a turn of the loop ends; a larger one is sent at once, from the
/// buffer it lies in.
pub const POSTED_BYTES_MAX: usize = 16 * 1024;

/// Such messages in a turn; what comes behind them is sent at once. 1 MiB for each worker.
pub const POSTED_MAX: usize = 64;

/// A backend's session id: a head that carries it sealed must stay far below its own limit.
pub const SESSION_ID_BYTES_MAX: usize = 1024;

/// Endpoints tried for one request when connecting fails.
pub const CONNECT_ATTEMPTS_MAX: usize = 3;

/// Bytes read and dropped after a refusal, so that closing does not destroy the answer on its way.
pub const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Bytes a client may send behind a request that is being served before we stop reading, and with it
/// stop seeing it leave.
pub const LOOK_AHEAD_BYTES_MAX: usize = 2 * LARGE_BUFFER_BYTES;

/// Flights of one worker that wait for another worker to say who leads; beyond that a worker's
/// requests share among themselves only.
pub const PEER_TICKETS_MAX: usize = 512;

/// Connections that one worker hands to others in a tick, between two looks at what they carry.
pub const HANDED_PER_TICK_MAX: usize = 16;

/// Times a request asks again for a shared answer before it goes on by itself.
pub const SHARE_ATTEMPTS_MAX: usize = 3;

/// Connections taken in one turn before other tasks run.
pub const ACCEPTS_PER_TURN_MAX: usize = 64;

/// Lines of the access log that a worker gathers before it hands them over.
pub const ACCESS_BATCH_BYTES: usize = 16 * 1024;

/// Batches of all workers that wait to be written; more are lost. 8 MiB if they are full.
pub const ACCESS_BATCHES_MAX: usize = 512;

/// Lines written to the access log with one call, about.
pub const ACCESS_WRITE_BYTES: usize = 256 * 1024;

/// Bytes of a path shown in the access log.
pub const ACCESS_PATH_BYTES_MAX: usize = 1024;

/// Bytes of a tool's, prompt's, resource's or task's name shown in the access log.
pub const ACCESS_NAME_BYTES_MAX: usize = 256;

/// Reads of one socket without a wait between them, before others get their turn. On epoll only: on a
/// ring each read is waited for.
pub const READS_WITHOUT_WAIT_MAX: u32 = 64;

const _: () = assert!(HEADERS_CEILING <= 256, "a field's place is one byte");
const _: () = assert!(SMALL_BUFFER_BYTES < LARGE_BUFFER_BYTES);
const _: () = assert!(BUFFER_HEADROOM_BYTES >= 18, "a chunk size of 16 digits and its CRLF");
const _: () = assert!(BUFFER_TAILROOM_BYTES >= 7, "CRLF, then the last chunk");
const _: () = assert!(CHUNK_SIZE_DIGITS_MAX < 16, "a chunk size stays below 2^60");
