"""The commands, by purpose: what each is called, takes and returns."""
