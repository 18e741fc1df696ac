"""Days that several homes collected, put together into one."""
