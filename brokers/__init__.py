"""The lines to the brokers: connect, subscribe, decode, publish; a folder for each vendor."""
