"""Universe: expressions that stand for instruments, and the list that they gave."""
