"""What a process runs on: errors, atomic files, progress, memory, process group, precision, random state."""
