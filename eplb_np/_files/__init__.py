"""Files as bytes: whole or not at all when written, one line of complaint when read."""
