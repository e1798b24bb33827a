"""One file, one kind of job, one function."""
