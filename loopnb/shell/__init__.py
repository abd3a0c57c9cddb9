"""What kernel and terminal share: which cell executes, interrupts, reports, the end."""
