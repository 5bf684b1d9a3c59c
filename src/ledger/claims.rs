//! Claims: who owns which partition.
