//! Arguments to one command to exit code.

fn main() {}
