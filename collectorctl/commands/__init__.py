"""Commands by purpose: names, options, output."""
