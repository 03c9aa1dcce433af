//! Sealcast itself: the shard engine with its I/O, fed over SRTP.
