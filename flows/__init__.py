"""What an operator runs: one async flow a file, composed of steps; no SQL, no classes, no I/O of its own."""
