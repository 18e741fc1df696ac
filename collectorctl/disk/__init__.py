"""Room on the disk: the guard of what may wait, and the removal of files that nobody needs any more."""
